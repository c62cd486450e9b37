"""LTX-Video's line of the table."""

from __future__ import annotations

from pathlib import Path

from farm.capabilities import EngineSpec, Weights, Worker
from nodes.engines.engine import Attentions, Engine
from nodes.engines.family import Family
from nodes.engines.folders import sources_of
from nodes.engines.ltx.layout import PARTS, PIPELINES, claims
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


FAMILY = Family(
    name="ltx",
    takes=TAKES,
    read_spec=_read_spec,
    create=_create,
    claims=claims,
    pipelines=PIPELINES,
    takes_weights=True,
)
