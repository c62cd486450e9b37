"""Which model is run by which engine: one table, a line for each family. Specs are read without torch."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from farm.capabilities import OWN_WEIGHTS, EngineSpec, Licence, Weights, Worker, check_weights
from farm.errors import InvalidInput, NotFound
from nodes.engines.animatediff import FAMILY as ANIMATEDIFF
from nodes.engines.engine import Engine
from nodes.engines.family import APACHE, Family, HubModel
from nodes.engines.folders import (
    FOLDER_VARIABLE,
    found_here,
    write_hollow,
)
from nodes.engines.i2vgen_xl import FAMILY as I2VGEN_XL
from nodes.engines.instant import FAMILY as INSTANT
from nodes.engines.lean_imports import leanly
from nodes.engines.ltx import FAMILY as LTX
from nodes.engines.machine_choices import chosen_attention
from nodes.engines.memory import cap_process, use_expandable_segments
from nodes.engines.procedural import FAMILY as PROCEDURAL
from nodes.engines.svd import FAMILY as SVD
from nodes.engines.wan import FAMILY as WAN
from nodes.model_store import kept, kept_models, mark_used, models_folder

log = logging.getLogger(__name__)

#: The table.
FAMILIES: tuple[Family, ...] = (
    PROCEDURAL,
    INSTANT,
    I2VGEN_XL,
    ANIMATEDIFF,
    LTX,
    SVD,
    WAN,
)
_SHAPES = Path(__file__).parents[2] / "models" / "shapes"
COMMIT = re.compile(r"[0-9a-f]{40}")
#: Where a model comes from that the owner of this machine has added to its store, and its licence.
ADDED = "added here"
_OWNERS = Licence(name="known to who added it", url="")


#: Models that came with the farm once, as journals and scripts still name them, and what took their place.
FORMER_MODELS = {"tiny_i2v": "tiny_wan"}


def model_names() -> list[str]:
    """The models that can be asked for by name; a local model folder is asked for by its path."""
    return [name for _, name, _ in models_listed()] + [name for _, name, _ in _added()]


def known_models() -> list[dict[str, Any]]:
    """The models by name: what they take, where they come from, and whether their files are on this disk."""
    return [
        {
            "model": name,
            "engine": family.name,
            "takes": sorted(shape.takes if (shape := shape_of(name)) else family.takes),
            "source": str(home) if isinstance(home, HubModel) else "built in",
            "repository": home.repository if isinstance(home, HubModel) else None,
            "here": home.is_here() if isinstance(home, HubModel) else True,
            "licence": (home.licence if isinstance(home, HubModel) else APACHE).model_dump(),
        }
        for family, name, home in models_listed()
    ] + [
        {
            "model": name,
            "engine": family.name,
            "takes": sorted(family.takes),
            "source": ADDED,
            "repository": None,
            "here": True,
            "licence": _OWNERS.model_dump(),
        }
        for family, name, _ in _added()
    ]


def models_listed() -> Iterator[tuple[Family, str, Path | HubModel]]:
    """Family, name and home of every model that is listed."""
    for family in FAMILIES:
        for name, home in family.models.items() if family.listed else ():
            yield family, name, home


def _added() -> Iterator[tuple[Family, str, Path]]:
    """Family, name and folder of the models that the owner of this machine has added to its store."""
    for model in kept_models():
        if model.origin == "added" and (claimants := _claimants(model.folder)):
            yield claimants[0], model.key, model.folder


def family_of(folder: Path) -> str:
    """The family that a folder is of.

    Raises:
        InvalidInput: of none that is known here, or of two.
    """
    return _claimed(str(folder), folder).name


def spec_of(model: str, weights: Weights = OWN_WEIGHTS) -> EngineSpec:
    """The spec of a model with these weights. A hub model's files are fetched when they are not here.

    Raises:
        NotFound: no such name, and no such folder.
        InvalidInput, CannotRun: the folder is no model of a family known here, or of two, or is not whole; or
            a weight file is not here, is not the one that is meant, or does not fit the model.
    """
    check_weights(weights)
    return _spec_of(model, found_here(weights))


@lru_cache(maxsize=64)
def _spec_of(model: str, weights: Weights) -> EngineSpec:
    name, family, folder, revision = _located(model, weights)
    if weights != OWN_WEIGHTS and not family.takes_weights:
        raise InvalidInput(
            f"{model} runs with its own weights alone; leave out weights, loras and weight_format",
            param="weights",
        )
    spec = family.read_spec(folder, name, revision, weights)
    # What is drawn has no files but the farm's own.
    return _on_disk(spec, size_on_disk(folder)) if spec.component_bytes else spec


def _on_disk(spec: EngineSpec, disk_bytes: int) -> EngineSpec:
    """A spec that says what its files take, in every form of it."""
    update = {
        "disk_bytes": disk_bytes,
        "on_cpu": spec.on_cpu and _on_disk(spec.on_cpu, disk_bytes),
        "in_fewer_bits": tuple(_on_disk(each, disk_bytes) for each in spec.in_fewer_bits),
    }
    return spec.model_copy(update=update)


@lru_cache(maxsize=64)
def shape_of(model: str) -> EngineSpec | None:
    """The spec of a hub model by its name, from what is known of it without its files: its published configs
    and the shapes of its tensors. None where they are not; ``disk_bytes`` are of its weights in 16 bits.
    """
    named = model_named(model)
    if named is None:
        return None
    name, family, home = named
    shapes = _SHAPES / f"{name}.json"
    if not isinstance(home, HubModel) or not shapes.is_file():
        return None
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / name  # what some models are is told by it
        disk_bytes = write_hollow(shapes, folder)
        spec = family.read_spec(folder, name, home.revision, OWN_WEIGHTS)
    return spec.model_copy(update={"disk_bytes": disk_bytes})


def size_on_disk(path: Path) -> int:
    """Of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def named_spec_of(model: str, weights: Weights = OWN_WEIGHTS) -> EngineSpec:
    """``spec_of`` for a farm that others can reach: models and weights by name alone, no path on its disk."""
    named = model_named(model)
    added = named is None and kept(model) is not None
    if not added and (named is None or not named[1].listed):
        by_name = "; others can reach this farm, and `farm models add FOLDER` gives a folder a name"
        raise unknown_model(model, by_name if "/" in model else "")
    for param, files in (("weights", weights.files), ("loras", weights.loras)):
        for file in files:
            if file.path.is_absolute():
                raise InvalidInput(
                    f"{param}: {file} is a path, and others can reach this farm: put the file into the "
                    f"weights folder of its machine (`farm models add FILE` there, ${FOLDER_VARIABLE}), and "
                    f"give its name, {file.path.name}",
                    param=param,
                )
    return spec_of(model, weights)


