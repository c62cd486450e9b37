"""LTX-Video 0.9.x: image, keyframes, clips, latents or a video to video.

Its own loop, conditioning, config facts and the streaming of its VAE enter; what another family could use
belongs to ``common``.
"""

from __future__ import annotations

from nodes.engines.ltx.family import FAMILY

__all__ = ["FAMILY"]
