from __future__ import annotations

import torch

from nodes.engines.common.cache import TensorCache


def test_the_cache_makes_a_tensor_once_and_forgets_the_one_unused_longest() -> None:
    cache = TensorCache(2)
    made: list[str] = []

    def get(key: str) -> None:
        cache.get(key, lambda: made.append(key) or torch.zeros(1))  # type: ignore[func-returns-value]

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]
    assert not cache.holds("a", "b", "c")
