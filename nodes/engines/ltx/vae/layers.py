"""The layers of diffusers' AutoencoderKLLTXVideo over a clip that comes in chunks: the same sums.

Every layer sees a few frames to each side (to the left alone where it is causal) and nothing else of the
clip, so each keeps the frames it needs of the chunk before, and what it cannot know yet waits for the next
chunk: its output lags behind its input, and ends with it. Whatever the clip's length, the device holds what
is in flight and these few frames a layer. Chunks are (1, C, n, h, w), n from 1 up. While the next layer works
on a chunk, none of those before holds it: hence ``map``, and lists that are popped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

Chunks = Iterator[torch.Tensor]


def in_pieces(chunks: Iterable[torch.Tensor], frames: int) -> Chunks:
    """The same clip in chunks of at most ``frames`` frames."""
    for chunk in chunks:
        pieces = deque(torch.split(chunk, frames, dim=2))
        del chunk
        while pieces:
            yield pieces.popleft()


def convolved(layer: Any, chunks: Iterable[torch.Tensor], total: int | None = None) -> Chunks:
    """LTXVideoCausalConv3d: at the clip's ends its first frame, and if not causal its last, is repeated.

    ``total``: frames of the clip. What knows them ends with its last chunk; else what lags comes behind it,
    in one more chunk a layer.
    """
    kernel, stride = layer.kernel_size[0], layer.conv.stride[0]
    before = kernel - 1 if layer.is_causal else (kernel - 1) // 2
    after = kernel - 1 - before
    kept: torch.Tensor | None = None
    made: list[torch.Tensor] = []

    def take_in(frames: torch.Tensor) -> None:
        """Make what these frames give, and keep those that are still needed."""
        nonlocal kept
        outputs = (frames.shape[2] - kernel) // stride + 1
        kept = frames
        if outputs > 0:
            kept = frames[:, :, outputs * stride :].clone()
            made.append(layer.conv(frames))

    taken = 0
    for chunk in chunks:
        taken += chunk.shape[2]
        start = chunk[:, :, :1].expand(-1, -1, before, -1, -1) if kept is None else kept
        end = chunk[:, :, -1:].expand(-1, -1, after if taken == total else 0, -1, -1)
        take_in(torch.cat([start, chunk, end], dim=2))
        del chunk, start, end
        if made:
            yield made.pop()
    if kept is not None and after and taken != total:
        take_in(torch.cat([kept, kept[:, :, -1:].expand(-1, -1, after, -1, -1)], dim=2))
        if made:
            yield made.pop()


class Beside:
    """The clip a layer changes, kept until the layer's late output is to be added to it."""

    def __init__(self, chunks: Iterable[torch.Tensor]) -> None:
        self._chunks = chunks
        self._waiting: deque[torch.Tensor] = deque()

    def __iter__(self) -> Chunks:
        for chunk in self._chunks:
            self._waiting.append(chunk)
            del chunk
            yield self._waiting[-1]

    def take(self, frames: int) -> torch.Tensor:
        """The next frames of the clip, (1, C, frames, h, w)."""
        taken = []
        while frames:
            chunk = self._waiting.popleft()
            if chunk.shape[2] > frames:
                self._waiting.appendleft(chunk[:, :, frames:].clone())
                chunk = chunk[:, :, :frames]
            taken.append(chunk)
            frames -= chunk.shape[2]
        return torch.cat(taken, dim=2)


