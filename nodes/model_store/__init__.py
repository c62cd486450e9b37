"""Models of this machine as files: where they are kept, and how they come from other machines of the farm.

Keys, folders, pieces and their hashes enter; what is in a model does not. Nothing here reads a weight.
"""

from __future__ import annotations

from nodes.model_store.bringing import bring
from nodes.model_store.holdings import Holding, InStore, recorded
from nodes.model_store.house import House
from nodes.model_store.manifests import manifest_of
from nodes.model_store.pieces import to_drop
from nodes.model_store.serving import PieceServer
from nodes.model_store.store import (
    arriving,
    check_disk,
    folder_of,
    forget,
    hub_key,
    is_key,
    kept,
    kept_models,
    mark_used,
    models_folder,
    models_quota,
    room_bytes,
)

__all__ = [
    "Holding",
    "House",
    "InStore",
    "PieceServer",
    "arriving",
    "bring",
    "check_disk",
    "folder_of",
    "forget",
    "hub_key",
    "is_key",
    "kept",
    "kept_models",
    "manifest_of",
    "mark_used",
    "models_folder",
    "models_quota",
    "recorded",
    "room_bytes",
    "to_drop",
]
