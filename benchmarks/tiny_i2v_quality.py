"""Does a small I2VGen-XL do what it is asked? 160 held-out cases through the engine, judged and measured.

    python benchmarks/tiny_i2v_quality.py                                   # on a CPU
    python benchmarks/tiny_i2v_quality.py --device cuda --processes 6       # on a GPU

Per case: does the clip follow the motion and pace of the prompt (benchmarks/motion_judge.py), and its PSNR
to what a real camera films, over the pixels that stay in view, frames 1 and later; beside it the PSNR of the
first frame repeated. Also the PSNR of the autoencoder alone on the photographs. What is done is written as it
comes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

# Each process has one thread: there are several of them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.held_out import (  # noqa: E402
    FRAME_PX,
    FRAMES,
    JUDGED,
    PHOTOGRAPHS,
    Frames,
    HeldOutCase,
    held_out_cases,
    held_out_pictures,
    photograph,
    true_clip,
)
from benchmarks.motion_judge import judge  # noqa: E402
from farm.errors import FarmError  # noqa: E402
from farm.planning.render_task import RenderTask  # noqa: E402
from models.tiny_i2v.recipe.camera import PACES  # noqa: E402
from nodes.engines.engine import RenderInputs  # noqa: E402
from nodes.engines.i2vgen_xl.engine import I2VGenXL  # noqa: E402
from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "tiny_i2v_quality.json"
Row = dict[str, Any]

#: Results between two writings of the file.
WRITE_EVERY = 8
#: On the sheet: photographs, and pixels of a frame and of the text beside it.
SHEET_PHOTOGRAPHS, SHEET_FRAME_PX, SHEET_TEXT_PX = 3, 96, 260


class Renderer:
    """One process's engine, and the cases it may be asked for."""

    def __init__(
        self, model: Path, device: Literal["cpu", "cuda"], steps: int, guidance: float, frames: int, side: int
    ) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        spec = i2vgen_xl_spec(model, model=model.name).on(device)
        self.steps = steps
        self.guidance = guidance
        self.frames = frames
        self.side = side
        self.pictures = held_out_pictures()
        self.cases = held_out_cases(self.pictures)
        self.engine = I2VGenXL(spec, source=model, device=device)
        self.engine.load("resident")

    def rendered(self, number: int) -> tuple[Row, Frames, Frames]:
        """A case's row, and the true and the made clip (F, H, W, 3)."""
        case = self.cases[number]
        true, in_view = true_clip(case, self.pictures[case.picture], num_frames=self.frames, side=self.side)
        task = RenderTask(
            model=self.engine.spec.model,
            prompt=case.prompt,
            frame_indices=tuple(range(self.frames)),
            shot_start=0,
            shot_end=self.frames,
            height=self.side,
            width=self.side,
            fps=case.fps,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            seed=number,
        )
        started = time.perf_counter()
        made = self.engine.render(task, RenderInputs(image=true[0]), lambda *_: None).frames
        seconds = time.perf_counter() - started
        return row_of(case, true, made, in_view) | {"seconds": round(seconds, 2)}, true, made

    def reconstructed(self, name: str) -> dict[str, float]:
        """Mean PSNR of the autoencoder alone on five crops of a photograph: the corners and the middle."""
        picture = photograph(name)
        bottom, right = (length - FRAME_PX for length in picture.shape[:2])
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
        crops = np.stack([picture[y : y + FRAME_PX, x : x + FRAME_PX] for y, x in corners])
        decoded = self.engine.decode(self.engine.encode_video(crops))
        return {name: float(np.mean([psnr_db(a, b) for a, b in zip(crops, decoded, strict=True)]))}


def row_of(case: HeldOutCase, true: Frames, made: Frames, in_view: NDArray[np.bool_]) -> Row:
    """The verdict and the figures of a made clip."""
    verdict = judge(made, case.fps, case.motion, case.pace)
    seen, repeated = in_view[1:], np.broadcast_to(true[:1], true[1:].shape)
    return {
        "number": case.number,
        "picture": case.picture,
        "motion": case.motion,
        "pace": case.pace,
        "fps": case.fps,
        "prompt": case.prompt,
        "followed": verdict.followed,
        "speed": round(verdict.speed, 3),
        "reason": verdict.reason,
        "psnr_db": round(psnr_db(true[1:][seen], made[1:][seen]), 2),
        "first_frame_repeated_psnr_db": round(psnr_db(true[1:][seen], repeated[seen]), 2),
    }


