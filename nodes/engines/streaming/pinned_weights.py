"""A module's weights in host memory that a card copies from by itself: all at once, or group by group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from nodes.engines.streaming.pinned import PinnedMemory
from nodes.engines.weights import file_span, read_each

_ALIGN = 256
#: The order in which weights of convolutions may lie, by their dimensions.
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def weights_of(module: nn.Module) -> dict[int, torch.Tensor]:
    """Every parameter and buffer of a module once, by its id."""
    return {id(t): t for t in (*module.parameters(), *module.buffers())}


def layout(tensors: Iterable[torch.Tensor]) -> tuple[list[int], int]:
    """Where tensors lie in bytes of their own, and how many these are."""
    offsets, end = [], 0
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.nbytes // _ALIGN) * _ALIGN
    return offsets, end


def view(flat: torch.Tensor, offset: int, like: torch.Tensor) -> torch.Tensor:
    """The tensor at a byte of ``flat`` (n,) uint8, its elements in the same order."""
    elements = flat[offset : offset + like.nbytes].view(like.dtype)
    if like.dim() in _CHANNELS_LAST and like.is_contiguous(memory_format=_CHANNELS_LAST[like.dim()]):
        return elements.as_strided(like.shape, like.stride())
    return elements.view(like.shape)


def moved_into(
    flat: torch.Tensor, tensors: Sequence[torch.Tensor], offsets: Sequence[int]
) -> list[torch.Tensor | None]:
    """Let tensors be views of ``flat`` (n,) uint8, which takes over what they hold.

    Returns:
        What they were: None for what was copied from memory, which is not kept twice.
    """
    spans = [file_span(tensor) for tensor in tensors]
    before = [None if span is None else t.data for t, span in zip(tensors, spans, strict=True)]
    # Past the mapping, whose pages would be held beside the copy.
    read_each(
        (span, flat[offset : offset + span.nbytes])
        for span, offset in zip(spans, offsets, strict=True)
        if span is not None
    )
    for tensor, span, offset in zip(tensors, spans, offsets, strict=True):
        copy = view(flat, offset, tensor)
        if span is None:
            copy.copy_(tensor.data)
        tensor.data = copy
    return before


class PinnedWeights:
    """A module on the host whose weights come to the card in one copy, as fast as its bus, for its use."""

    def __init__(self, module: nn.Module, device: str) -> None:
        self._device = device
        self._tensors = list(weights_of(module).values())
        self._offsets, nbytes = layout(self._tensors)
        self._memory = PinnedMemory(nbytes)
        self._before = moved_into(self._memory.bytes, self._tensors, self._offsets)
        self._host = [tensor.data for tensor in self._tensors]
        if torch.device(device).type == "cuda":
            self._memory.pin()

    @contextmanager
    def on_card(self) -> Iterator[None]:
        """Have them on the device inside the body. They do not change: nothing is copied back."""
        try:
            flat = torch.empty(self._memory.bytes.nbytes, dtype=torch.uint8, device=self._device)
            flat.copy_(self._memory.bytes, non_blocking=True)
            for tensor, offset in zip(self._tensors, self._offsets, strict=True):
                tensor.data = view(flat, offset, tensor)
            del flat
            yield
        finally:
            for tensor, host in zip(self._tensors, self._host, strict=True):
                tensor.data = host

    def detach(self) -> None:
        """Let the module be as it was before."""
        for tensor, before in zip(self._tensors, self._before, strict=True):
            if before is not None:
                tensor.data = before
        self._memory.release()
