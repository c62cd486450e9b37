"""From a request and a model's spec to a plan: segments, handles, seeds and dependencies, decided once.

Pure functions on values enter; nothing here knows of a running job or asks a machine.
"""

from __future__ import annotations

from farm.planning.choices import Choices, choices, nothing_asked, sizes_of
from farm.planning.framing import Framing, framing
from farm.planning.keyframes import Keyframe, keyframes, time_s
from farm.planning.mode_choice import Ends
from farm.planning.modes import of_draft
from farm.planning.plan import Delivery, Draft, FrameRun, Plan, Segment, loaded_as
from farm.planning.planner import footprint
from farm.planning.predict import (
    Left,
    Outline,
    Runner,
    Simulated,
    all_of,
    longest_path,
    outline,
    simulate,
    simulate_reviewed,
)
from farm.planning.render_task import Phase, RenderTask, num_steps_run
from farm.planning.suggest import plan_over, plan_with, preset_choices, refusal

__all__ = [
    "Choices",
    "Delivery",
    "Draft",
    "Ends",
    "FrameRun",
    "Framing",
    "Keyframe",
    "Left",
    "Outline",
    "Phase",
    "Plan",
    "RenderTask",
    "Runner",
    "Segment",
    "Simulated",
    "all_of",
    "choices",
    "footprint",
    "framing",
    "keyframes",
    "loaded_as",
    "longest_path",
    "nothing_asked",
    "num_steps_run",
    "of_draft",
    "outline",
    "plan_over",
    "plan_with",
    "preset_choices",
    "refusal",
    "simulate",
    "simulate_reviewed",
    "sizes_of",
    "time_s",
]
