"""What is asked for: the job, its inputs, its options and presets, and whether they make sense at all.

Nothing of models, workers or jobs under way enters; what a user typed becomes a value here or is refused.
"""

from __future__ import annotations

from farm.request import presets
from farm.request.job import (
    FITS,
    MAX_FPS,
    MAX_FRAMES,
    MAX_INPUTS,
    MAX_PROMPT_CHARS,
    MAX_REFERENCES,
    MAX_SEED,
    MAX_SIDE,
    MIN_FPS,
    Fit,
    JobRequest,
    Source,
    check,
    check_numbers,
    check_priority,
    check_seed,
)
from farm.request.media import FrameRate, MediaInfo, SoundInfo, VideoReading
from farm.request.media_tools import MediaTools, OnLook
from farm.request.options import DEFAULT_MODEL, file_here, model_here, parse_size, request_options
from farm.request.presets import MIN_STEPS, PRESETS, Preset, preset
from farm.request.review import (
    HOW,
    Approve,
    Leave,
    Remake,
    Replace,
    ReviewChange,
    TakeBack,
    parse_replacement,
    parse_review,
)

__all__ = [
    "DEFAULT_MODEL",
    "FITS",
    "HOW",
    "MAX_FPS",
    "MAX_FRAMES",
    "MAX_INPUTS",
    "MAX_PROMPT_CHARS",
    "MAX_REFERENCES",
    "MAX_SEED",
    "MAX_SIDE",
    "MIN_FPS",
    "MIN_STEPS",
    "PRESETS",
    "Approve",
    "Fit",
    "FrameRate",
    "JobRequest",
    "Leave",
    "MediaInfo",
    "MediaTools",
    "OnLook",
    "Preset",
    "Remake",
    "Replace",
    "ReviewChange",
    "SoundInfo",
    "Source",
    "TakeBack",
    "VideoReading",
    "check",
    "check_numbers",
    "check_priority",
    "check_seed",
    "file_here",
    "model_here",
    "parse_replacement",
    "parse_review",
    "parse_size",
    "preset",
    "presets",
    "request_options",
]
