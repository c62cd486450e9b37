"""Models and the code that runs them: one sub-package a family, found in one table.

A family enters as a sub-package and a line of the table; what families share lives in ``common``, ``folders``
and ``memory``.
"""

from __future__ import annotations

from nodes.engines.engine import (
    Cancelled,
    Engine,
    Frames,
    OutOfMemory,
    Rendered,
    RenderInputs,
    Report,
    TextEngine,
)
from nodes.engines.model_files import fetch, files_of, held_models, is_here, store_key
from nodes.engines.table import (
    ADDED,
    create_engine,
    family_of,
    import_engines,
    known_models,
    licence_of,
    named_spec_of,
    shape_of,
    spec_of,
)

__all__ = [
    "ADDED",
    "Cancelled",
    "Engine",
    "Frames",
    "OutOfMemory",
    "RenderInputs",
    "Rendered",
    "Report",
    "TextEngine",
    "create_engine",
    "family_of",
    "fetch",
    "files_of",
    "held_models",
    "import_engines",
    "is_here",
    "known_models",
    "licence_of",
    "named_spec_of",
    "shape_of",
    "spec_of",
    "store_key",
]
