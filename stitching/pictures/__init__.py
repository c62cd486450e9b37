"""Photographs and drawings of strangers: what kind they are, and their pixels, no larger than a video's.

Hostile bytes enter, in a child process with limits; an upright 8-bit sRGB picture without metadata leaves.
"""

from __future__ import annotations

from stitching.pictures.kinds import PictureError, is_picture
from stitching.pictures.reading import read_animation, read_picture

__all__ = ["PictureError", "is_picture", "read_animation", "read_picture"]
