"""Wan's VAE over a band of rows of a clip, in memory that grows with neither.

What computes with the layers of diffusers' AutoencoderKLWan enters; what is encoded and when belongs to the
family.
"""

from __future__ import annotations

from nodes.engines.wan.vae.bands import BandDecoder, Rows

__all__ = ["BandDecoder", "Rows"]
