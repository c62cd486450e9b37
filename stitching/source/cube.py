"""Tables of colour from what a video stores to what standard displays show, for ``lut3d``. Pure.

swscale can do this too (its transfer, primaries and intent options): it computes a table of its own for every
graph, which takes 3.4 s of a processor, and its perceptual intent makes white grey. This one takes 0.1 s.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Transfer: TypeAlias = Literal["pq", "hlg", "sdr"]
Primaries: TypeAlias = Literal["bt2020", "p3", "bt709"]
_Array: TypeAlias = NDArray[np.float64]

_POINTS = 33
#: cd/m2 of diffuse white (ITU-R BT.2408), and of the display that HDR is made for.
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
#: Linear light to BT.709's primaries (D65 all): ITU-R BT.2087, and Display P3 worked out the same way.
_TO_BT709: dict[Primaries, _Array] = {
    "bt709": np.eye(3),
    "bt2020": np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]),
    "p3": np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]),
}
_LUMA_BT2020 = np.array([0.2627, 0.6780, 0.0593])
_M1, _M2, _C1, _C2, _C3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875


@lru_cache(maxsize=4)
def cube_text(transfer: Transfer, primaries: Primaries) -> str:
    """A table in Adobe's .cube format."""
    axis = np.linspace(0.0, 1.0, _POINTS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    table = standard(np.stack([red, green, blue], -1).reshape(-1, 3), transfer, primaries)
    rows = "\n".join(f"{red:.5f} {green:.5f} {blue:.5f}" for red, green, blue in table.tolist())
    return f"LUT_3D_SIZE {_POINTS}\n{rows}\n"


def standard(rgb: _Array, transfer: Transfer, primaries: Primaries) -> _Array:
    """Stored R'G'B' in 0 to 1, (N, 3), as sRGB in 0 to 1. Of HDR diffuse white becomes nearly white."""
    if transfer == "sdr":
        light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    else:
        nits = _pq_nits(rgb) if transfer == "pq" else _hlg_nits(rgb)
        light = _rolled_off(nits) / _WHITE_NITS
    light = np.clip(light @ _TO_BT709[primaries].T, 0.0, 1.0)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _pq_nits(signal: _Array) -> _Array:
    """SMPTE ST 2084."""
    root = signal ** (1 / _M2)
    nits: _Array = 10_000.0 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return nits


def _pq_signal(nits: _Array) -> _Array:
    power = (np.maximum(nits, 0.0) / 10_000.0) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def _hlg_nits(signal: _Array) -> _Array:
    """ITU-R BT.2100: the inverse OETF and, for a display of 1,000 cd/m2, the OOTF of gamma 1.2."""
    scene = np.where(
        signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )
    luma = scene @ _LUMA_BT2020
    nits: _Array = _PEAK_NITS * scene * np.maximum(luma, 1e-9)[:, None] ** 0.2
    return nits


def _rolled_off(nits: _Array) -> _Array:
    """The EETF of ITU-R BT.2390 down to diffuse white, on the greatest of R, G and B: hues stay."""
    greatest = np.maximum(nits.max(axis=1), 1e-6)
    top = float(_pq_signal(np.array(_PEAK_NITS)))
    given = np.minimum(_pq_signal(greatest) / top, 1.0)
    most = float(_pq_signal(np.array(_WHITE_NITS))) / top
    knee = 1.5 * most - 0.5
    t = np.clip((given - knee) / (1 - knee), 0.0, 1.0)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    )
    wanted = _pq_nits(np.where(given < knee, given, spline) * top)
    kept: _Array = nits * (wanted / greatest)[:, None]
    return kept
