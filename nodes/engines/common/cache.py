"""What a prompt or an image is encoded to, kept on the host for the next window that has the same."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

#: Embeddings and first-frame latents kept on the host (under 1 MB each).
CACHE_SIZE = 64


class TensorCache:
    """The last ``size`` tensors by key, on the host."""

    def __init__(self, size: int = CACHE_SIZE) -> None:
        self.size = size
        self._tensors: OrderedDict[str, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tensors)

    def holds(self, *keys: str) -> bool:
        return all(key in self._tensors for key in keys)

    def get(self, key: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The tensor under ``key`` on the host, made and kept when it is not there."""
        if key not in self._tensors:
            self._tensors[key] = make().to("cpu")
            if len(self._tensors) > self.size:
                self._tensors.popitem(last=False)
        self._tensors.move_to_end(key)
        return self._tensors[key]


def image_hash(image: NDArray[np.uint8]) -> str:
    """SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
