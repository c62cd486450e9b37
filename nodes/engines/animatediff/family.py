"""AnimateDiff's line of the table."""

from __future__ import annotations

from pathlib import Path

from farm.capabilities import EngineSpec, Weights, Worker
from nodes.engines.animatediff.layout import PIPELINES, claims
from nodes.engines.animatediff.spec import TAKES, animatediff_spec
from nodes.engines.engine import Attentions, Engine
from nodes.engines.family import Family


def _read_spec(folder: Path, model: str, revision: str | None, _: Weights) -> EngineSpec:
    return animatediff_spec(folder, model=model, revision=revision)


def _create(
    spec: EngineSpec, folder: Path, worker: Worker, *, cpu_threads: int, attention: Attentions
) -> Engine:
    from nodes.engines.animatediff.engine import AnimateDiff  # imports torch and diffusers

    return AnimateDiff(spec, folder, device=worker.kind, attention=attention, cpu_threads=cpu_threads)


FAMILY = Family(
    name="animatediff",
    takes=TAKES,
    read_spec=_read_spec,
    create=_create,
    claims=claims,
    pipelines=PIPELINES,
)
