"""What a model folder says of itself, read without torch: its files, its configs, the sizes of its tensors.

Readers that any family can use enter; what the numbers mean for one family lives with it.
"""

from __future__ import annotations

from nodes.engines.folders.download import model_folder
from nodes.engines.folders.facts import model_facts
from nodes.engines.folders.formats import WeightFormat, is_quantised
from nodes.engines.folders.headers import config_of, read_json, tensor_sizes
from nodes.engines.folders.layout import Layout, check_folder, variant

__all__ = [
    "Layout",
    "WeightFormat",
    "check_folder",
    "config_of",
    "is_quantised",
    "model_facts",
    "model_folder",
    "read_json",
    "tensor_sizes",
    "variant",
]
