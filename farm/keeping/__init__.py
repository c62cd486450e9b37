"""Keeping what a farm has made: folders that tell more than the journal, what the storage holds, copies, the
journal's size.

What reads or copies a whole state folder enters, whether its farm is up or not; nothing that runs a job.
"""

from __future__ import annotations

from farm.keeping.backup import Manifest, backup, restore
from farm.keeping.compaction import keep_compact
from farm.keeping.folders import JournalIsOlder, settle_folders
from farm.keeping.survey import Amount, Survey, known, survey

__all__ = [
    "Amount",
    "JournalIsOlder",
    "Manifest",
    "Survey",
    "backup",
    "keep_compact",
    "known",
    "restore",
    "settle_folders",
    "survey",
]
