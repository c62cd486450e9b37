"""The figures of the model card: ``python -m models.tiny_wan.recipe.figures``, one JSON line each.

The autoencoder over whole clips, or by its stock loop; the transformer from the first frame, from both ends,
and from five frames at both ends, beside what the autoencoder alone keeps; whether the motion asked for was
followed, by ``benchmarks/motion_judge.py`` (``followed`` is that alone). Held-out photographs, prompts of
held-out wording.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from benchmarks.held_out import JUDGED
from benchmarks.motion_judge import judge
from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.clips import ClipMaker, Prompts
from models.tiny_wan.recipe.data.camera import Pace
from models.tiny_wan.recipe.data.pictures import Atlas
from models.tiny_wan.recipe.measure import HeldOutClip, autoencoder_figures, held_out_clips, write_sheet
from models.tiny_wan.recipe.parts import finished
from models.tiny_wan.recipe.prompts import random_prompt
from models.tiny_wan.recipe.scenes import Scenes
from models.tiny_wan.recipe.text import LENGTH
from models.tiny_wan.recipe.transformer import STEPS, HeldOutTests, generate

#: The plainest words for each motion; a pace fits between.
PLAIN = {
    "left": "the camera pans{} left",
    "right": "the camera pans{} right",
    "up": "the camera tilts{} up",
    "down": "the camera tilts{} down",
    "in": "the camera zooms{} in",
    "out": "the camera zooms{} out",
    "clockwise": "the camera rotates{} clockwise",
    "counterclockwise": "the camera rotates{} counterclockwise",
    "still": "the camera holds still",
}
PACE = {"slow": " slowly", "normal": "", "quick": " quickly"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/tiny_wan"))
    parser.add_argument(
        "--what", default="vae,stock,transformer", help="of vae, stock, transformer, followed, speed"
    )
    parser.add_argument("--each", type=int, default=4, help="motions of each photograph")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--magnified", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="the plainest prompts, not held-out wordings")
    parser.add_argument("--sheet", type=Path, help="write the contact sheet there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clips = held_out_clips(
        side=arguments.side, num_frames=arguments.frames, magnified=arguments.magnified, each=arguments.each
    )
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    vae = finished("vae", arguments.model, arguments.model).to(device).eval().requires_grad_(False)
    whole_clip.prepare(vae)
    for what in arguments.what.split(","):
        began = time.process_time()
        if what in ("vae", "stock"):
            figures = autoencoder_figures(vae, clips, stock=what == "stock")[0]
        elif what == "speed":
            figures = _speed(arguments, vae, clips[0])
        else:
            figures = _transformer(arguments, what, vae, clips, device)
        line = {"what": what, "clips": len(clips), "side": arguments.side, "steps": arguments.steps}
        print(json.dumps({**line, **figures, "cpu_s": round(time.process_time() - began, 1)}), flush=True)


def _transformer(
    arguments: Any, what: str, vae: Any, clips: list[HeldOutClip], device: str
) -> dict[str, Any]:
    transformer = finished("transformer", arguments.model, arguments.model).to(device).eval()
    no_pictures = Atlas(torch.zeros(1, 3, 8, 8, dtype=torch.uint8, device=device))
    scenes = Scenes(no_pictures, torch.Generator(device), textures=1)
    prompts = Prompts(arguments.model, device, each=1, seed=0)
    words = random.Random(14)
    said = [random_prompt(words, clip.asked, held_out=True) for clip in clips]
    if arguments.plain:
        said = [PLAIN[clip.asked.camera[0]].format(PACE[clip.asked.pace]) for clip in clips]
    tokenizer = AutoTokenizer.from_pretrained(arguments.model / "tokenizer")
    tests = HeldOutTests(clips, ClipMaker(scenes, prompts, vae, seed=0), tokenizer, said)
    found = tests.figures(transformer, arguments.steps) if what == "transformer" else {}
    made = tests.made(transformer, "first", arguments.steps)
    pixels = ((made.permute(0, 2, 3, 4, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    with ProcessPoolExecutor(min(48, os.cpu_count() or 1), multiprocessing.get_context("spawn")) as pool:
        questions = ((clip.asked.camera[0], clip.asked.pace, clip.fps) for clip in clips)
        followed = list(pool.map(_followed, pixels, questions, chunksize=4))
    not_followed = [
        f"{clip.photograph} {clip.asked.camera[0]} {clip.asked.pace} {clip.fps:g}: {prompt}"
        for clip, prompt, right in zip(clips, said, followed, strict=True)
        if not right
    ]
    if arguments.sheet:
        write_sheet(arguments.sheet, [clip.frames for clip in clips], list(made))
    share = round(float(np.mean(followed)), 4)
    return {**found, "followed": share, "judged": len(followed), "not_followed": not_followed}


def _followed(pixels: Any, question: tuple[str, Pace, float]) -> bool:
    """Whether the frames (F, H, W, 3) move as they were asked to."""
    torch.set_num_threads(1)
    motion, pace, fps = question
    if motion not in JUDGED:  # "counterclockwise" is "clockwise" in a mirror
        motion, pixels = "clockwise", pixels[:, :, ::-1].copy()
    return bool(judge(pixels, fps, motion, pace).followed)


@torch.no_grad()
def _speed(arguments: Any, vae: Any, clip: HeldOutClip) -> dict[str, Any]:
    """Seconds of one clip from pixels to pixels by the stock loop, and the process's largest memory."""
    transformer = finished("transformer", arguments.model, arguments.model).eval()
    text = torch.zeros(1, LENGTH, transformer.config.text_dim)
    found: dict[str, Any] = {}

    def timed(name: str, make: Callable[..., torch.Tensor], *inputs: Any) -> torch.Tensor:
        began, used = time.perf_counter(), time.process_time()
        made = make(*inputs)
        found[f"{name}_s"] = round(time.perf_counter() - began, 2)
        found[f"{name}_cpu_s"] = round(time.process_time() - used, 2)
        return made

    for _ in range(2):  # the second time counts
        frames = clip.frames[None]
        condition = timed("encode", lambda x: vae.encode(x).latent_dist.mode(), frames)
        mask = torch.zeros(1, 4, *condition.shape[2:])
        noise = torch.randn_like(condition)
        steps = arguments.steps
        latents = timed("denoise", generate, transformer, condition, mask, text, noise, steps)
        timed("decode", lambda x: vae.decode(x).sample, latents)
    found["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
    return found


if __name__ == "__main__":
    main()
