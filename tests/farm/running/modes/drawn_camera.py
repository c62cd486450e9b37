"""The drawn camera as a causal model that renders between two given ends."""

from __future__ import annotations

from typing import Any

from farm.capabilities import FrameRule
from farm.capabilities.engine_spec import EngineSpec


def with_both_ends(spec: EngineSpec, **more: Any) -> EngineSpec:
    """``more``: further fields that are changed."""
    return spec.model_copy(
        update={
            "takes": frozenset({"image", "last_image", "keyframes", "text"}),
            "random_access": False,
            "wants_full_image": False,
            "frames": FrameRule.causal(4, max_frames=33),
            "window_frames": 17,
            "max_end_latents": 2,
            "min_fps": 0.5,
            **more,
        }
    )
