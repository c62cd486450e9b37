"""Wan's line of the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from farm.capabilities import EngineSpec, Weights, Worker
from nodes.engines.engine import Attentions, Engine
from nodes.engines.family import APACHE, Family, HubModel
from nodes.engines.folders import sources_of
from nodes.engines.machine_choices import is_compiling
from nodes.engines.wan.kinds import TAKES
from nodes.engines.wan.layout import PIPELINES, claims, layout, read_folder
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


def _hub(repository: str, revision: str, experts: tuple[str, ...] = ("transformer",)) -> HubModel:
    files = replace(layout(experts), data=("model_index.json",))  # the rest is checked when it is read
    return HubModel(repository, revision, files, APACHE, experts)


FAMILY = Family(
    name="wan",
    takes=TAKES["channels"],
    read_spec=_read_spec,
    create=_create,
    claims=claims,
    pipelines=PIPELINES,
    takes_weights=True,
    models={
        "tiny_wan": Path(__file__).parents[3] / "models" / "tiny_wan",
        "wan2.2-i2v-a14b": _hub(
            "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
            "596658fd9ca6b7b71d5057529bbf319ecbc61d74",
            ("transformer", "transformer_2"),
        ),
        "wan2.2-ti2v-5b": _hub("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "b8fff7315c768468a5333511427288870b2e9635"),
        "wan2.1-vace-1.3b": _hub(
            "Wan-AI/Wan2.1-VACE-1.3B-diffusers", "ec4d2cb062b548996b179d493fdd05340de702a1"
        ),
    },
)
