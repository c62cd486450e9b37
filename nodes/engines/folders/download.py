"""The folder of a model on this machine, fetched from the hub when it is not here."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from farm.errors import CannotRun, FarmError, InvalidInput
from nodes.engines.folders.hub_files import HubFile, wanted_files
from nodes.engines.folders.layout import Layout, check_folder, missing_weights
from nodes.model_store import arriving, check_disk, hub_key, kept, kept_models

_COMMIT = re.compile(r"[0-9a-f]{40}")
#: What a file is called until it is whole.
_PART = ".part"

#: Told how far a fetch is: the bytes that are here, those there will be, and the file that comes. What it
#: raises ends the fetch; what has come is kept, and the next fetch goes on from there.
OnBytes = Callable[[int, int, str], None]


def model_folder(
    source: Path | str,
    revision: str | None,
    *,
    layout: Layout,
    half: bool = True,
    on_bytes: OnBytes | None = None,
) -> Path:
    """The local folder of a model, fetched first when ``source`` is a hub repository ("owner/name").

    Only the files it is loaded from are (``wanted_files``), each compared with the size and the hash that the
    hub tells, into the farm's own store; a fetch that was ended goes on where it was. huggingface_hub's
    settings hold: HF_ENDPOINT for a mirror, HF_TOKEN, HF_HUB_OFFLINE, HTTPS_PROXY; and what is whole in its
    cache is used from there.

    Raises:
        InvalidInput: no folder and no repository name, or a repository without a pinned revision.
        CannotRun: the repository cannot be reached and is not in the cache, the disk has no room for it, or
            files are missing or damaged.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _fetched(str(source), revision, layout, half, on_bytes or (lambda *_: None))
    check_folder(folder, layout)
    return folder


def cached_folder(repository: str, revision: str, *, layout: Layout) -> Path | None:
    """The local folder of a hub repository that is whole here already, in the farm's store or in
    huggingface_hub's cache; None: it would be fetched."""
    from huggingface_hub import try_to_load_from_cache

    ours = kept(hub_key(repository, revision))
    if ours is None and not _COMMIT.fullmatch(revision):  # what a branch was when it was last asked
        begins = hub_key(repository, "")
        of_it = [model for model in kept_models() if model.key.startswith(begins)]
        ours = max(of_it, key=lambda model: model.used_at).folder if of_it else None
    found = try_to_load_from_cache(repository, "model_index.json", revision=revision)
    theirs = Path(found).parent if isinstance(found, str) else None
    return next((each for each in (ours, theirs) if each is not None and _is_whole(each, layout)), None)


def _is_whole(folder: Path, layout: Layout) -> bool:
    return all((folder / name).is_file() for name in layout.data) and not missing_weights(folder, layout)


def _fetched(repository: str, revision: str | None, layout: Layout, half: bool, on_bytes: OnBytes) -> Path:
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise InvalidInput(
            f"model source is {repository!r}: expected a folder that exists or a hub repository 'owner/name'",
            param="source",
        )
    if not revision:
        raise InvalidInput(
            f"revision of {repository} is {revision!r}: expected the commit to pin, so that every worker "
            "renders with the same weights",
            param="revision",
        )
    if _COMMIT.fullmatch(revision) and (here := cached_folder(repository, revision, layout=layout)):
        return here
    try:
        commit, files = _listed(repository, revision)
        return cached_folder(repository, commit, layout=layout) or _download(
            repository, commit, wanted_files(files, layout, half=half), on_bytes
        )
    except FarmError:
        raise
    except Exception as error:  # the hub's, its HTTP client's, the operating system's
        if (here := cached_folder(repository, revision, layout=layout)) is not None:
            return here  # what main was when it was last asked
        raise CannotRun(_refused(repository, revision, error), param="source") from error


