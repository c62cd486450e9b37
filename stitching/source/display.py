"""What a player does with a stored frame before it shows it: as filters of libavfilter, and in words. Pure.

Numbers of colour are those of ITU-T H.273, which libav uses too.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from stitching.source.crop import WHOLE, Crop
from stitching.source.cube import Primaries, Transfer

#: A filter's name and its arguments.
Filter: TypeAlias = tuple[str, str]

_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_UNTOLD = (0, 2, 3)  # 0 is RGB for a matrix and reserved elsewhere
_WIDE: dict[int, Primaries] = {9: "bt2020", 11: "p3", 12: "p3"}
_HDR: dict[int, Transfer] = {16: "pq", 18: "hlg"}
_SAID: dict[str, str] = {"pq": "HDR10 (PQ)", "hlg": "HDR (HLG)", "bt2020": "BT.2020", "p3": "Display P3"}
_FULL = 2
#: swscale's defaults round down: measured -1.1 grey levels of bias; with these flags 0.01.
_EXACT = "flags=bicubic+accurate_rnd+full_chroma_inp+full_chroma_int"
#: A side that a header makes longer than so many pixels is a header's mistake.
_MAX_SIDE = 16384


@dataclass(frozen=True)
class Stored:
    """A frame as it is stored. matrix: the nine numbers of its display matrix, where it has one."""

    width: int
    height: int
    pix_fmt: str
    is_rgb: bool = False
    colorspace: int = 2
    primaries: int = 2
    transfer: int = 2
    color_range: int = 0
    aspect: Fraction = Fraction(1)
    matrix: tuple[int, ...] | None = None
    crop: Crop = WHOLE


@dataclass(frozen=True)
class Shown:
    """What is done to a frame: cut to (width, height, left, top), sides in square pixels before it is turned,
    colours, turning."""

    cut: tuple[int, int, int, int] | None
    width: int
    height: int
    scale_in: str
    cube: tuple[Transfer, Primaries] | None
    turns: tuple[Filter, ...]
    #: What was changed, each as a line for people.
    changes: tuple[str, ...]


def shown(frame: Stored) -> Shown:
    """How a frame becomes RGB with square pixels, upright, of standard range."""
    cut = frame.crop.of(frame.width, frame.height)
    width, height = _square(*cut, frame.aspect)
    turns, turned = _turns(frame.matrix)
    cube = _cube(frame)
    changes = []
    if cut != (frame.width, frame.height):
        changes.append(
            f"it is cropped, as it says: of {frame.width}x{frame.height} stored pixels"
            f" {cut[0]}x{cut[1]} are shown"
        )
    if (width, height) != cut:
        ratio = f"{frame.aspect.numerator}:{frame.aspect.denominator}"
        changes.append(
            f"its pixels are not square ({ratio}): {cut[0]}x{cut[1]} is brought to {width}x{height}"
        )
    if turned:
        changes.append(turned)
    if cube:
        what = _SAID[cube[1] if cube[0] == "sdr" else cube[0]]
        how = "its colours are" if cube[0] == "sdr" else "it is tone-mapped and"
        changes.append(f"{what}: {how} brought to what standard displays show (BT.709)")
    return Shown(
        cut=None if cut == (frame.width, frame.height) else (*cut, frame.crop.left, frame.crop.top),
        width=width,
        height=height,
        scale_in=_scale_in(frame),
        cube=cube,
        turns=turns,
        changes=tuple(changes),
    )


def filters(way: Shown, cube_path: str | None = None) -> tuple[Filter, ...]:
    """The chain that ends in rgb24. cube_path: the file of ``way.cube``, where it has one, escaped."""
    scale = f"{way.width}:{way.height}:{way.scale_in}:{_EXACT}"
    cut: tuple[Filter, ...] = ()
    if way.cut is not None:
        cut = (("crop", ":".join(map(str, way.cut)) + ":exact=1"),)
    if way.cube is None:
        return (*cut, ("scale", scale), ("format", "rgb24"), *way.turns)
    return (
        *cut,
        ("scale", scale),
        ("format", "gbrp16le"),
        ("lut3d", f"file={cube_path}:interp=tetrahedral"),
        ("scale", _EXACT),
        ("format", "rgb24"),
        *way.turns,
    )


def _square(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Sides in square pixels: the side that is too short is made longer, as players do."""
    if aspect <= 0:
        return width, height
    wide = round(width * max(aspect, Fraction(1)))
    high = round(height / min(aspect, Fraction(1)))
    return (wide, high) if max(wide, high) <= _MAX_SIDE else (width, height)


def _scale_in(frame: Stored) -> str:
    if frame.is_rgb:
        return "in_range=full"
    full = frame.color_range == _FULL or frame.pix_fmt.startswith("yuvj")
    return f"in_color_matrix={_matrix(frame)}:in_range={'full' if full else 'limited'}"


def _matrix(frame: Stored) -> str:
    """Of one that is not told, players take that of its primaries or of its size."""
    if frame.colorspace in _MATRICES:
        return _MATRICES[frame.colorspace]
    if frame.primaries == 9 or (frame.primaries in _UNTOLD and frame.transfer in _HDR):
        return "bt2020"
    return "bt709" if frame.width >= 1280 or frame.height > 576 else "smpte170m"


def _cube(frame: Stored) -> tuple[Transfer, Primaries] | None:
    transfer = _HDR.get(frame.transfer, "sdr")
    primaries = _WIDE.get(frame.primaries, "bt709")
    if transfer != "sdr" and frame.primaries in _UNTOLD:
        primaries = "bt2020"
    return None if (transfer, primaries) == ("sdr", "bt709") else (transfer, primaries)


def _turns(matrix: tuple[int, ...] | None) -> tuple[tuple[Filter, ...], str]:
    """Quarter turns and mirrors of a display matrix (ISO/IEC 14496-12: x' = a x + c y, y' = b x + d y)."""
    if matrix is None:
        return (), ""
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    left, down = (c, b) if swapped else (a, d)
    turns: list[Filter] = [("transpose", "cclock_flip")] if swapped else []
    turns += [("hflip", "")] if left < 0 else []
    turns += [("vflip", "")] if down < 0 else []
    return tuple(turns), _turned(swapped, left < 0, down < 0)


def _turned(swapped: bool, across: bool, down: bool) -> str:
    degrees: dict[tuple[bool, bool, bool], Literal["", "90", "180", "270"]] = {
        (False, False, False): "",
        (True, True, False): "90",
        (False, True, True): "180",
        (True, False, True): "270",
    }
    way = (swapped, across, down)
    if way in degrees:
        return f"it is turned by {degrees[way]} degrees clockwise, as it says" if degrees[way] else ""
    return "it is mirrored, as it says" if not swapped else "it is turned and mirrored, as it says"
