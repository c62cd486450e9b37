"""One colour transform for a whole segment, so that it continues the one before without flicker or fading.

Matching frame by frame flickers; matching only to the segment before lets a slow drift pass from segment to
segment. So: one affine map in CIE Lab per segment towards the segment before, and a pull towards the shot's
first segment that is too slow to see.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from stitching.clip import Floats, Frames, Image

_GAIN_LIMITS = (0.8, 1.25)  # more than that is another scene, not another rendering of the same one
_PULL_DELTA_E_PER_FRAME = 0.1  # a tenth of a just visible difference
_MOST_PULL_DELTA_E = 10.0  # from what was rendered
_FREE_DELTA_E = 3.0  # real footage from fixed cameras moves 0.5-2.7 in 100 frames; less is not called drift
_INVISIBLE_DELTA_E = 0.25  # below it the rounding to 8 bits would do more harm than the correction good
_INVISIBLE_GAIN = 0.01


@dataclass(frozen=True)
class LabStatistics:
    """Mean and standard deviation of L, a and b, each of shape (3,)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @staticmethod
    def of(frames: Frames) -> LabStatistics:
        """Over all pixels of all frames (F, H, W, 3); measured at a quarter of the size."""
        small = np.concatenate([_lab(_quarter(frame)).reshape(-1, 3) for frame in frames])
        mean, std = cv2.meanStdDev(small.reshape(-1, 1, 3))
        return LabStatistics(np.asarray(mean[:, 0], np.float64), np.asarray(std[:, 0], np.float64))


@dataclass(frozen=True)
class ColorTransform:
    """lab -> (lab - center) (gain + k gain_step) + center + offset + k offset_step,

    where k counts the frames, up to ramp_frames."""

    center: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    gain: NDArray[np.float64] = field(default_factory=lambda: np.ones(3))
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    gain_step: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    offset_step: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    ramp_frames: float = 0.0

    def apply(self, frames: Frames, pool: Executor, *, ramp_start: float = 0.0) -> Frames:
        """Corrected copies of frames (F, H, W, 3), or themselves; k is 0 at frame `ramp_start`."""
        ramps = [min(index - ramp_start, self.ramp_frames) for index in range(len(frames))]
        if self._is_invisible(ramps[-1]):
            return frames
        return np.stack(list(pool.map(self._apply_one, frames, ramps)))

    def _is_invisible(self, frames: float) -> bool:
        gain, offset = self.gain + frames * self.gain_step, self.offset + frames * self.offset_step
        contrast = max(np.abs(self.gain - 1).max(), np.abs(gain - 1).max())
        shift = max(np.linalg.norm(self.offset), np.linalg.norm(offset))
        return bool(contrast < _INVISIBLE_GAIN and shift < _INVISIBLE_DELTA_E)

    def _apply_one(self, frame: Image, ramp: float) -> Image:
        gain = self.gain + ramp * self.gain_step
        shift = self.center + self.offset + ramp * self.offset_step - self.center * gain
        lab = _lab(frame)
        lab *= gain.astype(np.float32)
        lab += shift.astype(np.float32)
        rgb = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
        return np.asarray(np.rint(np.clip(rgb, 0.0, 1.0) * np.float32(255)), np.uint8)


def match(segment: LabStatistics, target: LabStatistics) -> ColorTransform:
    """The transform that gives `segment` the mean and the contrast of `target`."""
    gain = np.clip(target.std / np.maximum(segment.std, 1e-3), *_GAIN_LIMITS)
    gain = np.where(target.std < 1.0, 1.0, gain)  # a channel without contrast has none to match
    return ColorTransform(center=segment.mean, gain=gain, offset=target.mean - segment.mean)


def with_pull(
    transform: ColorTransform, segment: LabStatistics, anchor: LabStatistics, num_frames: int
) -> ColorTransform:
    """`transform` plus a slow ramp, over `num_frames`, from how it leaves `segment` towards `anchor`."""
    mean = (segment.mean - transform.center) * transform.gain + transform.center + transform.offset
    std = segment.std * transform.gain
    drift = np.concatenate([mean - anchor.mean, std - anchor.std])
    size = float(np.linalg.norm(drift))
    if size <= _FREE_DELTA_E or num_frames < 1:
        return transform
    per_frame = -drift / size * min(_PULL_DELTA_E_PER_FRAME, (size - _FREE_DELTA_E) / num_frames)
    # A scene may truly have become another: what was rendered is not moved without end.
    pulled = float(np.linalg.norm(transform.offset + num_frames * per_frame[:3]))
    if pulled > max(_MOST_PULL_DELTA_E, float(np.linalg.norm(transform.offset))):
        return transform
    return ColorTransform(
        center=transform.center,
        gain=transform.gain,
        offset=transform.offset,
        gain_step=per_frame[3:] / np.maximum(segment.std, 1.0),
        offset_step=per_frame[:3],
        ramp_frames=num_frames,
    )


def _lab(frame: Image) -> Floats:
    return np.asarray(cv2.cvtColor(frame.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB), np.float32)


def _quarter(frame: Image) -> Image:
    height, width = frame.shape[:2]
    size = (max(1, width // 4), max(1, height // 4))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
