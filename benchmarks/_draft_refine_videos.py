"""The videos of benchmarks/draft_refine.py: which there are, how one is made, and what is measured of it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch

from benchmarks._draft_refine import Asked, Join, planned, render_segment, scratch_folder
from benchmarks.held_out import FRAME_PX, PHOTOGRAPHS, Frames, filmed, held_out_pictures
from benchmarks.motion_judge import judge
from farm.capabilities.engine_spec import EngineSpec
from farm.planning.plan import Plan
from farm.planning.predict import longest_path
from models.tiny_i2v.recipe.camera import MOTIONS, Pace
from models.tiny_i2v.recipe.pictures import HELD_OUT_SEED
from models.tiny_i2v.recipe.prompts import random_prompt
from nodes.engines.i2vgen_xl.engine import I2VGenXL

Row = dict[str, Any]
#: "camera" is no mode: what a real camera films, measured alike.
Made = Literal["chain", "refine", "camera"]

JUDGED = ("left", "right", "in", "down")
FPS = 8
#: Frames of a window that is judged, and of the beginning and the end that are compared.
WINDOW = 16
#: Pixels of the picture to a pixel of the first frame: the path of 96 frames then lies inside the picture.
SCALES: dict[tuple[bool, Pace], float] = {(False, "slow"): 1.0, (False, "normal"): 0.7, (True, "slow"): 1.1}
#: Cases that are drawn, of photographs and of procedural pictures, and frames apart there.
SHEET_CASES, SHEET_EVERY = 5, 8


@dataclass(frozen=True, eq=False)
class Video:
    """One video to make: a case in a mode."""

    case: int
    made: Made
    picture_name: str
    #: (3, H, W) uint8.
    picture: np.ndarray[Any, np.dtype[np.uint8]]
    motion: str
    pace: Pace
    prompt: str
    on_sheet: bool

    @property
    def name(self) -> str:
        return f"{self.made:6} {self.picture_name}, {self.motion} {self.pace}"

    def camera_clip(self, num_frames: int) -> Frames:
        """What a real camera films, the middle of its path in the middle of the picture."""
        scale = SCALES[self.motion == "in", self.pace]
        motion = MOTIONS[self.motion].at(self.pace)
        half_s = (num_frames - 1) / FPS / 2
        height, width = self.picture.shape[1:]
        centre = (
            (width - 1) / 2 - motion.right * half_s * scale,
            (height - 1) / 2 - motion.down * half_s * scale,
        )
        picture = torch.from_numpy(self.picture)
        clip, _ = filmed(
            picture,
            self.motion,
            self.pace,
            fps=FPS,
            num_frames=num_frames,
            side=FRAME_PX,
            centre=centre,
            scale=scale,
        )
        return clip


def videos_of(num_cases: int | None) -> list[Video]:
    """Every case in every mode and as filmed, in an order in which any beginning is a mix."""
    words = random.Random(HELD_OUT_SEED + 2)
    pictures = [(name, picture.numpy()) for name, picture in held_out_pictures().items()]
    cases: list[tuple[str, Any, str, Pace, str]] = []
    for turn in range(len(JUDGED)):
        for i, (name, picture) in enumerate(pictures):
            motion = JUDGED[(i + i // 4 + turn) % len(JUDGED)]
            # A normal zoom over 12 seconds ends in a few blurred pixels.
            pace: Pace = "slow" if motion == "in" or (i // 2 + turn) % 2 else "normal"
            cases.append((name, picture, motion, pace, random_prompt(words, motion, pace, held_out=True)))
    cases = cases[:num_cases]
    photographs = [number for number, case in enumerate(cases) if case[0] in PHOTOGRAPHS]
    procedural = [number for number, case in enumerate(cases) if case[0] not in PHOTOGRAPHS]
    # Of the procedural ones every third, so that they show different motions.
    shown = {*photographs[:SHEET_CASES], *procedural[: 3 * SHEET_CASES : 3]}
    return [
        Video(number, made, *case, number in shown)
        for number, case in enumerate(cases)
        for made in get_args(Made)
    ]


def job_plans(folder: Path, video: Video, asked: Asked, spec: EngineSpec) -> dict[str, Plan]:
    """This video's plan in both modes."""
    image = video.camera_clip(2)[0]
    return {
        mode: planned(folder, image, video.prompt, mode, spec, asked, video.case)
        for mode in ("chain", "refine")
    }


def made_video(engine: I2VGenXL, video: Video, asked: Asked) -> tuple[Row, Frames]:
    """A video's row, and every so many of its frames."""
    camera = video.camera_clip(asked.num_frames)
    row: Row = {"case": video.case, "made": video.made, "picture": video.picture_name}
    row |= {"motion": video.motion, "pace": video.pace, "prompt": video.prompt}
    if video.made == "camera":
        frames = camera
    else:
        with scratch_folder() as folder:
            plan = planned(folder, camera[0], video.prompt, video.made, engine.spec, asked, video.case)
            seconds = {s.id: render_segment(engine, plan, s, folder) for s in plan.segments}
            join = Join(folder)
            for segment in plan.final_segments:
                join.add(segment)
            frames = join.finish(asked.num_frames)
        row |= {
            "critical_path_s": round(longest_path(plan, lambda segment: seconds[segment.id]), 3),
            "work_s": round(sum(seconds.values()), 3),
            "segments_s": {name: round(value, 3) for name, value in seconds.items()},
            "seams": len(join.seams),
            "seams_passed": sum(seam["passed"] for seam in join.seams),
            "failed_gates": dict(Counter(gate for seam in join.seams for gate in seam["failed_gates"])),
        }
    return row | measures(frames, video), frames[::SHEET_EVERY]


def measures(frames: Frames, video: Video) -> Row:
    """What is read off the frames alone: motion, drift of lightness and colour (CIE Lab), sharpness."""
    windows = [frames[i : i + WINDOW] for i in range(0, len(frames) - WINDOW + 1, WINDOW)]
    whole = judge(frames, FPS, video.motion, video.pace)
    lab = np.array(
        [cv2.mean(cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))[:3] for f in frames]
    )
    drift = lab[-WINDOW:].mean(axis=0) - lab[:WINDOW].mean(axis=0)
    seconds = np.arange(len(frames)) / FPS
    sharp = [cv2.Laplacian(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var() for f in frames]
    kept = np.mean(sharp[-WINDOW:]) / max(float(np.mean(sharp[:WINDOW])), 1e-6)
    return {
        "windows": len(windows),
        "windows_followed": sum(judge(w, FPS, video.motion, video.pace).followed for w in windows),
        "followed": whole.followed,
        "speed": round(whole.speed, 3),
        "reason": whole.reason,
        "lightness_drift": round(float(drift[0]), 3),
        "lightness_per_s": round(float(np.polyfit(seconds, lab[:, 0], 1)[0]), 4),
        "colour_drift": [round(float(d), 3) for d in drift[1:]],
        "sharpness_kept": round(float(kept), 4),
    }
