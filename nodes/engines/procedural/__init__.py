"""Moving pictures that are drawn, not denoised: a camera over a photo, a look over a video.

Deterministic functions of pixels enter; no weights.
"""

from __future__ import annotations

from nodes.engines.procedural.engine import LEVELS
from nodes.engines.procedural.family import FAMILY

__all__ = ["FAMILY", "LEVELS"]
