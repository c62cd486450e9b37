"""Weights as they are kept: in fewer bits, as GGUF blocks, with LoRAs, mapped from files; and how it is done.

What reads, converts or dequantises weights of any diffusion model enters; no family, and no rung of a ladder.
"""

from __future__ import annotations

from nodes.engines.weights.layers import QuantisedLinear, ScaledLinear, quantised

__all__ = [
    "QuantisedLinear",
    "ScaledLinear",
    "quantised",
]
