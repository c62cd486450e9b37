"""A corpus of small videos: containers, codecs, rates, colours, shapes and broken files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

NUM_FRAMES = 6
NTSC = Fraction(30000, 1001)


@dataclass(frozen=True)
class Video:
    """One file. cut: share of its bytes that is kept. refused: words of the refusal; empty: it is taken."""

    suffix: str
    codec: str
    pix_fmt: str = "yuv420p"
    rate: Fraction = Fraction(25)
    size: tuple[int, int] = (64, 48)
    options: dict[str, str] = field(default_factory=dict)
    rotation: int | None = None
    aspect: Fraction | None = None
    #: Frames per second that the header claims, where it lies.
    claimed: Fraction | None = None
    cut: float = 1.0
    refused: str = ""

    @property
    def name(self) -> str:
        parts = [self.codec, self.pix_fmt, f"{float(self.rate):.4g}", "{}x{}".format(*self.size)]
        parts += [f"{key}={value}" for key, value in self.options.items()]
        for what in ("rotation", "aspect", "claimed"):
            if getattr(self, what) is not None:
                parts.append(f"{what}{getattr(self, what)}".replace("/", "to"))
        parts += [f"cut{self.cut}"] if self.cut < 1 else []
        return "-".join(parts).replace(":", "_") + self.suffix


#: One of each at least, of what people bring.
KINDS = [
    *(
        Video(".mp4", codec)
        for codec in ("libx264", "libx265", "mpeg4", "libvpx-vp9", "libsvtav1", "mpeg2video")
    ),
    *(Video(".mov", codec) for codec in ("libx264", "mpeg4", "mpeg2video")),
    Video(".mov", "prores_ks", "yuv422p10le"),
    Video(".mov", "mjpeg", "yuvj420p"),
    Video(".mov", "qtrle", "rgb24"),
    *(
        Video(".mkv", codec)
        for codec in ("libx264", "libx265", "libvpx", "libvpx-vp9", "mpeg4", "mpeg2video", "ffv1")
    ),
    Video(".mkv", "ffv1", "bgr0"),
    Video(".mkv", "mjpeg", "yuvj420p"),
    *(Video(".webm", codec) for codec in ("libvpx", "libvpx-vp9")),
    *(Video(".avi", codec) for codec in ("mpeg4", "msmpeg4v2", "msmpeg4", "ffv1")),
    Video(".avi", "mjpeg", "yuvj420p"),
    Video(".avi", "huffyuv", "yuv422p"),
    *(Video(".ts", codec) for codec in ("libx264", "libx265", "mpeg2video")),
    Video(".m2ts", "libx264"),
    *(Video(".mpg", codec) for codec in ("mpeg1video", "mpeg2video")),
    *(Video(".flv", codec) for codec in ("flv", "libx264")),
    *(Video(".wmv", codec) for codec in ("wmv1", "wmv2", "msmpeg4")),
    Video(".3gp", "h263", size=(176, 144), rate=NTSC),
    Video(".3gp", "mpeg4"),
]

_X264 = Video(".mp4", "libx264")
_COLOURS = [
    *(replace(_X264, pix_fmt=name) for name in ("yuv422p", "yuv444p", "yuv420p10le", "yuvj420p", "gray")),
    *(
        replace(_X264, suffix=".mkv", pix_fmt=name)
        for name in ("yuv422p10le", "yuv444p10le", "yuvj444p", "yuvj422p")
    ),
    *(Video(".mkv", "libx265", name) for name in ("yuv420p10le", "yuv422p10le", "yuv444p", "gray")),
    *(Video(".webm", "libvpx-vp9", name) for name in ("yuv422p", "yuv444p")),
    *(
        Video(".mkv", "ffv1", name)
        for name in ("yuv422p", "yuv444p", "yuv420p10le", "gray", "gray16le", "bgra", "gbrp10le")
    ),
    *(Video(".mov", "prores_ks", name) for name in ("yuv444p10le",)),
    *(
        replace(
            _X264, options={"x264-params": f"colormatrix={matrix}:colorprim={matrix}:transfer={matrix}{more}"}
        )
        for matrix in ("bt709", "smpte170m", "bt470bg")
        for more in ("", ":fullrange=on")
    ),
]
_SHAPES = [
    *(replace(_X264, suffix=s, rotation=r) for s in (".mp4", ".mov") for r in (90, 180, -90)),
    *(
        replace(kind, aspect=Fraction(aspect))
        for kind in (_X264, replace(_X264, suffix=".mkv"), Video(".ts", "mpeg2video", size=(64, 48)))
        for aspect in ("4/3", "16/9", "3/4")
        if kind.codec != "mpeg2video"
    ),
    *(replace(_X264, size=size) for size in ((16, 16), (66, 50), (50, 98), (256, 16), (320, 180))),
    *(Video(".mkv", "ffv1", "bgr0", size=size) for size in ((65, 49), (17, 31))),
    *(Video(".webm", "libvpx-vp9", size=size) for size in ((65, 49), (34, 18))),
]
_GROUPS = [
    *(
        replace(_X264, suffix=s, options={"bf": "3", "g": "4", "x264-params": "open-gop=1"})
        for s in (".mp4", ".mkv", ".ts", ".flv")
    ),
    *(replace(_X264, suffix=s, options={"g": "1"}) for s in (".mp4", ".mkv", ".ts", ".flv", ".avi")),
    *(Video(s, "mpeg2video", options={"bf": "2", "g": "3"}) for s in (".mpg", ".ts", ".mkv")),
    *(Video(s, "mpeg4", options={"bf": "2", "g": "4"}) for s in (".avi", ".mp4", ".mkv")),
    *(
        Video(s, "libx265", options={"x265-params": "log-level=none:keyint=3:open-gop=1"})
        for s in (".mp4", ".mkv", ".ts")
    ),
    Video(".avi", "libx264", options={"bf": "2"}),
]
_BROKEN = [
    *(
        replace(kind, cut=cut, refused="is cut off")
        for kind in (
            _X264,
            *(Video(s, "mpeg4") for s in (".mov", ".mkv", ".avi", ".3gp")),
            Video(".wmv", "wmv2"),
        )
        for cut in (0.5, 0.9)
    ),
    *(Video(".mkv", "libx264", claimed=Fraction(rate)) for rate in (5, 60, 1000)),
    *(Video(".mp4", "libx264", claimed=Fraction(rate)) for rate in (5, 60)),
    *(replace(_X264, size=size, refused="at least 16x16") for size in ((8, 8), (64, 8))),
]
_RATES = ("24", "30000/1001", "50", "12", "60000/1001")
#: What MPEG-1 and -2 can say (and ffmpeg 5 tell from six frames).
_MPEG_RATES = ("24", "30000/1001", "50")


def _at_rates() -> Iterator[Video]:
    for kind in KINDS:
        if kind.codec != "h263":
            known = _MPEG_RATES if kind.codec.startswith(("mpeg1", "mpeg2")) else _RATES
            yield from (replace(kind, rate=Fraction(rate)) for rate in known[:4])


def corpus() -> list[Video]:
    """All of it, each name once."""
    every = [*KINDS, *_at_rates(), *_COLOURS, *_SHAPES, *_GROUPS, *_BROKEN]
    return list({video.name: video for video in every}.values())


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """A colour in each quarter; the last one tells the number."""
    image = np.empty((height, width, 3), np.uint8)
    top, left = slice(0, height // 2), slice(0, width // 2)
    image[:], image[top], image[:, left] = 60 + 20 * number, (40, 180, 60), (50, 60, 200)
    image[top, left] = (200, 40, 40)
    return image


def written(video: Video, folder: Path) -> Path:
    """The file of one of the corpus."""
    path = folder / video.name
    options: dict[str, Any] = {}
    if video.suffix == ".m2ts":
        options = {"options": {"mpegts_m2ts_mode": "1"}}
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(video.codec, rate=video.claimed or video.rate)
        (stream.width, stream.height), stream.pix_fmt = video.size, video.pix_fmt
        stream.options = {**_GOOD.get(video.codec, {"qmax": "4"}), **video.options}
        stream.codec_context.time_base = Fraction(1, 1000) if video.claimed else 1 / video.rate
        if video.rotation is not None:
            stream.set_display_rotation(video.rotation)
        if video.aspect is not None:
            stream.codec_context.sample_aspect_ratio = video.aspect
        for number in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number, *video.size), format="rgb24")
            frame = frame.reformat(format=video.pix_fmt, **_matrix(video))
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(number / video.rate / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if video.cut < 1:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * video.cut)])
    return path


#: Options that keep the colours; other encoders take a largest quantiser.
_GOOD: dict[str, dict[str, str]] = {
    **{lossless: {} for lossless in ("ffv1", "huffyuv", "qtrle", "prores_ks")},
    "libsvtav1": {"crf": "10", "preset": "12"},
    "libx264": {"crf": "8"},
    "libx265": {"crf": "8", "x265-params": "log-level=none"},
    "libvpx": {"crf": "4", "b": "2M", "deadline": "realtime"},
    "libvpx-vp9": {"crf": "4", "b": "2M", "deadline": "realtime", "cpu-used": "8"},
}


def _matrix(video: Video) -> dict[str, str]:
    tags = video.options.get("x264-params", "")
    full = "fullrange" in tags or video.pix_fmt.startswith("yuvj")
    return {
        "dst_colorspace": "ITU709" if "bt709" in tags else "ITU601",
        "dst_color_range": "JPEG" if full else "MPEG",
    }
