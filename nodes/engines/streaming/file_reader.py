"""Reading weights from their files ahead of the card, through a few pinned buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from nodes.engines.folders import StoredTensor
from nodes.engines.streaming.pinned import PinnedMemory
from nodes.engines.weights import read_into


class FileReader:
    """One thread that reads what it is told, in order, and puts its copy to the card on a stream.

    Args:
        buffer_bytes: Of one pinned buffer: the largest destination.
        stream: The card's stream for copies; None on a CPU, where files are read into their destination.
        buffers: Pinned buffers: as many copies may be on their way while more is read.
    """

    def __init__(self, buffer_bytes: int, stream: Any, *, buffers: int) -> None:
        self._thread = ThreadPoolExecutor(1, "weight-reader")
        self._stream = stream
        self._buffers = [PinnedMemory(buffer_bytes) for _ in range(buffers if stream is not None else 0)]
        for buffer in self._buffers:
            buffer.pin()
        self._free: list[tuple[torch.Tensor, Any]] = [(buffer.bytes, None) for buffer in self._buffers]

    def read(
        self, parts: Sequence[tuple[int, StoredTensor | torch.Tensor]], into: torch.Tensor, *, after: Any
    ) -> Callable[[], Any]:
        """Read parts into a destination (n,) uint8, once the event ``after`` has passed.

        Args:
            parts: What lies at which byte of it: of a file, or a tensor in memory.

        Returns:
            Waits until it was read and gives the event of its copy, None on a CPU; raises OSError when a file
            cannot be read.
        """
        return self._thread.submit(self._read, parts, into, after).result

    def close(self) -> None:
        """End the thread; what nobody waited for is not read."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._stream is not None:
            self._stream.synchronize()
        for buffer in self._buffers:
            buffer.release()

    def _read(
        self, parts: Sequence[tuple[int, StoredTensor | torch.Tensor]], into: torch.Tensor, after: Any
    ) -> Any:
        if self._stream is None:
            _fill(parts, into)
            return None
        buffer, copied = self._free.pop(0)
        if copied is not None:
            copied.synchronize()
        _fill(parts, buffer)
        with torch.cuda.stream(self._stream):
            if after is not None:
                self._stream.wait_event(after)
            into.copy_(buffer[: into.nbytes], non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
        self._free.append((buffer, copied))
        return copied


def _fill(parts: Sequence[tuple[int, StoredTensor | torch.Tensor]], buffer: torch.Tensor) -> None:
    for offset, part in parts:
        place = buffer[offset : offset + part.nbytes]
        if isinstance(part, StoredTensor):
            read_into(part, place)
        else:
            place.copy_(part.reshape(-1).view(torch.uint8))
