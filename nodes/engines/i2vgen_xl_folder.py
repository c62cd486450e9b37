"""The files of an I2VGen-XL model folder: where they are, whether all are there, how large the tensors are.

Needs neither torch nor diffusers. Only safetensors weights are ever read: no pickles, no remote code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from farm.errors import CannotRun, InvalidInput

#: Components with weights, and the stem of their weight files.
WEIGHT_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "image_encoder": "model",
}
_DATA_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "feature_extractor/preprocessor_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    *(f"{component}/config.json" for component in WEIGHT_STEMS),
)
_SMALL_FILES = ["*.json", "*.txt"]
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.safetensors")


def model_folder(source: Path | str, revision: str | None, *, half: bool = True) -> Path:
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
        folder = _downloaded(str(source), revision, half=half)
    check_folder(folder)
    return folder


def _downloaded(repository: str, revision: str | None, *, half: bool) -> Path:
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
                allow_patterns=[*_SMALL_FILES, half_files if half else all_files],
                ignore_patterns=None if half else [half_files],
            )
        )
        if _missing_weights(folder):
            snapshot_download(repository, revision=revision, allow_patterns=[all_files])
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CannotRun(
            f"cannot download {repository} at {revision} ({reason}): check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE, or give a local folder",
            param="source",
        ) from error


def check_folder(folder: Path) -> None:
    """Raise CannotRun naming every file of the model that ``folder`` lacks."""
    missing = [name for name in _DATA_FILES if not (folder / name).is_file()] + _missing_weights(folder)
    if missing:
        raise CannotRun(
            f"{folder} is not a complete I2VGen-XL folder, it lacks {', '.join(missing)}: download the model "
            "again in diffusers format with safetensors weights",
            param="source",
        )


def _missing_weights(folder: Path) -> list[str]:
    missing = []
    for component, stem in WEIGHT_STEMS.items():
        names = {path.name for path in (folder / component).glob(f"{stem}*.safetensors")}
        wanted = {name for each in names for name in _series(each)} or {f"{stem}.safetensors"}
        missing += [f"{component}/{name}" for name in sorted(wanted - names)]
    return missing


def _series(name: str) -> list[str]:
    """Every file of the series that a weight file belongs to: large components are saved in several."""
    found = _SHARD.fullmatch(name)
    if found is None:
        return [name]
    count = int(found["count"])
    return [f"{found['stem']}-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """One JSON file of the folder.

    Raises:
        CannotRun: the file is not a JSON object.
    """
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CannotRun(f"{folder / name} is not JSON ({error}): download the model again") from error
    if not isinstance(value, dict):
        raise CannotRun(f"{folder / name} holds {type(value).__name__}, expected an object")
    return value


def variant(folder: Path, component: str, *, half: bool) -> str | None:
    """Which weight files to read: "fp16" or None for the plain ones.

    Half precision prefers the smaller fp16 files; each is used when it is the only one.
    """
    stem = WEIGHT_STEMS[component]
    names = {path.name for path in (folder / component).glob(f"{stem}*.safetensors")}
    has_fp16 = any(f"{stem}.fp16" in name for name in names)
    has_plain = any(f"{stem}.fp16" not in name for name in names)
    return "fp16" if has_fp16 and (half or not has_plain) else None


def tensor_sizes(folder: Path, component: str) -> list[int]:
    """Elements of every tensor of a component, from the headers of its safetensors files alone.

    A file starts with eight bytes, little-endian: the length of the JSON header that follows
    (https://huggingface.co/docs/safetensors).

    Raises:
        CannotRun: a file is truncated or no safetensors file.
    """
    stem = WEIGHT_STEMS[component]
    fp16 = variant(folder, component, half=False) == "fp16"
    paths = [
        path
        for path in sorted((folder / component).glob(f"{stem}*.safetensors"))
        if (f"{stem}.fp16" in path.name) == fp16
    ]
    return [math.prod(entry["shape"]) for path in paths for entry in _header(path)]


def _header(path: Path) -> Iterator[dict[str, Any]]:
    limit = 100 * 2**20  # the format's own limit
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if 0 < length <= limit else b""
    try:
        header = json.loads(text)
        end = max((e["data_offsets"][1] for name, e in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CannotRun(f"{path} is not a safetensors file: download the model again") from error
    if path.stat().st_size != 8 + length + end:
        raise CannotRun(
            f"{path} has {path.stat().st_size} bytes, expected {8 + length + end}: the download was cut short"
        )
    yield from (entry for name, entry in header.items() if name != "__metadata__")
