"""Layers of U-Nets over videos in slices of their rows and in place: less in flight, whatever the window.

For forwards that a family writes anew over a stock model's layers; ``pieces`` is for stock forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from nodes.engines.placement import ELEMENTS_AT_ONCE, RING_GROUP_BYTES

#: What layers make on their way, in inputs: a norm and GEGLU (1 + 8 + 4 + 4); queries to output, or a norm
#: and its transposition; a resnet and the samplers with cuDNN's copies.
FEED_FORWARD, ATTENTION, RESNET = 17, 6, 8


def slices(rows: int, row_elements: int, factor: int) -> Iterator[slice]:
    """Runs of rows that make no more than ``ELEMENTS_AT_ONCE`` on their way, of one row at least."""
    size = max(1, ELEMENTS_AT_ONCE // (factor * row_elements))
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))


def sliced(
    call: Callable[[slice], torch.Tensor],
    rows: int,
    row_elements: int,
    factor: int,
    used: torch.Tensor | None = None,
) -> torch.Tensor:
    """What ``call`` gives of every slice, one after the other, in one tensor.

    ``used``: a tensor of whose rows nothing is needed once they were called with: where it has the shape, it
    is the one.
    """
    out: torch.Tensor | None = None
    for piece in slices(rows, row_elements, factor):
        made = call(piece)
        if out is None:
            fits = used is not None and made.shape[1:] == used.shape[1:]
            out = used if fits else made.new_empty((rows, *made.shape[1:]))
            assert out is not None
        out[piece] = made
        del made  # else it lives through the next slice
    assert out is not None
    return out


def by_frame(layer: Any, hidden: torch.Tensor, *, grows: int = 1) -> torch.Tensor:
    """A layer that acts on each of (N, C, h, w) alone, and gives ``grows`` times as much."""
    return sliced(lambda piece: layer(hidden[piece]), len(hidden), grows * hidden[0].numel(), RESNET)


def add_by_token(layer: Any, norm: Any, x: torch.Tensor) -> None:
    """Add what a feed-forward layer makes of the normed tokens to them, in place."""
    tokens = x.view(-1, x.shape[-1])
    for piece in slices(len(tokens), x.shape[-1], FEED_FORWARD):
        tokens[piece] += layer(norm(tokens[piece]))


def add_by_row(attention: Any, norm: Any, x: torch.Tensor) -> None:
    """Add what self-attention makes of the normed rows (N, T, C) to them, in place."""
    for piece in slices(len(x), x[0].numel(), ATTENTION):
        x[piece] += attention(norm(x[piece]))


class SlicedResnet(nn.Module):
    """ResnetBlock2D frame by frame, of a hidden state and the skip that is joined to it. Takes it over.

    One with more weights than a group of the ring that streams them runs a convolution over all frames after
    the other: each slice would bring all of them anew.
    """

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.whole = resnet

    def forward(self, hidden: torch.Tensor, skip: torch.Tensor | None, emb: torch.Tensor) -> torch.Tensor:
        """(B x F, C, h, w) and the embedding of the step (B, E). The skip is used up."""

        def joined(piece: slice) -> torch.Tensor:
            return hidden[piece] if skip is None else torch.cat([hidden[piece], skip[piece]], dim=1)

        rows = len(hidden)
        elements = hidden[0].numel() + (0 if skip is None else skip[0].numel())
        if sum(weight.nbytes for weight in self.parameters()) > RING_GROUP_BYTES:
            return self._by_layer(joined, rows, elements, emb, skip)
        by_frame = emb.repeat_interleave(rows // len(emb), dim=0)
        return sliced(
            lambda piece: self.whole(joined(piece), by_frame[piece]), rows, elements, RESNET, used=skip
        )

    def _by_layer(
        self,
        joined: Callable[[slice], torch.Tensor],
        rows: int,
        elements: int,
        emb: torch.Tensor,
        skip: torch.Tensor | None,
    ) -> torch.Tensor:
        whole = self.whole
        step = whole.time_emb_proj(whole.nonlinearity(emb))[:, :, None, None]
        step = step.repeat_interleave(rows // len(emb), dim=0)

        def first(piece: slice) -> torch.Tensor:
            made = whole.conv1(whole.nonlinearity(whole.norm1(joined(piece))))
            return made.add_(step[piece])  # type: ignore[no-any-return]

        inner = sliced(first, rows, elements, RESNET)
        shortcut = whole.conv_shortcut or nn.Identity()
        out = sliced(lambda piece: shortcut(joined(piece)), rows, elements, RESNET, used=skip)
        for piece in slices(rows, inner[0].numel(), RESNET):
            out[piece] += whole.conv2(whole.nonlinearity(whole.norm2(inner[piece])))
        return out


Moments = tuple[torch.Tensor, torch.Tensor]


def moments_over_frames(norm: nn.GroupNorm, x: torch.Tensor) -> Moments:
    """By what (B, 1, C, 1) a group norm over all frames of (B, F, C, P) multiplies, and what it adds."""
    grouped = x.view(*x.shape[:2], norm.num_groups, -1, x.shape[-1])
    # Frame by frame in float32: as many numbers in each, so that their moments can be joined.
    each = [torch.var_mean(frame.float(), dim=(2, 3), correction=0) for frame in grouped.unbind(1)]
    variances, means = (torch.stack(which) for which in zip(*each, strict=True))
    mean = means.mean(0)
    variance = variances.mean(0) + (means - mean).square().mean(0)
    scale = torch.rsqrt(variance + norm.eps).repeat_interleave(x.shape[2] // norm.num_groups, dim=1)
    mean = mean.repeat_interleave(x.shape[2] // norm.num_groups, dim=1)
    scale = scale * norm.weight.float()
    shape = (len(x), 1, x.shape[2], 1)
    return scale.view(shape), (norm.bias.float() - mean * scale).view(shape)
