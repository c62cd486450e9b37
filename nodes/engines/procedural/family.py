"""The drawn models' line of the table."""

from __future__ import annotations

from pathlib import Path

from nodes.engines.family import Family
from nodes.engines.procedural.engine import LEVELS, TAKES, Procedural, spec

FAMILY = Family(
    name="procedural",
    takes=TAKES,
    read_spec=lambda folder, model, revision, weights: spec(model),
    create=lambda spec, folder, worker, **_: Procedural(spec.model),
    models=dict.fromkeys(LEVELS, Path(__file__).parent),
    uses_torch=False,
)
