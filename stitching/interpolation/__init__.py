"""More frames than were given: what is seen at moments between two pictures, each moved along optical flow.

Pictures enter, and where shots begin; rates, files and jobs are told as numbers.
"""

from __future__ import annotations

from stitching.interpolation.between import frames_between
from stitching.interpolation.stream import Between, Interpolator

__all__ = ["Between", "Interpolator", "frames_between"]
