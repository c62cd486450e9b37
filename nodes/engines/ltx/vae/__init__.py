"""The VAE over a clip of any length, in memory that does not grow with it.

What computes with the layers of diffusers' AutoencoderKLLTXVideo enters; what is encoded and when belongs to
the family.
"""

from __future__ import annotations

from nodes.engines.ltx.vae.coders import decoded, encoded

__all__ = ["decoded", "encoded"]