def create_engine(
    model: str, worker: Worker, weights: Weights = OWN_WEIGHTS, *, cpu_threads: int = 1
) -> Engine:
    """The engine of a model for a worker's device, not loaded yet.

    Args:
        model: By name or by path.
        weights: What it runs from, as the plan has them.
        cpu_threads: Cores it may use.

    Raises:
        NotFound, InvalidInput, CannotRun: as ``spec_of``.
    """
    _, family, folder, _ = _located(model, found_here(weights))
    spec = spec_of(model, weights).on(worker.kind)
    if family.uses_torch and worker.kind == "cuda":
        use_expandable_segments()  # before torch is imported
        cap_process(worker.vram_bytes, context_bytes=spec.context_bytes)
    attention = chosen_attention() if family.uses_torch else "sdpa"
    with leanly() if family.uses_torch else nullcontext():
        return family.create(spec, folder, worker, cpu_threads=cpu_threads, attention=attention)


def import_engines() -> None:
    """Import what engines on PyTorch need, so that no order waits for it: seconds, and no card is opened.

    One that cannot be imported is left to the order that wants it, which then says why.
    """
    use_expandable_segments()  # before torch is imported
    with leanly():
        for family in FAMILIES:
            if family.uses_torch:
                try:
                    import_module(f"{__package__}.{family.name}.engine")
                except Exception as error:  # whatever a library does as it is imported
                    log.warning("the engine %s cannot be imported: %s", family.name, error)


