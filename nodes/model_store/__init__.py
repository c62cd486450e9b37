"""Models of this machine as files: where they are kept, and how they come from other machines of the farm.

Keys, folders, pieces and their hashes enter; what is in a model does not. Nothing here reads a weight.
"""

from __future__ import annotations

from nodes.model_store.store import (
    arriving,
    check_disk,
    forget,
    hub_key,
    is_key,
    kept,
    kept_models,
    mark_used,
)

__all__ = [
    "arriving",
    "check_disk",
    "forget",
    "hub_key",
    "is_key",
    "kept",
    "kept_models",
    "mark_used",
]
