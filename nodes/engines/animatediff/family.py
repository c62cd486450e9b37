"""AnimateDiff's line of the table."""

from __future__ import annotations

from pathlib import Path

from farm.capabilities import EngineSpec, Weights, Worker
from nodes.engines.animatediff.layout import DENOISER, PARTS, PIPELINES, claims
from nodes.engines.animatediff.spec import TAKES, animatediff_spec
from nodes.engines.engine import Attentions, Engine
from nodes.engines.family import Family
from nodes.engines.folders import sources_of


def _read_spec(folder: Path, model: str, revision: str | None, weights: Weights) -> EngineSpec:
    return animatediff_spec(folder, model=model, revision=revision, weights=weights)


def _create(
    spec: EngineSpec, folder: Path, worker: Worker, *, cpu_threads: int, attention: Attentions
) -> Engine:
    from nodes.engines.animatediff.engine import AnimateDiff  # imports torch and diffusers

    return AnimateDiff(
        spec,
        folder,
        device=worker.kind,
        attention=attention,
        cpu_threads=cpu_threads,
        weights=sources_of(spec.weights, PARTS.denoisers, spec.model)[DENOISER],
    )


FAMILY = Family(
    name="animatediff",
    takes=TAKES,
    read_spec=_read_spec,
    create=_create,
    claims=claims,
    pipelines=PIPELINES,
    takes_weights=True,
)
