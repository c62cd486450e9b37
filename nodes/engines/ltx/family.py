"""LTX-Video's line of the table."""

from __future__ import annotations

from pathlib import Path

from farm.capabilities import EngineSpec, Licence, Weights, Worker
from nodes.engines.engine import Attentions, Engine
from nodes.engines.family import Family, HubModel
from nodes.engines.folders import Layout, sources_of
from nodes.engines.ltx.layout import PARTS, PIPELINES, WEIGHTS, claims
from nodes.engines.ltx.spec import TAKES, ltx_spec
from nodes.engines.machine_choices import is_compiling


def _read_spec(folder: Path, model: str, revision: str | None, weights: Weights) -> EngineSpec:
    return ltx_spec(folder, model=model, revision=revision, weights=weights)


def _create(
    spec: EngineSpec, folder: Path, worker: Worker, *, cpu_threads: int, attention: Attentions
) -> Engine:
    from nodes.engines.ltx.engine import LTXVideo  # imports torch and diffusers

    return LTXVideo(
        spec,
        folder,
        device=worker.kind,
        attention=attention,
        compiled=is_compiling(worker.kind),
        cpu_threads=cpu_threads,
        weights=sources_of(spec.weights, PARTS.denoisers, spec.model),
    )


def _hub(repository: str, revision: str | None, licence: str) -> HubModel:
    # The other files are checked when they are read.
    files = Layout(family="LTX-Video", weights=WEIGHTS, data=("model_index.json",))
    terms = Licence(name=licence, url=f"https://huggingface.co/{repository}", restricts_use=True)
    return HubModel(repository, revision, files, terms, PARTS.denoisers)


FAMILY = Family(
    name="ltx",
    takes=TAKES,
    read_spec=_read_spec,
    create=_create,
    claims=claims,
    pipelines=PIPELINES,
    takes_weights=True,
    models={
        "ltx-video-0.9.8-13b-distilled": _hub(
            "Lightricks/LTX-Video-0.9.8-13B-distilled",
            "7c64400e1861cc0d7b98d570a1926d5408ec60cd",
            "LTX Video Open Weights License",
        ),
        # The base of 2B transformers in one file, such as the distilled one of 0.9.8.
        "ltx-video-0.9.5": _hub("Lightricks/LTX-Video-0.9.5", None, "license of LTX-Video 2B 0.9.5 (RAIL-M)"),
    },
)
