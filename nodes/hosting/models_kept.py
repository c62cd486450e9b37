"""Models that come to this machine because somebody says so, and go: from the hub, a folder, a file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from farm.errors import CannotRun, InvalidInput, NotFound
from nodes.engines import ADDED, family_of, fetch, known_models, store_key
from nodes.engines.folders import OnBytes, data_files, weights_folder
from nodes.hosting.licences import check_licences
from nodes.model_store import arriving, check_disk, forget, is_key, kept

_WEIGHTS = frozenset({".safetensors", ".gguf"})
_PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})


def fetch_model(name: str, state: Path, on_bytes: OnBytes) -> Path:
    """Have a model of the hub on this machine; its folder. What an ended fetch has brought is kept.

    Raises:
        NotFound: there is no such model.
        LicenceNotAccepted: its licence restricts its use, and was not accepted in this state folder.
        CannotRun: the hub or the disk refuse.
    """
    check_licences({"model": name}, state)
    return fetch(name, on_bytes)


def add_model(path: Path) -> tuple[str, Path]:
    """Take a model folder, or a file of weights, into what this machine keeps for its farm, by its own name.

    Files are linked where they are on the same disk, and copied elsewhere. Returns name and place.

    Raises:
        InvalidInput: it is neither, is a pickle, or another one has its name.
        CannotRun: the disk has no room for it.
    """
    if path.is_dir():
        return _add_folder(path.resolve())
    if not path.is_file():
        raise InvalidInput(f"{path} is no folder and no file", param="model")
    if path.suffix in _PICKLES:
        raise InvalidInput(
            f"{path} is a pickle, a program that is never opened here: convert it to safetensors",
            param="model",
        )
    if path.suffix not in _WEIGHTS:
        raise InvalidInput(
            f"{path} is no file of weights: those end in {' or '.join(sorted(_WEIGHTS))}", param="model"
        )
    target = weights_folder() / path.name
    if target.exists() and not target.samefile(path):
        raise InvalidInput(
            f"{target} is there already: `farm models remove {path.name}` first, or rename yours",
            param="model",
        )
    if not target.exists():
        _take(path, target)
    return path.name, target


def remove_model(name: str) -> None:
    """Remove what this machine keeps of a model, or a file of weights by its name.

    Raises:
        NotFound: nothing of it is kept.
        CannotRun: it is not the farm's to remove.
    """
    key = store_key(name) or name
    if is_key(key) and forget(key):
        return
    weights = weights_folder() / name
    if is_key(name) and weights.is_file():
        weights.unlink()
        return
    entry = next((m for m in known_models() if name in (m["model"], m["repository"])), None)
    if entry is not None and entry["repository"] is None:
        raise CannotRun(f"{name} comes with the farm and stays", param="model")
    if entry is not None and entry["here"]:
        raise CannotRun(
            f"{name} lies in huggingface_hub's cache, which other programs use too: `hf cache rm "
            f"model/{entry['repository']}` removes it there",
            param="model",
        )
    raise NotFound(f"nothing of {name} is kept on this machine; `farm models` lists what is", param="model")


def _add_folder(folder: Path) -> tuple[str, Path]:
    name = folder.name
    if not is_key(name) or any(m["model"] == name and m["source"] != ADDED for m in known_models()):
        raise InvalidInput(
            f"{name} cannot be the name of a model that is added, or is that of another: rename the folder",
            param="model",
        )
    family_of(folder)
    files = data_files(folder)
    with arriving(name) as arrival:
        if kept(name) is not None:
            raise InvalidInput(f"{name} is kept already: `farm models remove {name}` first", param="model")
        if not _same_disk(folder, arrival.part("x", ".part").parent):
            check_disk(sum((folder / file).stat().st_size for file in files), name)
        for path in files:
            part = arrival.part(path, ".part")
            part.unlink(missing_ok=True)
            _take(folder / path, part)
            arrival.finish(part, path)
        return name, arrival.settle("added")


def _same_disk(*paths: Path) -> bool:
    return len({path.stat().st_dev for path in paths}) == 1


def _take(file: Path, target: Path) -> None:
    """A link to the same bytes, or a copy where that cannot be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = file.resolve()
    try:
        os.link(source, target)
    except OSError:
        temporary = target.with_name(f".{target.name}.copying")
        shutil.copyfile(source, temporary)
        temporary.replace(target)
