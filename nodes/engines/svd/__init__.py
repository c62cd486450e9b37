"""Stable Video Diffusion, with 14 frames and with 25 (XT), and models of its classes.

Its own loop, conditioning and config facts enter, and its UNet with less in flight; what another family could
use belongs to ``common``.
"""

from __future__ import annotations

from nodes.engines.svd.family import FAMILY

__all__ = ["FAMILY"]
