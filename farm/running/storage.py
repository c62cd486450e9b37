"""Files by content: inputs and finished segments under the hash of their bytes, published videos by job."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from farm.errors import CannotRun, InvalidInput
from farm.planning import Plan, Segment
from farm.running.cluster import SHEET_NAME, VIDEO_NAME
from farm.state import Artifact, JobPublished

_SHA256 = re.compile(r"[0-9a-f]{64}")
_JOB_ID = re.compile(r"job-[0-9a-f]{12}")
_TASK_ID = re.compile(r"[a-z]+[0-9]+-[0-9]+")
#: Lossless frames in storage over raw ones, and windows over frames, on the safe side.
STORED_BYTES_PER_PIXEL = 3.0
#: Kept free on the disk for the journal and the rest of the machine.
RESERVE_BYTES = 200 * 1024**2


def stored_bytes(plan: Plan, segments: Iterable[Segment] | None = None) -> int:
    """Upper bound of what segments of a plan take in storage; None: all of them."""
    num_frames = sum(s.num_frames for s in (plan.segments if segments is None else segments))
    return round(num_frames * plan.width * plan.height * STORED_BYTES_PER_PIXEL)


def content_hash(content: bytes | bytearray | memoryview) -> str:
    """SHA-256 in hex: the name content is stored under."""
    return hashlib.sha256(content).hexdigest()


def file_hash(path: Path) -> str:
    """The same of a file that may be too large to be held.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Storage:
    """A folder. Writing is atomic: a name either holds the whole content or does not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            # The root first: a parent that is made on the way has the usual mode.
            for folder in (root, *(root / name for name in ("blobs", "jobs", "incoming", "trash"))):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise CannotRun(
                f"the state folder {root} cannot be made ({error.strerror}); choose another --state"
            ) from error

    def put(self, content: bytes | memoryview) -> str:
        """Store bytes and return their SHA-256; a file of that name with other bytes was damaged.

        Raises:
            CannotRun: no space; nothing is left behind.
        """
        sha256 = content_hash(content)
        path = self.path(sha256)
        if self.has_content(path, sha256):
            return sha256
        with self._writing(path) as temporary, open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return sha256

    def put_file(self, source: Path, sha256: str) -> None:
        """Store a file whose hash is known (a checked input, which nobody writes to any more)."""
        path = self.path(sha256)
        if path.exists() and not source.exists():
            return
        with self._writing(path) as temporary:
            temporary.unlink()
            try:
                os.link(source, temporary)  # at once, whatever its size, over one that may be damaged
            except OSError:  # on another file system
                shutil.copyfile(path if self.is_whole(sha256) else source, temporary)

    def path(self, sha256: str) -> Path:
        """Where that content lies, or would lie."""
        if not _SHA256.fullmatch(sha256):
            raise InvalidInput(f"{sha256!r} is not a SHA-256 in hex")
        return self.root / "blobs" / sha256[:2] / sha256

    def holds(self, artifact: Artifact) -> bool:
        """Whether a finished segment is here, whole."""
        path = self.path(artifact.sha256)
        whole = path.is_file() and path.stat().st_size == artifact.size_bytes
        handover = artifact.handover_sha256
        return whole and (handover is None or self.path(handover).is_file())

    def is_whole(self, sha256: str) -> bool:
        """Whether this content is here as it was stored. Reads it all."""
        return self.has_content(self.path(sha256), sha256)

    def has_content(self, path: Path, sha256: str) -> bool:
        """Whether a file has that content. Reads it all."""
        try:
            return file_hash(path) == sha256
        except OSError:
            return False

    def video_path(self, job_id: str) -> Path:
        """Where a job's published video lies, or would lie."""
        return self.job_path(job_id) / VIDEO_NAME

    def shows(self, published: JobPublished) -> bool:
        """Whether a published video is here with its contact sheet, by its size."""
        path = self.video_path(published.job_id)
        whole = path.is_file() and path.stat().st_size == published.size_bytes
        return whole and (path.parent / SHEET_NAME).is_file()

    def job_folder(self, job_id: str) -> Path:
        """Where a job's video, sheet and report are published.

        Raises:
            CannotRun: it is not there and cannot be made.
        """
        folder = self.job_path(job_id)
        with _said(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def job_path(self, job_id: str) -> Path:
        """Where a job's folder is, or would be."""
        if not _JOB_ID.fullmatch(job_id):
            raise InvalidInput(f"{job_id!r} is not a job id (job- and 12 hex digits)")
        return self.root / "jobs" / job_id

    def attempt_log_path(self, job_id: str, task_id: str, attempt_number: int) -> Path:
        """Where the worker's log of an attempt lies, if there is one; the number ends the attempt's id."""
        if not _TASK_ID.fullmatch(task_id):
            raise InvalidInput(f"{task_id!r} is not a segment's id")
        return self.job_path(job_id) / "logs" / f"{task_id}-{attempt_number}.log"

    def write_text(self, path: Path, text: str) -> None:
        """Write a small file of this storage.

        Raises:
            CannotRun: no space.
        """
        with _said(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")

    def discard(self, path: Path) -> None:
        """Take a file or folder of this storage away at once; ``empty_trash`` frees its space."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, self.root / "trash" / secrets.token_hex(8))

    def empty_trash(self) -> None:
        """Free what was discarded. Takes as long as there are files."""
        for path in (self.root / "trash").iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def contents(self) -> tuple[list[str], list[str]]:
        """SHA-256 of all stored content, and ids of the jobs with a folder; slow where there are many."""
        hashes = [path.name for path in self.root.glob("blobs/*/*") if _SHA256.fullmatch(path.name)]
        return hashes, [path.name for path in self.root.glob("jobs/*") if _JOB_ID.fullmatch(path.name)]

    def incoming_folder(self) -> Path:
        """A fresh private folder for an upload or a normalised input; the caller removes it."""
        return Path(tempfile.mkdtemp(dir=self.root / "incoming"))

    def check_space(self, wanted_bytes: int) -> None:
        """Refuse work whose results would not fit.

        Raises:
            CannotRun: says how much is free and how much is wanted.
        """
        free = shutil.disk_usage(self.root).free
        if wanted_bytes + RESERVE_BYTES > free:
            raise CannotRun(
                f"the job needs about {_amount(wanted_bytes)} in {self.root} and leaves "
                f"{_amount(RESERVE_BYTES)} alone, and {_amount(free)} is free there; "
                "free space or choose another --state"
            )

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[Path]:
        with _said(path.parent):
            path.parent.mkdir(exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
            os.close(handle)
            temporary = Path(name)
            try:
                yield temporary
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


@contextlib.contextmanager
def _said(folder: Path) -> Iterator[None]:
    """A full disk, in words a person can act on."""
    try:
        yield
    except OSError as error:
        raise CannotRun(f"{folder} cannot be written ({error.strerror}); free disk space") from error
