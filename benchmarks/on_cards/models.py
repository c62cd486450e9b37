"""Folders of models with random weights, each written by a process of its own: this one opens no card."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from stitching.video_io import VideoWriter

ROOT = Path(__file__).resolve().parents[2]
_I2VGEN_XL = """
import sys
from pathlib import Path
from benchmarks.i2vgen_xl_memory import FULL, TINY, write_model_folder
write_model_folder(Path(sys.argv[1]), TINY if sys.argv[2] == "tiny" else FULL)
"""
_TRANSFORMER = """
import sys
from pathlib import Path
import torch
from benchmarks.engines._full_size import MODELS, tiny, write_folder
home, name, size = Path(sys.argv[1]).parent, Path(sys.argv[1]).name, sys.argv[2]
model = tiny(MODELS[name]) if size == "tiny" else MODELS[name]
write_folder(home, name, model, torch.float32 if size == "tiny" else torch.bfloat16)
"""


def written(home: Path, name: str, *, tiny: bool) -> Path:
    """The folder of a model; written where it is not there yet."""
    folder = home / name
    if not (folder / "written").exists():
        folder.mkdir(parents=True, exist_ok=True)
        script = _I2VGEN_XL if name == "i2vgen-xl" else _TRANSFORMER
        command = [sys.executable, "-c", script, str(folder), "tiny" if tiny else "full"]
        subprocess.run(command, check=True, cwd=ROOT)
        (folder / "written").touch()
    return folder


def clip(path: Path, width: int, height: int, num_frames: int, fps: int) -> Path:
    """A camera pans slowly over a smooth pattern."""
    across = np.linspace(0, 9, width + num_frames)[None, :, None]
    down = np.linspace(0, 5, height)[:, None, None]
    wide = (np.sin(across + down * np.array([1.0, 1.7, 2.3])) * 90 + 128).astype(np.uint8)
    with VideoWriter(path, fps=Fraction(fps), width=width, height=height) as writer:
        for frame in range(num_frames):
            writer.write(np.ascontiguousarray(wide[:, frame : frame + width]))
    return path


def photo(path: Path, width: int, height: int) -> Path:
    """A smooth picture."""
    from PIL import Image

    across = np.linspace(0, 3, width)[None, :, None]
    down = np.linspace(0, 2, height)[:, None, None]
    picture = np.sin(across + down * np.array([1.0, 1.7, 2.3])) * 110 + 120
    Image.fromarray(picture.astype(np.uint8)).save(path)
    return path
