"""What a model needs and what a worker has, and whether the one fits into the other.

Only plain values and arithmetic enter: no machine is asked and no library that renders is imported.
"""

from __future__ import annotations

from farm.capabilities.engine_spec import (
    MODES,
    TEXT_STAGE,
    Conditioning,
    DeviceKind,
    EngineSpec,
    Mode,
    RenderShape,
    Rung,
    RungSpec,
    SpecOf,
    StageCost,
    host_need_bytes,
    need_bytes,
)
from farm.capabilities.frame_rule import FrameRule
from farm.capabilities.licence import Licence, check_accepted, listed_model
from farm.capabilities.model_files import PIECE_BYTES, Manifest, ModelFile, ModelHeld, Source
from farm.capabilities.weights import (
    OWN_WEIGHTS,
    WEIGHT_FORMATS,
    LoraFile,
    WeightFile,
    WeightFormat,
    Weights,
    check_weights,
)
from farm.capabilities.worker import (
    DESKTOP_RESERVE_BYTES,
    GIB,
    Lack,
    Need,
    Worker,
    fitting_rungs,
    gib,
    lack,
    why_not,
    workers_from_json,
)

__all__ = [
    "DESKTOP_RESERVE_BYTES",
    "GIB",
    "MODES",
    "OWN_WEIGHTS",
    "PIECE_BYTES",
    "TEXT_STAGE",
    "WEIGHT_FORMATS",
    "Conditioning",
    "DeviceKind",
    "EngineSpec",
    "FrameRule",
    "Lack",
    "Licence",
    "LoraFile",
    "Manifest",
    "Mode",
    "ModelFile",
    "ModelHeld",
    "Need",
    "RenderShape",
    "Rung",
    "RungSpec",
    "Source",
    "SpecOf",
    "StageCost",
    "WeightFile",
    "WeightFormat",
    "Weights",
    "Worker",
    "check_accepted",
    "check_weights",
    "fitting_rungs",
    "gib",
    "host_need_bytes",
    "lack",
    "listed_model",
    "need_bytes",
    "why_not",
    "workers_from_json",
]
