"""I2VGen-XL's line of the table."""

from __future__ import annotations

from pathlib import Path

from farm.capabilities import EngineSpec, Licence, Weights, Worker
from nodes.engines.engine import Attentions, Engine
from nodes.engines.family import Family, HubModel
from nodes.engines.i2vgen_xl.layout import LAYOUT, PIPELINE, claims
from nodes.engines.i2vgen_xl.spec import TAKES, i2vgen_xl_spec


def _read_spec(folder: Path, model: str, revision: str | None, _: Weights) -> EngineSpec:
    return i2vgen_xl_spec(folder, model=model, revision=revision)


def _create(
    spec: EngineSpec, folder: Path, worker: Worker, *, cpu_threads: int, attention: Attentions
) -> Engine:
    from nodes.engines.i2vgen_xl.engine import I2VGenXL  # imports torch and diffusers

    return I2VGenXL(spec, source=folder, device=worker.kind, attention=attention, cpu_threads=cpu_threads)


FAMILY = Family(
    name="i2vgen_xl",
    takes=TAKES,
    read_spec=_read_spec,
    create=_create,
    claims=claims,
    pipelines=(PIPELINE,),
    models={
        "i2vgen-xl": HubModel(
            "ali-vilab/i2vgen-xl",
            "39e1979ea27be737b0278c06755e321f2b4360d5",
            LAYOUT,
            Licence(name="MIT License", url="https://huggingface.co/ali-vilab/i2vgen-xl"),
        ),
    },
)
