"""Photographs and drawings of strangers: what kind they are, and their pixels, no larger than a video's.

Hostile bytes enter, in a child process with limits; an upright 8-bit sRGB picture without metadata leaves.
"""

from __future__ import annotations

from stitching.pictures.kinds import MAX_PIXELS, PictureError, is_picture
from stitching.pictures.reading import Picture, read_picture

__all__ = ["MAX_PIXELS", "Picture", "PictureError", "is_picture", "read_picture"]