def resnet(
    block: Any, chunks: Iterable[torch.Tensor], embedded: torch.Tensor | None, total: int | None = None
) -> Chunks:
    """LTXVideoResnetBlock3d, with its block's embedded timestep (1, 4 C, 1, 1, 1) where it has one."""
    scales: list[torch.Tensor | None] = [None] * 4
    if block.scale_shift_table is not None:
        assert embedded is not None
        table = torch.unflatten(embedded, 1, (4, -1)) + block.scale_shift_table[None, ..., None, None, None]
        scales = list(table.unbind(dim=1))
    shift_1, scale_1, shift_2, scale_2 = scales

    def prepared(norm: Any, shift: Any, scale: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda hidden: block.nonlinearity(modulated(over_channels(norm, hidden), shift, scale))

    beside = Beside(chunks)
    hidden = convolved(block.conv1, map(prepared(block.norm1, shift_1, scale_1), beside), total)
    hidden = convolved(block.conv2, map(prepared(block.norm2, shift_2, scale_2), hidden), total)

    def added(change: torch.Tensor) -> torch.Tensor:
        same = beside.take(change.shape[2])
        if block.norm3 is not None:
            same = over_channels(block.norm3, same)
        if block.conv_shortcut is not None:
            same = block.conv_shortcut.conv(same)
        return change.add_(same)

    return map(added, hidden)


def upsampled(layer: Any, chunks: Iterable[torch.Tensor], total: int) -> Chunks:
    """LTXVideoUpsampler3d: of the doubled frames the clip's first is dropped."""
    beside = Beside(chunks)
    stride = layer.stride

    def unfolded(change: torch.Tensor) -> torch.Tensor:
        frames = change.shape[2]
        change = _unfolded(change, stride)
        same = beside.take(frames)
        if not layer.residual:
            return change
        repeats = stride[0] * stride[1] * stride[2] // layer.upscale_factor
        return change.add_(_unfolded(same, stride).repeat(1, repeats, 1, 1, 1))

    return _without_first(map(unfolded, convolved(layer.conv, beside, total)), stride[0] - 1)


def downsampled(layer: Any, chunks: Iterable[torch.Tensor]) -> Chunks:
    """LTXVideoDownsampler3d (0.9.5 and later): the clip's first frames are doubled, then each few are one."""
    beside = Beside(_first_doubled(chunks, layer.stride[0] - 1))

    def folded(change: torch.Tensor) -> torch.Tensor:
        same = _folded(beside.take(change.shape[2]), layer.stride)
        return _folded(change, layer.stride).add_(
            torch.unflatten(same, 1, (-1, layer.group_size)).mean(dim=2)
        )

    return map(folded, _whole_groups(convolved(layer.conv, beside), layer.stride[0]))


def over_channels(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """A norm over the channels of (1, C, n, h, w)."""
    return norm(hidden.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]


def modulated(hidden: torch.Tensor, shift: Any, scale: Any) -> torch.Tensor:
    """Scaled and shifted by channel, where there is something to do it by."""
    return hidden if scale is None else hidden * (1 + scale) + shift


def _first_doubled(chunks: Iterable[torch.Tensor], count: int) -> Chunks:
    waiting = iter(chunks)
    for first in waiting:
        yield torch.cat([first[:, :, :count], first], dim=2)
        del first
        break
    yield from waiting


def _without_first(chunks: Iterable[torch.Tensor], count: int) -> Chunks:
    waiting = iter(chunks)
    for first in waiting:
        kept = [first[:, :, count:]] if first.shape[2] > count else []
        del first
        if kept:
            yield kept.pop()
        break
    yield from waiting


def _whole_groups(chunks: Iterable[torch.Tensor], size: int) -> Chunks:
    """The same clip in chunks of a multiple of ``size`` frames."""
    rest: torch.Tensor | None = None
    for chunk in chunks:
        frames = [chunk if rest is None else torch.cat([rest, chunk], dim=2)]
        del chunk
        whole = frames[0].shape[2] // size * size
        rest = frames[0][:, :, whole:].clone()
        if whole:
            yield frames.pop()[:, :, :whole]


def _unfolded(hidden: torch.Tensor, stride: tuple[int, int, int]) -> torch.Tensor:
    """Channels to frames, rows and columns."""
    batch, _, frames, height, width = hidden.shape
    hidden = hidden.reshape(batch, -1, *stride, frames, height, width)
    return hidden.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _folded(hidden: torch.Tensor, stride: tuple[int, int, int]) -> torch.Tensor:
    """Frames, rows and columns to channels."""
    for dim in (4, 3, 2):
        hidden = torch.unflatten(hidden, dim, (-1, stride[dim - 2]))
    return hidden.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
