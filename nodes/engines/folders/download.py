"""The folder of a model on this machine, fetched from the hub when it is not here."""

from __future__ import annotations

from pathlib import Path

from farm.errors import CannotRun, InvalidInput
from nodes.engines.folders.layout import Layout, check_folder, missing_weights

_SMALL_FILES = ["*.json", "*.txt", "*/spiece.model"]


def model_folder(source: Path | str, revision: str | None, *, layout: Layout, half: bool = True) -> Path:
    """The local folder of a model, downloaded first when ``source`` is a hub repository ("owner/name").

    Of weights that exist in both precisions, only the half ones are downloaded, or with ``half`` False only
    the full ones. Downloads go through huggingface_hub into its cache, so its settings hold: HF_HUB_OFFLINE,
    HF_ENDPOINT for a mirror, HF_HOME for the place.

    Raises:
        InvalidInput: no folder and no repository name, or a repository without a pinned revision.
        CannotRun: the repository cannot be reached and is not in the cache, or files are missing.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _downloaded(str(source), revision, layout, half=half)
    check_folder(folder, layout)
    return folder


def cached_folder(repository: str, revision: str, *, layout: Layout) -> Path | None:
    """The local folder of a hub repository that is whole in the cache already; None: it would be fetched."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "model_index.json", revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return None if missing_weights(folder, layout) else folder


def _downloaded(repository: str, revision: str | None, layout: Layout, *, half: bool) -> Path:
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
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    half_files, all_files = "*.fp16.safetensors", "*.safetensors"
    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=[*_SMALL_FILES, *layout.data, half_files if half else all_files],
                ignore_patterns=None if half else [half_files],
            )
        )
        if missing_weights(folder, layout):
            wanted = [f"{component}/{all_files}" for component in layout.weights]
            snapshot_download(repository, revision=revision, allow_patterns=wanted)
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CannotRun(
            f"cannot download {repository} at {revision} ({reason}): check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE, or give a local folder",
            param="source",
        ) from error
