"""What lies in a state folder, by what the journal knows of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from farm.running import Storage
from farm.state import State
from farm.values import Value


class Amount(Value):
    files: int
    #: As the files are long, not as the disk counts them.
    size_bytes: int


class Survey(Value):
    """Every file of the storage is in one of these, once."""

    #: Inputs and results of the jobs.
    used: Amount
    #: Folders of the jobs: videos, sheets, logs.
    published: Amount
    #: Content and job folders that the journal knows nothing of; they stay until somebody asks for more.
    unknown: Amount
    #: Ids of the jobs whose folders those are.
    unknown_jobs: list[str]
    #: Removed, and not freed yet.
    trash: Amount
    #: Content that the journal names and that is not there: it is rendered again when it is wanted.
    missing_files: int
    #: On that disk, for everybody.
    free_bytes: int


def known(state: State) -> tuple[frozenset[str], frozenset[str]]:
    """What a journal knows: hashes of the content of its jobs, and their ids."""
    return frozenset(state.blob_uses), frozenset(state.jobs)


def survey(storage: Storage, hashes: frozenset[str], job_ids: frozenset[str]) -> Survey:
    """Look at every file; slow where there are many, and made for a thread."""
    stored, folders = storage.contents()
    unknown_jobs = sorted(set(folders) - job_ids)
    unknown = [storage.path(sha256) for sha256 in stored if sha256 not in hashes]
    return Survey(
        used=_amount(storage.path(sha256) for sha256 in stored if sha256 in hashes),
        published=_amount(
            path for job_id in folders if job_id in job_ids for path in _below(storage.job_path(job_id))
        ),
        unknown=_amount(
            [*unknown, *(path for job_id in unknown_jobs for path in _below(storage.job_path(job_id)))]
        ),
        unknown_jobs=unknown_jobs,
        trash=_amount(_below(storage.root / "trash")),
        missing_files=len(hashes - set(stored)),
        free_bytes=shutil.disk_usage(storage.root).free,
    )


def _below(folder: Path) -> Iterable[Path]:
    """Every file; folders may go meanwhile."""
    return (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)


def _amount(paths: Iterable[Path]) -> Amount:
    files = size_bytes = 0
    for path in paths:
        try:
            size_bytes += path.stat().st_size
        except OSError:  # it went meanwhile
            continue
        files += 1
    return Amount(files=files, size_bytes=size_bytes)
