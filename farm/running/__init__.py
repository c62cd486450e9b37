"""The loop that acts: the coordinator, what it drives, where it stores, and the port to the machines.

I/O lives here and decisions do not; whoever is driven takes what it needs, never the whole coordinator.
"""

from __future__ import annotations

from farm.running.blobs import Blobs
from farm.running.cluster import (
    MAX_LOG_BYTES,
    SHEET_NAME,
    SO_FAR_NAME,
    VIDEO_NAME,
    Blob,
    Damaged,
    Failed,
    Finished,
    InputVideo,
    Message,
    Models,
    Order,
    Progress,
    Published,
    Role,
    SegmentFrame,
    StitchOrder,
    StitchSession,
    WorkerDown,
    WorkerUp,
)
from farm.running.coordinator import Coordinator
from farm.running.job_records import RECORD_NAME, read_record, record_head, told_rows, write_record
from farm.running.joining import StitchFailed
from farm.running.membership import ClusterAccess, Membership, Reached
from farm.running.queueing import prioritize
from farm.running.reach import still_unreached, unreached
from farm.running.reopening import Reopening
from farm.running.reviewing import approve_keyframes, remake_keyframe, replace_keyframe
from farm.running.storage import RESERVE_BYTES, Storage, content_hash, file_hash, stored_bytes

__all__ = [
    "MAX_LOG_BYTES",
    "RECORD_NAME",
    "RESERVE_BYTES",
    "SHEET_NAME",
    "SO_FAR_NAME",
    "VIDEO_NAME",
    "Blob",
    "Blobs",
    "ClusterAccess",
    "Coordinator",
    "Damaged",
    "Failed",
    "Finished",
    "InputVideo",
    "Membership",
    "Message",
    "Models",
    "Order",
    "Progress",
    "Published",
    "Reached",
    "Reopening",
    "Role",
    "SegmentFrame",
    "StitchFailed",
    "StitchOrder",
    "StitchSession",
    "Storage",
    "WorkerDown",
    "WorkerUp",
    "approve_keyframes",
    "content_hash",
    "file_hash",
    "prioritize",
    "read_record",
    "record_head",
    "remake_keyframe",
    "replace_keyframe",
    "still_unreached",
    "stored_bytes",
    "told_rows",
    "unreached",
    "write_record",
]