def _listed(repository: str, revision: str) -> tuple[str, list[HubFile]]:
    """The commit behind a revision, and its files."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    hub = HfApi()
    commit = revision if _COMMIT.fullmatch(revision) else hub.repo_info(repository, revision=revision).sha
    files = [
        HubFile(file.path, file.size, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in hub.list_repo_tree(repository, recursive=True, revision=commit)
        if isinstance(file, RepoFile)
    ]
    return str(commit), files


def _download(repository: str, commit: str, files: list[HubFile], on_bytes: OnBytes) -> Path:
    """Those of these files that are not in the store, one after the other; the folder of all."""
    if not files:
        raise CannotRun(f"{repository} at {commit} has no file that is wanted of it", param="source")
    total = sum(file.size_bytes for file in files)
    with arriving(hub_key(repository, commit), waits=lambda: on_bytes(0, total, "")) as arrival:
        missing = [file for file in files if arrival.whole(file.path) is None]
        parts = [arrival.part(file.path, _PART) for file in missing]
        come = sum(part.stat().st_size for part in parts if part.is_file())
        check_disk(sum(file.size_bytes for file in missing) - come, repository)
        done = total - sum(file.size_bytes for file in missing)
        for file, part in zip(missing, parts, strict=True):

            def told(bytes_here: int, before: int = done, name: str = file.path) -> None:
                on_bytes(before + bytes_here, total, name)

            _fetch_file(repository, commit, file, part, told)
            if _is_damaged(part, file):
                part.unlink()
                _fetch_file(repository, commit, file, part, told)
            if _is_damaged(part, file):
                part.unlink()
                raise CannotRun(
                    f"{file.path} of {repository} arrives with another hash than {commit[:12]} has: the "
                    "mirror, or what is in between, changes it; try another HF_ENDPOINT",
                    param="source",
                )
            arrival.finish(part, file.path)
            done += file.size_bytes
        on_bytes(total, total, "")
        return arrival.settle("hub")


def _fetch_file(repository: str, commit: str, file: HubFile, part: Path, told: Callable[[int], None]) -> None:
    """The bytes of a file that its part lacks; huggingface_hub's own download begins anew each time."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(repository, file.path, revision=commit)
    location = get_hf_file_metadata(url, retry_on_errors=True).location
    headers = build_hf_headers()
    if urlsplit(location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # the token is the hub's, not that of where it keeps large files
    with part.open("ab") as content:
        if content.tell() > file.size_bytes:
            content.truncate(0)
        http_get(
            location,
            content,
            resume_size=content.tell(),
            headers=headers,
            expected_size=file.size_bytes,
            tqdm_class=_bar(told),
        )


def _bar(told: Callable[[int], None]) -> Any:
    """A progress bar, as huggingface_hub wants one, that draws nothing and tells."""

    class Bar:
        def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
            self._bytes = initial
            told(initial)

        def update(self, n: float | None = 1) -> None:
            self._bytes += int(n or 0)
            told(self._bytes)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    return Bar


def _is_damaged(path: Path, file: HubFile) -> bool:
    """Whether a file that has come is not what the hub lists."""
    size = path.stat().st_size
    if size != file.size_bytes:
        return True
    with path.open("rb") as content:
        if file.sha256 is not None:
            return hashlib.file_digest(content, "sha256").hexdigest() != file.sha256
        if file.git_oid is None or not _COMMIT.fullmatch(file.git_oid):
            return False
        return hashlib.sha1(b"blob %d\0" % size + content.read()).hexdigest() != file.git_oid


def _refused(repository: str, revision: str, error: Exception) -> str:
    """What the hub's refusal means, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    whole = f"cannot download {repository} at {revision}"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if status in (401, 403):
        return (
            f"{whole}: {endpoint} wants to know who asks (HTTP {status}); accept its terms at "
            f"https://huggingface.co/{repository}, and set HF_TOKEN to a token that may read it"
        )
    if status == 404:
        return (
            f"{whole}: {endpoint} has no such repository or commit; check HF_ENDPOINT, or HF_TOKEN if it is "
            "private"
        )
    if status == 429:
        return (
            f"{whole}: {endpoint} is asked too often (HTTP 429); wait some minutes, or set HF_TOKEN, or a "
            "mirror in HF_ENDPOINT"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"{whole} ({reason}): check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local folder; "
        "what has come is kept"
    )
