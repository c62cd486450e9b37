"""Wan's line of the table."""

from __future__ import annotations

from pathlib import Path

from farm.capabilities import EngineSpec, Weights, Worker
from nodes.engines.engine import Attentions, Engine
from nodes.engines.family import Family
from nodes.engines.folders import sources_of
from nodes.engines.machine_choices import is_compiling
from nodes.engines.wan.kinds import TAKES
from nodes.engines.wan.layout import PIPELINES, claims, read_folder
from nodes.engines.wan.spec import wan_spec


def _read_spec(folder: Path, model: str, revision: str | None, weights: Weights) -> EngineSpec:
    return wan_spec(folder, model=model, revision=revision, weights=weights)


def _create(
    spec: EngineSpec, folder: Path, worker: Worker, *, cpu_threads: int, attention: Attentions
) -> Engine:
    from nodes.engines.wan.engine import Wan  # imports torch and diffusers

    sources = sources_of(spec.weights, read_folder(folder).experts, spec.model)
    return Wan(
        spec,
        source=folder,
        device=worker.kind,
        attention=attention,
        compiled=is_compiling(worker.kind),
        cpu_threads=cpu_threads,
        weights=sources,
    )


FAMILY = Family(
    name="wan",
    takes=frozenset().union(*TAKES.values()),
    read_spec=_read_spec,
    create=_create,
    claims=claims,
    pipelines=PIPELINES,
    takes_weights=True,
    models={"tiny_wan": Path(__file__).parents[3] / "models" / "tiny_wan"},
)
