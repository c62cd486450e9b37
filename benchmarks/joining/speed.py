"""How fast are the joins, end to end, and does memory stay flat?

    python benchmarks/joining/speed.py [--size 512] [--frames 300] [--long 5000]

Every way reads the same lossless segments (8 frames, overlap 3, each bent and coloured differently), joins
them and encodes H.264. The alternatives: a linear cross-fade, the least one can do; and the same stitcher
with its flow searched at full scale.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stitching import flow
from stitching.blend import mix
from stitching.clip import Frames
from stitching.stitch import Stitcher
from stitching.video_io import VideoWriter, encode_lossless, read_frames
from stitching.warp import pixel_grid, sample

FPS = Fraction(16)
SEGMENT_FRAMES, OVERLAP = 8, 3
DISTINCT = 8  # segments made; the run goes over them again and again
Way = Callable[[Iterator[bytes], Callable[[Frames], None]], None]
RESULTS = Path(__file__).resolve().parents[1] / "results"


def segments(size: int) -> list[bytes]:
    """A textured scene panning to and fro, so that the last segment is followed by the first."""
    rng = np.random.default_rng(7)
    canvas = np.zeros((size + 64, size + 64, 3), np.float32)
    for blur in (1.5, 3.0, 9.0, 27.0):
        noise = rng.normal(size=canvas.shape).astype(np.float32)
        layer = cv2.GaussianBlur(noise, (0, 0), blur)
        canvas += layer / layer.std() * 14
    scene = np.clip(canvas + 120, 0, 255).astype(np.uint8)
    period = DISTINCT * (SEGMENT_FRAMES - OVERLAP)
    made = []
    for number in range(DISTINCT):
        field = cv2.GaussianBlur(rng.normal(size=(*scene.shape[:2], 2)), (0, 0), size / 8)
        field *= 2.0 / np.sqrt(np.square(field).sum(axis=2).mean())
        bent = sample(scene, (pixel_grid(*scene.shape[:2]) + field).astype(np.float32), sharp=True)
        frames = []
        for k in range(SEGMENT_FRAMES):
            angle = 2 * np.pi * (number * (SEGMENT_FRAMES - OVERLAP) + k) / period
            corner = (32 + 24 * np.cos(angle) + size / 2, 32 + 24 * np.sin(angle) + size / 2)
            frames.append(cv2.getRectSubPix(bent, (size, size), corner).astype(np.int16) + number % 3 * 3)
        made.append(encode_lossless(np.clip(frames, 0, 255).astype(np.uint8), FPS))
    return made


def stitch_all(stored: Iterator[bytes], sink: Callable[[Frames], None]) -> None:
    stitcher = Stitcher(sink)
    stitcher.start(read_frames(next(stored)))
    for data in stored:
        stitcher.accept(stitcher.propose(read_frames(data), overlap=OVERLAP))
    stitcher.finish()


def stitch_at_full_scale(stored: Iterator[bytes], sink: Callable[[Frames], None]) -> None:
    usual = flow._HALF_SCALE_SIDE_PX
    flow._HALF_SCALE_SIDE_PX = 1 << 30
    try:
        stitch_all(stored, sink)
    finally:
        flow._HALF_SCALE_SIDE_PX = usual


def cross_fade_all(stored: Iterator[bytes], sink: Callable[[Frames], None]) -> None:
    held = read_frames(next(stored))
    for data in stored:
        new = read_frames(data)
        pairs = zip(held[-OVERLAP:], new[:OVERLAP], strict=True)
        sink(held[:-OVERLAP])
        sink(np.stack([mix(a, b, (k + 1) / (OVERLAP + 1)) for k, (a, b) in enumerate(pairs)]))
        held = new[OVERLAP:]
    sink(held)


def speed(way: Way, stored: list[bytes], num_frames: int, size: int) -> tuple[float, float]:
    """Output frames a second, and processor milliseconds a frame, which other programs disturb less."""
    num_segments = 1 + (num_frames - SEGMENT_FRAMES) // (SEGMENT_FRAMES - OVERLAP)
    written = 0

    def sink(frames: Frames) -> None:
        nonlocal written
        written += len(frames)
        writer.write(frames)

    with tempfile.TemporaryDirectory() as folder:
        begin, cpu = time.perf_counter(), time.process_time()
        with VideoWriter(Path(folder) / "out.mp4", fps=FPS, width=size, height=size) as writer:
            way((stored[i % DISTINCT] for i in range(num_segments)), sink)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    expected = num_segments * (SEGMENT_FRAMES - OVERLAP) + OVERLAP
    assert written == expected, (written, expected)
    return written / seconds, 1000 * cpu / written


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=303)
    parser.add_argument("--long", type=int, default=0, help="also run so many frames, for the memory figure")
    parser.add_argument("--no-save", action="store_true")
    arguments = parser.parse_args()
    stored = segments(arguments.size)
    load = round(os.getloadavg()[0], 2)  # a busy machine makes every figure lower
    ways = {
        "stitching": stitch_all,
        "stitching, flow at full scale": stitch_at_full_scale,
        "linear cross-fade": cross_fade_all,
    }
    speed(stitch_all, stored, 103, arguments.size)  # also warms up
    peak_after_100 = peak_mib()
    memory = {"peak_mib_after_100_frames": round(peak_after_100, 1)}
    if arguments.long:
        long_speed, _ = speed(stitch_all, stored, arguments.long, arguments.size)
        memory[f"peak_mib_after_{arguments.long}_frames"] = round(peak_mib(), 1)
        print(f"{arguments.long} frames: {long_speed:.1f} frames/s")
    print(memory)
    found: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        rate, cpu_ms = speed(way, stored, arguments.frames, arguments.size)
        found[name] = {"frames_per_second": round(rate, 2), "cpu_ms_per_frame": round(cpu_ms, 1)}
        share = rate / found["stitching"]["frames_per_second"]
        print(f"{name:32}{rate:8.1f} frames/s{share:8.2f} x{cpu_ms:8.1f} processor ms a frame", flush=True)
    if not arguments.no_save:
        RESULTS.mkdir(exist_ok=True)
        made = {"command": "python benchmarks/joining/speed.py", "size": arguments.size}
        made |= {"load_average_before": load}
        made |= {"cores": os.cpu_count(), "opencv": cv2.__version__}
        made |= {"segment_frames": SEGMENT_FRAMES, "overlap": OVERLAP}
        result = {"made": made, "ways": found, "memory": memory}
        (RESULTS / "stitching_speed.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
