"""The way of weights from files through pinned host memory to the card, all at once or group by group.

What moves tensors of any module enters; which modules travel, and when, belongs to who places a model.
"""

from __future__ import annotations

from nodes.engines.streaming.pinned_weights import PinnedWeights, weights_of
from nodes.engines.streaming.weight_ring import WeightRing

__all__ = ["PinnedWeights", "WeightRing", "weights_of"]
