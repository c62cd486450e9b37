"""Models of the table as files: fetched, kept, told to the farm, and handed to its other machines."""

from __future__ import annotations

import os
from pathlib import Path

from farm.capabilities import OWN_WEIGHTS, ModelHeld, Weights
from nodes.engines.family import HubModel
from nodes.engines.folders import (
    OnBytes,
    data_files,
    found_here,
    is_weights_key,
    listed_in,
    wanted_files,
    weights_key,
)
from nodes.engines.table import COMMIT, model_named, models_listed, size_on_disk, unknown_model
from nodes.model_store import hub_key, kept, kept_models


def fetch(model: str, on_bytes: OnBytes) -> Path:
    """The folder of a model by its name; its files are fetched from the hub when they are not here.

    Raises:
        NotFound: there is no such model.
        CannotRun: as ``model_folder``.
    """
    named = model_named(model)
    if named is None:
        raise unknown_model(model)
    home = named[2]
    return home.folder(on_bytes=on_bytes) if isinstance(home, HubModel) else home


def store_key(model: str) -> str | None:
    """What a model of the hub is kept as by this machine (see ``nodes.model_store``).

    None: it is none, or has no known commit and was not fetched yet.
    """
    named = model_named(model)
    if named is None or not isinstance(named[2], HubModel):
        return None
    repository, revision = named[2].repository, named[2].revision
    if revision is not None:
        return hub_key(repository, revision)
    of_it = [each.key for each in kept_models() if each.key.startswith(hub_key(repository, ""))]
    return of_it[-1] if of_it else None


def is_here(model: str, weights: Weights = OWN_WEIGHTS) -> bool:
    """Whether a model's files are on this disk, but for what ``weights`` take the place of."""
    named = model_named(model)
    if named is None or not isinstance(named[2], HubModel):
        return named is not None or kept(model) is not None or os.path.exists(model)
    return named[2].is_here(weights)


def files_of(model: str, weights: Weights = OWN_WEIGHTS) -> list[tuple[str, Path, tuple[str, ...]]]:
    """What other machines need of a model that is here, and of its weights: what each is kept by, its folder,
    and files of that. The model is missing where they have it as this one has: it came with the farm, or is
    asked for by its path.
    """
    named = model_named(model)
    added = kept(model) if named is None else None
    found = []
    if added is not None:
        found.append((model, added, tuple(sorted(data_files(added)))))
    elif named is not None and isinstance(named[2], HubModel):
        home = named[2]
        folder = home.folder(weights)
        wanted = wanted_files(listed_in(folder), home.layout_of(weights))
        commit = home.revision or folder.name.rpartition("@")[2]
        key = hub_key(home.repository, commit)
        found.append((key, folder, tuple(file.path for file in wanted)))
    here = found_here(weights)
    for file in (*here.files, *here.loras):
        found.append((weights_key(file.fingerprint), file.path.parent, (file.path.name,)))
    return found


def held_models() -> list[ModelHeld]:
    """The models that are whole on this disk, by the names that they are asked for by. Those that come with
    the farm take nothing of it."""
    held = []
    for _, name, home in models_listed():
        if not isinstance(home, HubModel):
            held.append(ModelHeld(model=name, size_bytes=0))
        elif folder := home.cached():
            commit = "" if home.revision else f"@{folder.name.rpartition('@')[2]}"
            held.append(ModelHeld(model=f"{name}{commit}", size_bytes=size_on_disk(folder)))
    for model in kept_models():
        repository, at, commit = model.key.replace("--", "/", 1).partition("@")
        named = model_named(f"{repository}@{commit}") if at and COMMIT.fullmatch(commit) else None
        if is_weights_key(model.key):
            continue
        if not at:
            held.append(ModelHeld(model=model.key, size_bytes=model.size_bytes))
        elif named is not None and isinstance(named[2], HubModel) and named[2].cached():
            held.append(ModelHeld(model=named[0], size_bytes=model.size_bytes))
    return held