def psnr_db(a: Frames, b: Frames) -> float:
    """Of 8-bit pixels, at most 60."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return min(60.0, 10 * math.log10(255**2 / max(error, 1e-6)))


def summary(rows: list[Row]) -> Row:
    """Shares that follow and mean PSNR: of all, by motion, by pace, by frame rate, of photographs alone."""

    def of(chosen: Iterable[Row]) -> Row | None:
        chosen = list(chosen)
        if not chosen:
            return None
        means = {
            name: round(float(np.mean([r[name] for r in chosen])), 3)
            for name in ("followed", "psnr_db", "first_frame_repeated_psnr_db")
        }
        return means | {"cases": len(chosen)}

    return {
        "all": of(rows),
        "photographs": of(r for r in rows if r["picture"] in PHOTOGRAPHS),
        "by_motion": {m: of(r for r in rows if r["motion"] == m) for m in JUDGED},
        "by_pace": {p: of(r for r in rows if r["pace"] == p) for p in PACES},
        "by_fps": {
            f"{fps:g}": of(r for r in rows if r["fps"] == fps) for fps in sorted({r["fps"] for r in rows})
        },
    }


def contact_sheet(clips: list[tuple[Row, Frames, Frames]]) -> Image.Image:
    """The true clip above the made one, with what was asked and what the judge says."""
    size, left = SHEET_FRAME_PX, SHEET_TEXT_PX
    sheet = Image.new("RGB", (left + FRAMES * size, len(clips) * (2 * size + 6)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (row, true, made) in enumerate(clips):
        top = number * (2 * size + 6)
        for line, clip in enumerate((true, made)):
            for t, frame in enumerate(clip[:: len(clip) // FRAMES]):
                small = Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC)
                sheet.paste(small, (left + t * size, top + line * size))
        asked = (
            f"{row['picture']}: {row['motion']}, {row['pace']}, {row['fps']:g} fps\n{wrapped(row['prompt'])}"
        )
        verdict = "followed" if row["followed"] else "NOT FOLLOWED"
        got = f"made: {verdict}, {row['psnr_db']:.1f} dB\n{wrapped(row['reason'])}"
        draw.text((4, top + 4), f"true\n{asked}", "black", font)
        draw.text((4, top + size + 4), got, "darkgreen" if row["followed"] else "firebrick", font)
    return sheet


def wrapped(text: str, width: int = 42) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:4])


_renderer: Renderer


def _start(*arguments: Any) -> None:
    global _renderer
    _renderer = Renderer(*arguments)


def _rendered(number: int) -> tuple[Row, Frames, Frames]:
    return _renderer.rendered(number)


def _reconstructed(name: str) -> dict[str, float]:
    return _renderer.reconstructed(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "tiny_i2v")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="each with a model of its own on the device")
    parser.add_argument("--cases", type=int, default=None, help="the first so many of 160")
    parser.add_argument("--steps", type=int, default=None, help="the model's own number unless given")
    parser.add_argument("--guidance", type=float, default=None, help="the model's own unless given")
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each clip: 8 or 16")
    parser.add_argument("--side", type=int, default=FRAME_PX, help="of the frames, 128 to 256")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument(
        "--sheet", type=Path, default=None, help="also draw a contact sheet here (.jpg or .png)"
    )
    arguments = parser.parse_args()

    try:
        spec = i2vgen_xl_spec(arguments.model, model=arguments.model.name)
    except FarmError as error:
        sys.exit(str(error))
    steps = spec.default_steps if arguments.steps is None else arguments.steps
    guidance = spec.default_guidance_scale if arguments.guidance is None else arguments.guidance
    cases = held_out_cases(held_out_pictures())[: arguments.cases]
    made: Row = {"command": "python benchmarks/tiny_i2v_quality.py", "model": arguments.model.name}
    made |= {"device": torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"}
    made |= {"num_inference_steps": steps, "guidance_scale": guidance}
    made |= {"frames": arguments.frames, "side_px": arguments.side}
    made |= {"torch": torch.__version__, "diffusers": diffusers.__version__, "opencv": cv2.__version__}
    rows: list[Row] = []
    drawn: list[tuple[Row, Frames, Frames]] = []
    autoencoder: dict[str, float] = {}
    shown = PHOTOGRAPHS[:SHEET_PHOTOGRAPHS]

    def write() -> None:
        rows.sort(key=lambda row: row["number"])
        found = {"made": made, **summary(rows), "autoencoder_psnr_db": autoencoder, "cases": rows}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
        if arguments.sheet is not None and drawn:
            drawn.sort(key=lambda clip: clip[0]["number"])
            contact_sheet(drawn).save(arguments.sheet)

    settings = (arguments.model, arguments.device, steps, guidance, arguments.frames, arguments.side)
    started = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, spawn, _start, settings) as pool:
        of_photographs = [pool.submit(_reconstructed, name) for name in PHOTOGRAPHS]
        of_cases = [pool.submit(_rendered, case.number) for case in cases]
        for done, future in enumerate(as_completed(of_cases), start=1):
            row, true, clip = future.result()
            rows.append(row)
            if row["picture"] in shown:
                drawn.append((row, true, clip))
            verdict = "yes" if row["followed"] else "no "
            said = f"{row['motion']:9} {row['pace']:6} {row['picture']:13} {verdict} {row['psnr_db']:5.1f} dB"
            print(
                f"{done:4}/{len(cases)} {time.monotonic() - started:6.0f} s  {said}  {row['reason']}",
                flush=True,
            )
            if done % WRITE_EVERY == 0 and done < len(cases):
                write()
        for found in of_photographs:
            autoencoder |= found.result()
    write()
    print_summary(summary(rows), autoencoder)


def print_summary(found: Row, autoencoder: dict[str, float]) -> None:
    groups = {"all": found["all"], "photographs": found["photographs"]}
    groups |= found["by_motion"] | found["by_pace"] | found["by_fps"]
    for name, means in groups.items():
        if means is not None:
            figures = f"{means['followed']:7.1%} follow {means['psnr_db']:6.2f} dB"
            repeated = f"(first frame repeated {means['first_frame_repeated_psnr_db']:6.2f} dB)"
            print(f"{name:12}{means['cases']:4} cases {figures} {repeated}")
    print("autoencoder alone: " + ", ".join(f"{name} {db:.2f} dB" for name, db in autoencoder.items()))


if __name__ == "__main__":
    main()
