"""An input crosses to a machine once, is checked when it arrives, and old ones make room."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from nodes.work import blob_cache
from nodes.work.blob_cache import BlobCache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobCache:
    """A cache of a node whose own temporary folder is ``tmp_path``."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return BlobCache()


def blob(level: int, size: int = 100) -> tuple[str, bytes]:
    content = bytes([level]) * size
    return hashlib.sha256(content).hexdigest(), content


def never() -> bytes:
    raise AssertionError("fetched again")


def test_content_is_fetched_once_and_then_read_from_disk(cache: BlobCache) -> None:
    sha256, content = blob(1)
    path = cache.fetch(sha256, lambda: content)
    assert path.read_bytes() == content
    assert cache.fetch(sha256, never) == path


def test_damaged_content_is_refused_and_not_kept(cache: BlobCache) -> None:
    sha256, content = blob(1)
    with pytest.raises(ValueError, match=f"arrived damaged: its SHA-256 is not {sha256}"):
        cache.fetch(sha256, lambda: content + b"1")
    assert cache.fetch(sha256, lambda: content).read_bytes() == content


def test_content_that_was_damaged_here_is_fetched_again(cache: BlobCache) -> None:
    sha256, content = blob(1)
    path = cache.fetch(sha256, lambda: content)
    path.write_bytes(b"other bytes")
    assert cache.fetch(sha256, lambda: content).read_bytes() == content


def test_the_oldest_files_make_room(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_cache, "MAX_CACHE_BYTES", 250)
    paths: list[Path] = []
    for level in range(3):
        sha256, content = blob(level)
        paths.append(cache.fetch(sha256, lambda content=content: content))  # type: ignore[misc]
        os.utime(paths[-1], (level, level))
    assert [path.exists() for path in paths] == [False, True, True]


def test_what_was_used_lately_stays(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_cache, "MAX_CACHE_BYTES", 250)
    fetched: list[Path] = []
    for level in range(2):
        sha256, content = blob(level)
        fetched.append(cache.fetch(sha256, lambda content=content: content))  # type: ignore[misc]
        os.utime(fetched[-1], (level, level))
    cache.fetch(blob(0)[0], never)
    cache.fetch(blob(2)[0], lambda: blob(2)[1])
    assert [path.exists() for path in fetched] == [True, False]


def test_content_larger_than_the_cache_still_arrives(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_cache, "MAX_CACHE_BYTES", 10)
    sha256, content = blob(1)
    assert cache.fetch(sha256, lambda: content).read_bytes() == content


def test_a_cache_lies_in_the_nodes_temporary_folder_from_its_first_input_on(
    cache: BlobCache, tmp_path: Path
) -> None:
    assert list(tmp_path.iterdir()) == []
    sha256, content = blob(1)
    assert cache.fetch(sha256, lambda: content).parent.parent == tmp_path


def test_two_workers_of_one_machine_do_not_share_files(cache: BlobCache) -> None:
    sha256, content = blob(1)
    assert cache.fetch(sha256, lambda: content) != BlobCache().fetch(sha256, lambda: content)
