"""Stable Video Diffusion's line of the table."""

from __future__ import annotations

from pathlib import Path

from farm.capabilities import EngineSpec, Licence, Weights, Worker
from nodes.engines.engine import Attentions, Engine
from nodes.engines.family import Family, HubModel
from nodes.engines.svd.layout import LAYOUT, PIPELINE, claims
from nodes.engines.svd.spec import TAKES, svd_spec


def _read_spec(folder: Path, model: str, revision: str | None, _: Weights) -> EngineSpec:
    return svd_spec(folder, model=model, revision=revision)


def _create(
    spec: EngineSpec, folder: Path, worker: Worker, *, cpu_threads: int, attention: Attentions
) -> Engine:
    from nodes.engines.svd.engine import StableVideoDiffusion  # imports torch and diffusers

    return StableVideoDiffusion(
        spec, folder, device=worker.kind, attention=attention, cpu_threads=cpu_threads
    )


def _hub(repository: str, revision: str) -> HubModel:
    terms = Licence(
        name="Stable Video Diffusion Community License",
        url=f"https://huggingface.co/{repository}",
        restricts_use=True,
    )
    return HubModel(repository, revision, LAYOUT, terms)


FAMILY = Family(
    name="svd",
    takes=TAKES,
    read_spec=_read_spec,
    create=_create,
    claims=claims,
    pipelines=(PIPELINE,),
    models={
        "svd": _hub("stabilityai/stable-video-diffusion-img2vid", "9cf024d5bfa8f56622af86c884f26a52f6676f2e"),
        "svd-xt": _hub(
            "stabilityai/stable-video-diffusion-img2vid-xt", "9e43909513c6714f1bc78bcb44d96e733cd242aa"
        ),
    },
)
