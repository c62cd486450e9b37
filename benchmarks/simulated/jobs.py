"""What the farms of ``farmsim.py`` are made of: cards, a model, jobs of every mode."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from farm.capabilities.engine_spec import EngineSpec, RungSpec, StageCost
from farm.capabilities.frame_rule import FrameRule
from farm.capabilities.worker import GIB, Worker
from farm.planning.planner import plan
from farm.request.job import JobRequest
from farm.request.media import MediaInfo
from farm.state.events import JobSubmitted

#: Of the farm's cards: (share, seconds of a window beside the fastest card's, GiB).
CARDS = ((0.25, 1.0, 24), (0.25, 1.6, 12), (0.25, 2.5, 8), (0.25, 6.0, 6))
MODES = ("independent", "independent", "chain", "refine", "infill")


def spec(*, mode: str, large: bool) -> EngineSpec:
    """A model of three rungs. In windows of 8 at 512x512 it fits every card, a large one slowly some."""
    between: dict[str, Any] = {
        "takes": frozenset({"image", "last_image", "keyframes", "text"}),
        "frames": FrameRule(max_frames=33),
        "overlap_frames": 1,
    }
    denoise: dict[str, Any] = {"name": "denoise", "bytes_per_pixel": 256.0, "batch": 2}
    unet = (4 if large else 2) * GIB
    return EngineSpec(
        model="large" if large else "small",
        engine="synthetic",
        native_width=512,
        native_height=512,
        default_strength=0.6,
        default_guidance_scale=9.0,
        component_bytes={"text": GIB, "unet": unet},
        context_bytes=GIB // 2,
        rungs=(
            RungSpec(name="resident", resident=("text", "unet"), stages=(StageCost(**denoise),)),
            RungSpec(
                name="evict",
                stages=(
                    StageCost(name="encode", components=("text",)),
                    StageCost(**denoise, components=("unet",)),
                ),
                slowdown=1.2,
            ),
            RungSpec(name="stream", stages=(StageCost(**denoise, fixed_bytes=GIB // 2),), slowdown=3.0),
        ),
        prior_seconds_per_mpixel_step=1.0,
        random_access=mode == "independent",
        min_fps=1.0,
        **(between if mode == "infill" else {"takes": frozenset({"image", "text", "video"})}),
    )


def submitted(
    job_id: str, segments: int, *, mode: str = "independent", person: str = "", large: bool = False
) -> JobSubmitted:
    """A job of about so many segments; chains are of 16 shots."""
    shots = 16 if mode == "chain" else 1
    images = tuple(
        MediaInfo(kind="image", width=512, height=512, num_frames=1, sha256=f"{i:064x}", path=Path(f"{i}"))
        for i in range(shots)
    )
    num_frames = {
        "independent": 8 + 5 * (segments - 1),
        "chain": max(5 * segments, 128),
        "refine": 4 * segments,
        "infill": 7 * segments,
    }[mode]
    asked = JobRequest(
        inputs=images,
        model="large" if large else "small",
        mode=mode,
        num_frames=num_frames,
        num_inference_steps=8,
    )
    made = plan(asked, spec(mode=mode, large=large))
    return JobSubmitted(job_id=job_id, request=asked, plan=made, submitted_by_id=person)


def cards(count: int, draw: random.Random, *, memory: bool = True) -> dict[Worker, float]:
    """Workers by share, and the seconds of a window there beside the fastest."""
    found = {}
    for number in range(count):
        (_, slower, gib) = draw.choices(CARDS, [share for share, _, _ in CARDS])[0]
        worker = Worker(
            id=f"n{number // 4:05}/gpu{number % 4}",
            node=f"n{number // 4:05}",
            kind="cuda",
            device_name=f"card of {gib} GB",
            vram_bytes=(gib if memory else 24) * GIB,
        )
        found[worker] = slower
    return found
