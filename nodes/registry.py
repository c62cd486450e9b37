"""Which model is run by which engine. Specs are read without importing torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from farm.capabilities import Worker
from farm.engine_spec import EngineSpec
from farm.errors import InvalidInput, NotFound
from nodes.engine import Attentions, Engine
from nodes.engines import instant, procedural
from nodes.engines.i2vgen_xl_folder import model_folder
from nodes.engines.i2vgen_xl_spec import i2vgen_xl_spec
from nodes.vram import cap_process, use_expandable_segments

#: Set on a machine before it joins: ``sdpa`` (PyTorch's own, the default) or ``xformers``.
ATTENTION_VARIABLE = "REELFARM_ATTENTION"
#: Hub repositories that may be loaded, by the name users give, with the commit that is loaded.
HUB_MODELS = {"i2vgen-xl": ("ali-vilab/i2vgen-xl", "39e1979ea27be737b0278c06755e321f2b4360d5")}
#: Model folders that come with the farm, the same on every machine, by the name users give.
OWN_MODELS = {"tiny_i2v": Path(__file__).parents[1] / "models" / "tiny_i2v"}


def model_names() -> list[str]:
    """The models that can be asked for by name; a local model folder is asked for by its path."""
    return [*procedural.LEVELS, *OWN_MODELS, *HUB_MODELS]


@lru_cache(maxsize=64)
def spec_of(model: str) -> EngineSpec:
    """The spec of a model. A hub model's files are fetched when they are not here.

    Raises:
        NotFound: no such name, and no such folder.
        InvalidInput, CannotRun: the folder is no model of a family known here, or is not whole.
    """
    if model in procedural.LEVELS:
        return procedural.spec(model)
    if model == instant.MODEL:
        return instant.spec(model)
    folder, revision = _located(model)
    return i2vgen_xl_spec(folder, model=model, revision=revision)


def named_spec_of(model: str) -> EngineSpec:
    """``spec_of`` for a farm that others can reach: models by name alone, no path on its disk."""
    if model not in model_names():
        raise NotFound(f"model {model} is none of {', '.join(model_names())}", param="model")
    return spec_of(model)


def create_engine(model: str, worker: Worker, *, cpu_threads: int = 1) -> Engine:
    """The engine of a model for a worker's device, not loaded yet. ``cpu_threads``: cores it may use."""
    if model in procedural.LEVELS:
        return procedural.Procedural(model)
    if model == instant.MODEL:
        return instant.Instant()
    if worker.kind == "cuda":
        use_expandable_segments()
    from nodes.engines.i2vgen_xl import I2VGenXL  # imports torch and diffusers

    folder, _ = _located(model)
    spec = spec_of(model).on(worker.kind)
    if worker.kind == "cuda":
        cap_process(worker.vram_bytes, context_bytes=spec.context_bytes)
    return I2VGenXL(spec, source=folder, device=worker.kind, attention=_attention(), cpu_threads=cpu_threads)


def _attention() -> Attentions:
    """This machine's attention back-end: PyTorch's own, unless its owner asks for xformers.

    Raises:
        InvalidInput: it is asked for one that is not known.
    """
    chosen = os.environ.get(ATTENTION_VARIABLE, "sdpa")
    known: tuple[Attentions, ...] = get_args(Attentions)
    for attention in known:
        if chosen == attention:
            return attention
    raise InvalidInput(f"{ATTENTION_VARIABLE} is {chosen!r}, expected sdpa or xformers")


def _located(model: str) -> tuple[Path, str | None]:
    """The folder of a model by name or by path, and the pinned commit of one from the hub."""
    if model in OWN_MODELS:
        return model_folder(OWN_MODELS[model], None), None
    if model in HUB_MODELS:
        repository, revision = HUB_MODELS[model]
        return model_folder(repository, revision), revision
    if not model or not os.path.isdir(model):  # Path("") would be the current folder
        raise NotFound(
            f"model {model!r} is none of {', '.join(model_names())} and no folder; `farm models` lists them",
            param="model",
        )
    _check_family(Path(model))
    return model_folder(model, None), None


def _check_family(folder: Path) -> None:
    try:
        family = json.loads((folder / "model_index.json").read_text())["_class_name"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidInput(
            f"{folder} has no readable model_index.json; give a model folder in diffusers format",
            param="model",
        ) from error
    if not isinstance(family, str) or family not in _FAMILIES:
        raise InvalidInput(
            f"{folder} is a {family}; there are engines here for {', '.join(_FAMILIES)}", param="model"
        )


_FAMILIES: dict[str, Callable[..., EngineSpec]] = {"I2VGenXLPipeline": i2vgen_xl_spec}


def known_models() -> list[dict[str, Any]]:
    """The models by name, with what they take and where they come from."""
    drawn = [
        {"model": name, "engine": "procedural", "takes": sorted(spec_of(name).takes), "source": "built in"}
        for name in procedural.LEVELS
    ]
    sources = dict.fromkeys(OWN_MODELS, "built in")
    sources |= {name: f"{repo} at {revision[:12]}" for name, (repo, revision) in HUB_MODELS.items()}
    diffused = [
        {"model": name, "engine": "i2vgen_xl", "takes": ["image", "text", "video"], "source": source}
        for name, source in sources.items()
    ]
    return [*drawn, *diffused]
