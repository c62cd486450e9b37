"""What a worker does with an order, and a stitcher with segments, whatever brought them the work.

The bodies and their helpers enter; how they are placed and reached does not.
"""

from __future__ import annotations

from nodes.work.blob_cache import BlobCache
from nodes.work.models import WorkerModels
from nodes.work.stitch_process import StitchProcess
from nodes.work.telemetry import Sampler
from nodes.work.worker import WorkerBody

__all__ = ["BlobCache", "Sampler", "StitchProcess", "WorkerBody", "WorkerModels"]
