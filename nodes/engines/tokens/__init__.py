"""What video transformers compute of their tokens: attention, and all between the large layers.

Functions of tensors and of layers that are called, one batch row at a time, whatever the family.
"""

from __future__ import annotations

from nodes.engines.tokens.attention import TurnedAttention
from nodes.engines.tokens.pointwise import Pointwise, Run, runs_of

__all__ = ["Pointwise", "Run", "TurnedAttention", "runs_of"]
