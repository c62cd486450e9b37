"""How an input of one shape fills frames of another: the size chosen for it, what is cut, where bars are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import log
from typing import TypeAlias

from farm.capabilities import EngineSpec
from farm.request import Fit, MediaInfo
from farm.values import Value

#: left, top, width, height, as shares of the sides.
Box: TypeAlias = tuple[float, float, float, float]

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
#: For a closer shape a frame may have so much less or more area than the model's own.
LEAST_AREA, MOST_AREA = 0.7, 1.1
#: A draft more: its first frame is the photo, and a keyframe cut otherwise would show it zoomed.
MOST_DRAFT_AREA = 1.4
#: Shapes that differ by less than half of it are as good as one another.
_SHAPE_STEP = 0.005


class Framing(Value):
    """What becomes of one input."""

    #: Of the input, what is seen of it.
    seen: Box = _WHOLE
    #: Of the frame, where that lies; the rest is black.
    place: Box = _WHOLE
    #: The same in words, a clause about the input; "" where all of it is seen as it is.
    said: str = ""


def framing(width: int, height: int, frame_width: int, frame_height: int, fit: Fit) -> Framing:
    """How an input of ``width`` x ``height`` pixels lies in frames of another size."""
    across, down = frame_width / width, frame_height / height
    if abs(log(across / down)) < 1 / max(frame_width, frame_height):  # less than a pixel
        return Framing()
    if fit == "stretch":
        wider = across > down
        by = abs(across / down - 1) if wider else abs(down / across - 1)
        return Framing(said=f"is stretched {_share(by)} {'wider' if wider else 'higher'} than it is")
    sides = across < down  # whether the input is the wider one
    if fit == "crop":
        kept = across / down if sides else down / across
        where = "left and right" if sides else "above and below"
        return Framing(
            seen=_middle(kept, sideways=sides), said=f"loses {_share(1 - kept)}, half of it each {where}"
        )
    covered = down / across if not sides else across / down
    where = "above and below" if sides else "left and right"
    return Framing(
        place=_middle(covered, sideways=not sides),
        said=f"has black bars {where}, {_share(1 - covered)} of the frame",
    )


def _middle(share: float, *, sideways: bool) -> Box:
    edge = (1 - share) / 2
    return (edge, 0.0, share, 1.0) if sideways else (0.0, edge, 1.0, share)


def _share(part: float) -> str:
    return f"{part:.1%}" if part < 0.0995 else f"{part:.0%}"


def framing_notes(framings: Sequence[Framing], fit: Fit) -> tuple[str, ...]:
    """What is to be said of all inputs, those that are treated alike together."""
    alike: dict[str, list[int]] = {}
    for number, framed in enumerate(framings, 1):
        if framed.said:
            alike.setdefault(framed.said, []).append(number)
    return tuple(
        f"{_inputs(numbers, len(framings))}: each {said} (fit: {fit})"
        if len(numbers) > 1
        else f"{_inputs(numbers, len(framings))} {said} (fit: {fit})"
        for said, numbers in alike.items()
    )


def _inputs(numbers: list[int], count: int) -> str:
    if count == 1:
        return "the input"
    if len(numbers) == 1:
        return f"input {numbers[0]}"
    shown = ", ".join(map(str, numbers[:8])) + (" and more" if len(numbers) > 8 else "")
    return f"inputs {shown}"


def side_multiple(spec: EngineSpec) -> int:
    """Of a frame's sides. H.264 in yuv420p needs even ones, whatever the model allows."""
    return spec.side_multiple * (1 + spec.side_multiple % 2)


def near_size(spec: EngineSpec, width: int, height: int, scale: float) -> tuple[int, int]:
    """The size a model can render that is the nearest to so many times this one."""
    return _near_size(side_multiple(spec), width, height, scale)


def _near_size(multiple: int, width: int, height: int, scale: float) -> tuple[int, int]:
    wide, high = (max(multiple, round(side * scale / multiple) * multiple) for side in (width, height))
    return wide, high


def shape_of(spec: EngineSpec, media: MediaInfo | None) -> tuple[int, int]:
    """Width and height that a video's shape comes from: its input's, or the model's own without one."""
    return (spec.native_width, spec.native_height) if media is None else (media.width, media.height)


def size_for(spec: EngineSpec, media: MediaInfo | None, *, area: int | None = None) -> tuple[int, int]:
    """The size for an input, None: for words, where none is asked for, of about this or the model's own area.

    Of a photo, the allowed one that is nearest to its shape; of a video, which is not enlarged, the nearest.
    """
    width, height = shape_of(spec, media)
    area = area or spec.native_width * spec.native_height
    scale = (area / (width * height)) ** 0.5
    if media is not None and media.kind == "video":
        return near_size(spec, width, height, min(scale, 1.0))
    return _near_shape(side_multiple(spec), width, height, area)


def draft_size(spec: EngineSpec, width: int, height: int, *, smallest: bool) -> tuple[int, int]:
    """The size at which a model drafts frames of this one, in their shape and not larger.

    Of about its native area, or of the ``smallest`` that it was trained on, where one is known.
    """
    area = spec.native_width * spec.native_height
    if smallest and spec.trained_sides:
        shortest = spec.trained_sides[0]
        area = shortest * round(shortest * max(width, height) / min(width, height))
    multiple = side_multiple(spec)
    if area >= width * height and width % multiple == height % multiple == 0:
        return width, height
    return _near_shape(multiple, width, height, min(area, width * height), most_area=MOST_DRAFT_AREA)


@lru_cache(maxsize=1024)  # a plan, its comparisons and its choices ask for few sizes, and often
def _near_shape(
    multiple: int, width: int, height: int, area: int, *, most_area: float = MOST_AREA
) -> tuple[int, int]:
    """The size of about this area that is the nearest in shape, with sides that are multiples."""
    scale = (area / (width * height)) ** 0.5
    return min(
        (
            _near_size(multiple, width, height, scale),
            *_sizes_of_about(area, width / height, multiple, most_area),
        ),
        key=lambda size: (
            round(abs(log(size[0] / size[1] * height / width)) / _SHAPE_STEP),
            abs(log(size[0] * size[1] / area)),
        ),
    )


def _sizes_of_about(area: int, shape: float, multiple: int, most_area: float) -> Iterator[tuple[int, int]]:
    """Sizes whose sides are multiples, of an area between ``LEAST_AREA`` and ``most_area`` times this one."""
    widest = int((most_area * area * shape) ** 0.5 / multiple) + 1
    for across in range(1, widest + 1):
        down = across / shape
        for high in {max(1, int(down)), int(down) + 1}:
            if LEAST_AREA * area <= across * high * multiple**2 <= most_area * area:
                yield across * multiple, high * multiple
