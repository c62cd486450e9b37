"""What a model folder says of itself, read without torch: its files, its configs, the sizes of its tensors.

Readers that any family can use enter; what the numbers mean for one family lives with it.
"""

from __future__ import annotations

from nodes.engines.folders.download import OnBytes, cached_folder, model_folder
from nodes.engines.folders.facts import FolderFacts, WeightedFacts, model_facts
from nodes.engines.folders.finite import not_finite
from nodes.engines.folders.formats import Kept, WeightFormat, stored_bytes
from nodes.engines.folders.gguf_files import gguf_file
from nodes.engines.folders.headers import config_of, read_json, tensor_sizes
from nodes.engines.folders.hollow import write_hollow
from nodes.engines.folders.hub_files import data_files, listed_in, wanted_files
from nodes.engines.folders.layout import Layout, check_folder, variant
from nodes.engines.folders.single_file import file_tensors
from nodes.engines.folders.sources import (
    THE_FOLDERS,
    WeightSource,
    check_file,
    check_loras,
    in_fewer_bits,
    in_formats,
    source_bytes,
    source_tensors,
    sources_of,
    unpacked_bytes,
)
from nodes.engines.folders.stored_tensors import PLAIN_TYPES, StoredTensor, component_tensors, stored_tensors
from nodes.engines.folders.weight_files import (
    FOLDER_VARIABLE,
    found_here,
    is_weights_key,
    weights_folder,
    weights_key,
)

__all__ = [
    "FOLDER_VARIABLE",
    "PLAIN_TYPES",
    "THE_FOLDERS",
    "FolderFacts",
    "Kept",
    "Layout",
    "OnBytes",
    "StoredTensor",
    "WeightFormat",
    "WeightSource",
    "WeightedFacts",
    "cached_folder",
    "check_file",
    "check_folder",
    "check_loras",
    "component_tensors",
    "config_of",
    "data_files",
    "file_tensors",
    "found_here",
    "gguf_file",
    "in_fewer_bits",
    "in_formats",
    "is_weights_key",
    "listed_in",
    "model_facts",
    "model_folder",
    "not_finite",
    "read_json",
    "source_bytes",
    "source_tensors",
    "sources_of",
    "stored_bytes",
    "stored_tensors",
    "tensor_sizes",
    "unpacked_bytes",
    "variant",
    "wanted_files",
    "weights_folder",
    "weights_key",
    "write_hollow",
]
