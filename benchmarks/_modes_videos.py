"""The videos of benchmarks/modes.py: which there are, how one is made, and what is measured of it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks._modes import Asked, Form, Join, planned, render_segment, scratch_folder
from benchmarks.held_out import PHOTOGRAPHS, Frames, filmed, held_out_pictures
from benchmarks.motion_judge import judge
from farm.capabilities.engine_spec import EngineSpec
from farm.planning.plan import Plan
from farm.planning.predict import longest_path
from models.tiny_wan.recipe.asked import Asked as AskedOfModel
from models.tiny_wan.recipe.data.camera import MOTIONS, Pace
from models.tiny_wan.recipe.data.pictures import HELD_OUT_SEED
from models.tiny_wan.recipe.prompts import random_prompt
from nodes.engines.wan.engine import Wan

Row = dict[str, Any]

#: How the farm makes a video of one image: windows that share one keyframe, or a clip of two latents.
FORMS: dict[str, Form] = {
    "chain": Form("chain"),
    "refine": Form("refine"),
    "infill": Form("infill", 1),
    "infill clips": Form("infill"),
}
#: What no mode makes: what a real camera films, and what the autoencoder keeps of it.
TRUTHS = ("camera", "autoencoder")
MADE = (*TRUTHS, *FORMS)

JUDGED = ("left", "right", "in", "down")
FPS = 8
#: Frames of a window that is judged, and of the beginning and the end that are compared.
WINDOW = 16
#: Pixels of the picture to a pixel of the first frame: the path of 96 frames then lies inside the picture.
SCALES: dict[tuple[bool, Pace], float] = {(False, "slow"): 1.0, (False, "normal"): 0.7, (True, "slow"): 1.1}
#: Frames apart on the sheets.
SHEET_EVERY = 16


@dataclass(frozen=True, eq=False)
class Video:
    """One video to make: a case in a mode."""

    case: int
    made: str
    picture_name: str
    #: (3, H, W) uint8.
    picture: np.ndarray[Any, np.dtype[np.uint8]]
    motion: str
    pace: Pace
    prompt: str

    @property
    def name(self) -> str:
        return f"{self.made:12} {self.picture_name}, {self.motion} {self.pace}"

    @property
    def is_photograph(self) -> bool:
        return self.picture_name in PHOTOGRAPHS

    def camera_clip(self, num_frames: int, side: int) -> Frames:
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
            side=side,
            centre=centre,
            scale=scale,
        )
        return clip


def videos_of(side: int) -> list[Video]:
    """Every case in every mode, as filmed and as the autoencoder keeps it; photographs come first.

    A picture's shorter side is twice the frame's.
    """
    words = random.Random(HELD_OUT_SEED + 2)
    pictures = [(name, picture.numpy()) for name, picture in held_out_pictures(2 * side).items()]
    cases: list[tuple[str, Any, str, Pace, str]] = []
    for turn in range(len(JUDGED)):
        for i, (name, picture) in enumerate(pictures):
            motion = JUDGED[(i + i // 4 + turn) % len(JUDGED)]
            # A normal zoom over 12 seconds ends in a few blurred pixels.
            pace: Pace = "slow" if motion == "in" or (i // 2 + turn) % 2 else "normal"
            prompt = random_prompt(words, AskedOfModel((motion,), pace), held_out=True)
            cases.append((name, picture, motion, pace, prompt))
    videos = [Video(number, made, *case) for number, case in enumerate(cases) for made in MADE]
    return sorted(videos, key=lambda video: not video.is_photograph)


def job_plans(folder: Path, video: Video, asked: Asked, spec: EngineSpec) -> dict[str, Plan]:
    """This video's plan in every form."""
    image = video.camera_clip(2, asked.side)[0]
    return {
        name: planned(folder, image, video.prompt, form, spec, asked, video.case)
        for name, form in FORMS.items()
    }


def made_video(engine: Wan, video: Video, asked: Asked) -> tuple[Row, Frames]:
    """A video's row, and every so many of its frames."""
    camera = video.camera_clip(asked.num_frames, asked.side)
    row: Row = {"case": video.case, "made": video.made, "picture": video.picture_name}
    row |= {"motion": video.motion, "pace": video.pace, "prompt": video.prompt}
    if video.made == "camera":
        frames = camera
    elif video.made == "autoencoder":
        whole = video.camera_clip(engine.spec.frames.at_least(asked.num_frames), asked.side)
        frames = engine.decode(engine.encode_video(whole))[: asked.num_frames]
    else:
        form = FORMS[video.made]
        with scratch_folder() as folder:
            plan = planned(folder, camera[0], video.prompt, form, engine.spec, asked, video.case)
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
            "flow_jerk_ratios": [round(seam["flow_jerk_ratio"], 3) for seam in join.seams],
        }
    return row | measures(frames, video), frames[::SHEET_EVERY]


def measures(frames: Frames, video: Video) -> Row:
    """What is read off the frames alone: motion, drift of lightness and colour (CIE Lab), sharpness (the
    variance of the Laplacian) of the first, of the last and of all frames.
    """
    windows = [frames[i : i + WINDOW] for i in range(0, len(frames) - WINDOW + 1, WINDOW)]
    whole = judge(frames, FPS, video.motion, video.pace)
    lab = np.array(
        [cv2.mean(cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))[:3] for f in frames]
    )
    drift = lab[-WINDOW:].mean(axis=0) - lab[:WINDOW].mean(axis=0)
    sharp = np.array([cv2.Laplacian(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var() for f in frames])
    return {
        "windows": len(windows),
        "windows_followed": sum(judge(w, FPS, video.motion, video.pace).followed for w in windows),
        "followed": whole.followed,
        "speed": round(whole.speed, 3),
        "reason": whole.reason,
        "lightness_drift": round(float(drift[0]), 3),
        "colour_drift": [round(float(d), 3) for d in drift[1:]],
        "sharpness": [round(float(s.mean()), 3) for s in (sharp[:WINDOW], sharp[-WINDOW:], sharp)],
    }
