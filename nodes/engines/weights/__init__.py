"""Weights as they are kept: in fewer bits, as GGUF blocks, with LoRAs, mapped from files; and how it is done.

What reads, converts or dequantises weights of any diffusion model enters; no family, and no rung of a ladder.
"""

from __future__ import annotations

from nodes.engines.weights.conversion import converted
from nodes.engines.weights.files import READERS, file_span, read_each, read_into, whole
from nodes.engines.weights.gguf_blocks import BLOCKS, GgufLinear, dequantised
from nodes.engines.weights.layers import QuantisedLinear, ScaledLinear, quantised
from nodes.engines.weights.loading import load_weights
from nodes.engines.weights.skeleton import kept_by
from nodes.engines.weights.source import read_weights

__all__ = [
    "BLOCKS",
    "READERS",
    "GgufLinear",
    "QuantisedLinear",
    "ScaledLinear",
    "converted",
    "dequantised",
    "file_span",
    "kept_by",
    "load_weights",
    "quantised",
    "read_each",
    "read_into",
    "read_weights",
    "whole",
]
