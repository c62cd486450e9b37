"""The line of the table for the engine that returns at once."""

from __future__ import annotations

from pathlib import Path

from nodes.engines.family import Family
from nodes.engines.instant.engine import MODEL, TAKES, Instant, spec

FAMILY = Family(
    name="instant",
    takes=TAKES,
    read_spec=lambda folder, model, revision, weights: spec(model),
    create=lambda spec, folder, worker, **_: Instant(spec.model),
    models={MODEL: Path(__file__).parent},
    listed=False,
    uses_torch=False,
)
