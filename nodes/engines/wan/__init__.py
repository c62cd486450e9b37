"""Wan 2.1 and 2.2 and models of their classes: image to video with one or two experts, TI2V, VACE.

Its own conditioning, step list and loop enter, and the streaming of its causal VAE; what another family could
use belongs to ``common``.
"""

from __future__ import annotations

from nodes.engines.wan.family import FAMILY

__all__ = ["FAMILY"]
