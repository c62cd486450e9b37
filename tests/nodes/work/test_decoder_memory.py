"""What reading a window takes is what was predicted: measured in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from farm.planning.holding import decoder_bytes
from farm.request import MediaInfo

_READ = """
import sys
from fractions import Fraction
from pathlib import Path
from stitching.source import Reading, frames_at
def kib(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])
list(frames_at(Path(sys.argv[2]), Reading(), [Fraction(0)], rate=Fraction(25)))
Path("/proc/self/clear_refs").write_text("5")
before = kib("VmRSS")
moments = [Fraction(k, 25) for k in range(12, 20)]
for frame in frames_at(Path(sys.argv[1]), Reading(), moments, rate=Fraction(25)):
    pass
print((kib("VmHWM") - before) * 1024)
"""


def written(path: Path, codec: str, pix_fmt: str, options: dict[str, str], width: int, height: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = width, height, pix_fmt, options
        for number in range(24):
            image = np.zeros((height, width, 3), np.uint8)
            image[:, number * 16 : number * 16 + 200] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")
@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (3840, 2160)])
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("libx264", "yuv420p", {"preset": "ultrafast", "bf": "3", "refs": "8"}),
        ("libx265", "yuv420p10le", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=4"}),
    ],
)
def test_a_decoder_holds_no_more_than_is_said(
    tmp_path: Path, codec: str, pix_fmt: str, options: dict[str, str], width: int, height: int
) -> None:
    small = written(tmp_path / "small.mp4", "libx264", "yuv420p", {}, 64, 48)
    path = written(tmp_path / "large.mp4", codec, pix_fmt, options, width, height)
    read = subprocess.run(
        [sys.executable, "-c", _READ, path, small], check=True, capture_output=True, text=True
    )
    media = MediaInfo(
        kind="video", width=width, height=height, num_frames=24, fps=Fraction(25), sha256="", path=path
    )
    assert 0.2 * decoder_bytes(media) < int(read.stdout) <= decoder_bytes(media)
