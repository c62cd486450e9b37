"""The convolutions over time that diffusers' video UNets share: the same numbers in less memory."""

from __future__ import annotations

import torch
from torch import nn


class FoldedTemporalConv(nn.Conv2d):
    """A Conv3d of kernel (3, 1, 1) as a Conv2d over (frames, pixels): the same sums.

    cuDNN has no half-precision 3-d path in some releases (PyTorch issue 166643), where the 3-d form needs up
    to 17 times the memory; the 2-d form has one everywhere. It takes the parameters of ``conv`` over, which
    computes no more.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, (3, 1), padding=(1, 0), device="meta")
        # The same parameter: it may be known to lie in a file (see ``file_span``).
        conv.weight.data = conv.weight.data[..., 0]
        self.weight, self.bias = conv.weight, conv.bias
        self.requires_grad_(False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, C, F, h, w) to (B, C', F, h, w)."""
        batch, channels, frames, height, width = hidden_states.shape
        folded = super().forward(hidden_states.reshape(batch, channels, frames, height * width))
        return folded.reshape(batch, -1, frames, height, width)


def fold_temporal_convs(model: nn.Module) -> None:
    """Replace every (3, 1, 1) Conv3d that keeps its input's size by its folded form, in place."""
    for layer in list(model.modules()):
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.Conv3d) and (child.kernel_size, child.padding) == ((3, 1, 1), (1, 0, 0)):
                setattr(layer, name, FoldedTemporalConv(child))
