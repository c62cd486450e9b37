"""A stored name holds the whole content or does not exist, and no name leaves the folder."""

from __future__ import annotations

import hashlib
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun, InvalidInput
from farm.running.storage import RESERVE_BYTES, Storage
from farm.state.events import Artifact


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow further, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def all_files(storage: Storage) -> list[Path]:
    return [path for path in storage.root.rglob("*") if path.is_file()]


def test_content_lies_under_its_hash(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "state")
    sha256 = storage.put(b"frames")
    assert sha256 == hashlib.sha256(b"frames").hexdigest()
    assert storage.path(sha256).read_bytes() == b"frames"
    assert all_files(storage) == [storage.path(sha256)]


def test_the_same_content_is_stored_once(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    path = storage.path(storage.put(b"frames"))
    before = path.stat()
    assert storage.put(memoryview(b"frames")) == path.name
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_checked_input_is_kept_under_its_hash(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "state")
    source = tmp_path / "photo.png"
    source.write_bytes(b"pixels")
    sha256 = hashlib.sha256(b"pixels").hexdigest()
    storage.put_file(source, sha256)
    source.unlink()
    storage.put_file(source, sha256)  # there already: the source is not read again
    assert storage.path(sha256).read_bytes() == b"pixels"


def test_an_input_of_another_file_system_is_copied(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as source:
        source.write(b"pixels")
        source.flush()
        sha256 = hashlib.sha256(b"pixels").hexdigest()
        storage.put_file(Path(source.name), sha256)
    assert storage.path(sha256).read_bytes() == b"pixels"


def test_a_segment_is_held_when_its_video_is_whole_and_its_handover_there(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    sha256, handover = storage.put(b"frames"), storage.put(b"latents")

    def artifact(**changes: Any) -> Artifact:
        default = {"sha256": sha256, "size_bytes": 6, "num_frames": 8, "frames_sha256": "1" * 64}
        return Artifact(**(default | changes))

    assert storage.holds(artifact())
    assert storage.holds(artifact(handover_sha256=handover))
    assert not storage.holds(artifact(size_bytes=7))
    assert not storage.holds(artifact(sha256="0" * 64))
    assert not storage.holds(artifact(handover_sha256="0" * 64))


@pytest.mark.parametrize("by_file", [False, True])
def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path, by_file: bool) -> None:
    storage = Storage(tmp_path / "state")
    content = os.urandom(100_000)
    sha256 = hashlib.sha256(content).hexdigest()
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as source:  # on the same file system it takes no space
        source.write(content)
        source.flush()
        store: Callable[[], object] = lambda: (  # noqa: E731
            storage.put_file(Path(source.name), sha256) if by_file else storage.put(content)
        )
        refused = pytest.raises(CannotRun, match=r"cannot be written \(.*free disk space")
        with files_of_at_most(50_000), refused:
            store()
    assert all_files(storage) == []
    assert storage.put(content) == sha256


def test_a_folder_that_cannot_be_made_is_said_like_a_full_disk(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    sha256 = hashlib.sha256(b"frames").hexdigest()
    (tmp_path / "blobs" / sha256[:2]).touch()
    with pytest.raises(CannotRun, match="cannot be written"):
        storage.put(b"frames")


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", "a" * 63, "A" * 64, "0" * 64 + "\n", "0" * 65, f"{'0' * 62}/."]
)
def test_only_a_sha256_makes_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a SHA-256"):
        Storage(tmp_path).path(name)


@pytest.mark.parametrize(
    "name", ["", "job-", "job-../../../../x", "job-0123456789AB", "job-0123456789ab/..", "job-0123456789ab\n"]
)
def test_only_a_job_id_makes_a_job_folder(tmp_path: Path, name: str) -> None:
    storage = Storage(tmp_path)
    with pytest.raises(InvalidInput, match="is not a job id"):
        storage.job_folder(name)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_job_folder_is_made_once_and_found_again(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    folder = storage.job_folder("job-0123456789ab")
    assert folder == storage.job_folder("job-0123456789ab") == tmp_path / "jobs" / "job-0123456789ab"
    assert folder.is_dir()


def test_a_job_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    (tmp_path / "jobs" / "job-0123456789ab").touch()
    with pytest.raises(CannotRun, match="cannot be written"):
        storage.job_folder("job-0123456789ab")


def test_uploads_get_private_folders_of_their_own(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    first, second = storage.incoming_folder(), storage.incoming_folder()
    assert first != second
    assert first.stat().st_mode & 0o777 == 0o700


def test_work_that_would_not_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.check_space(1)
    disk = os.statvfs(tmp_path)
    with pytest.raises(CannotRun, match=r"needs about .* GB in .*GB is free there"):
        storage.check_space(disk.f_blocks * disk.f_frsize)
    assert RESERVE_BYTES > 0


def test_a_state_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotRun, match="choose another --state"):
        Storage(tmp_path / "file" / "state")