def licence_of(model: str) -> Licence | None:
    """The licence of a hub model by its name; None of what is here already.

    Raises:
        InvalidInput: the commit behind its name is none.
    """
    found = model_named(model)
    return found[2].licence if found and isinstance(found[2], HubModel) else None


def model_named(model: str) -> tuple[str, Family, Path | HubModel] | None:
    """The model of a name, of a hub repository, or of one with ``@COMMIT`` behind it: the farm's name for it,
    its family and its home.

    Raises:
        InvalidInput: the commit is none.
    """
    asked, at, commit = model.partition("@")
    for family in FAMILIES:
        for name, home in family.models.items():
            if not isinstance(home, HubModel):
                if name == model:
                    return name, family, home
            elif asked in (name, home.repository):
                if at and not COMMIT.fullmatch(commit):
                    raise InvalidInput(
                        f"model is {model!r}, expected {name}@COMMIT with the 40 hex digits of a commit of "
                        f"https://huggingface.co/{home.repository}",
                        param="model",
                    )
                return model.replace(asked, name), family, replace(home, revision=commit) if at else home
    return None


def _located(model: str, weights: Weights) -> tuple[str, Family, Path, str | None]:
    """Of a model by name or by path: what the farm calls it, its family, its folder, and the commit of one
    from the hub.

    What is taken from the hub as its ``main`` is now is called by its commit: all workers of a job load that.
    """
    named = model_named(model)
    if named is not None:
        name, family, home = named
        if not isinstance(home, HubModel):
            return name, family, home, None
        folder = home.folder(weights)
        # Both folders of models from the hub are named after their commit: COMMIT, and owner--name@COMMIT.
        if folder.parent == models_folder():
            mark_used(folder.name)
        revision = home.revision or folder.name.rpartition("@")[2]
        return name if home.revision else f"{name}@{revision}", family, folder, revision
    added = kept(model)
    if added is not None:
        mark_used(model)
        return model, _claimed(model, added), added, None
    exists = bool(model) and os.path.exists(model)  # Path("") would be the current folder
    if not exists or not (os.path.isdir(model) or _claimants(Path(model))):
        raise unknown_model(model, " and no folder; `farm models` lists them")
    return model, _claimed(model, Path(model)), Path(model), None


def _claimants(path: Path) -> list[Family]:
    return [family for family in FAMILIES if family.claims(path)]


def _claimed(model: str, path: Path) -> Family:
    """The one family that claims a folder or file."""
    claimants = _claimants(path)
    if len(claimants) > 1:
        names = " and ".join(family.name for family in claimants)
        raise InvalidInput(
            f"{model} is claimed by {names}: their claims have to tell it apart", param="model"
        )
    if not claimants:
        raise _claimed_by_none(path)
    return claimants[0]


def unknown_model(model: str, or_folder: str = "") -> NotFound:
    if model in FORMER_MODELS:
        return NotFound(
            f"model {model} came with the farm until {FORMER_MODELS[model]} took its place: use that one",
            param="model",
        )
    return NotFound(f"model {model!r} is none of {', '.join(model_names())}{or_folder}", param="model")


def _claimed_by_none(folder: Path) -> InvalidInput:
    try:
        pipeline = json.loads((folder / "model_index.json").read_text())["_class_name"]
    except (OSError, ValueError, TypeError, KeyError):
        return InvalidInput(
            f"{folder} has no readable model_index.json; give a model folder in diffusers format",
            param="model",
        )
    known = ", ".join(name for family in FAMILIES for name in family.pipelines)
    return InvalidInput(f"{folder} is a {pipeline}; there are engines here for {known}", param="model")
