"""Joining video clips that overlap in time. Works on arrays of frames; video_io does files.

Functions of pixels enter, nothing that knows of jobs, workers or models. Each module is entered by its name:

from stitching import Stitcher
from stitching.video_io import VideoWriter, read_frames
"""

from __future__ import annotations

from stitching.clip import Frames, Image, StitchError
from stitching.seam_metrics import SeamReport
from stitching.stitch import Seam, Stitcher

__all__ = ["Frames", "Image", "Seam", "SeamReport", "StitchError", "Stitcher"]
