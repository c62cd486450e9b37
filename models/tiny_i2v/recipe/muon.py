"""Muon: momentum made orthogonal by Newton-Schulz steps.

After Jordan et al. 2024, kellerjordan.github.io/posts/muon.

Every matrix moves by the same amount in all its directions, which suits large batches. Matrices of one
shape are done together.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315
MOMENTUM = 0.95
WEIGHT_DECAY = 0.01


class Muon(torch.optim.Optimizer):
    """For weights of two or more dimensions; (out, ...) is seen as a matrix (out, the rest)."""

    def __init__(self, weights: list[torch.Tensor], *, learning_rate: float) -> None:
        super().__init__(weights, {"lr": learning_rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[torch.Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[(weight.shape[0], weight.numel() // weight.shape[0])].append(weight)
            for (rows, columns), weights in by_shape.items():
                gradients = [w.grad for w in weights]
                for weight in weights:
                    if "momentum" not in self.state[weight]:
                        self.state[weight]["momentum"] = torch.zeros_like(weight)
                momenta = [self.state[w]["momentum"] for w in weights]
                torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
                ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
                moves = orthogonal(torch.stack([m.reshape(rows, columns) for m in ahead]))
                moves = moves * (max(1, rows / columns) ** 0.5)
                torch._foreach_mul_(weights, 1 - group["lr"] * WEIGHT_DECAY)
                steps = [m.view_as(w).to(w.dtype) for m, w in zip(moves.unbind(), weights, strict=True)]
                torch._foreach_add_(weights, steps, alpha=-group["lr"])


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """(N, rows, columns) to the nearest matrices whose singular values are about one."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()  # many processors have no bfloat16
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * square @ square) @ x
    return x.mT if tall else x
