"""Reading weights from their files ahead of the card, through a few pinned buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch

from nodes.engines.folders import StoredTensor
from nodes.engines.streaming.pinned import PinnedMemory
from nodes.engines.weights import READERS, read_into

#: Threads that read: one is slower than most disks, and more than these keep the interpreter from the
#: thread that computes. Of readers and slices these encoded a prompt with a T5 of 9.5 GB fastest (0.45 s;
#: 16 of 4 MiB took 1.2).
_READERS = min(8, READERS)
#: What one of them reads at once, and the pinned buffers of that size: one is copied while another is filled.
_SLICE_BYTES = 8 * 2**20
_BUFFERS = _READERS + 4

Part = tuple[int, StoredTensor | torch.Tensor]
"""What lies at which byte of a destination: of a file, or a tensor in memory."""


class FileReader:
    """Threads that read what they are told, in slices, and put their copies to the card on a stream.

    Args:
        stream: The card's stream for copies; None on a CPU, where files are read into their destination.
    """

    def __init__(self, stream: Any) -> None:
        self._threads = ThreadPoolExecutor(_READERS, "weight-reader")
        self._stream = stream
        self._pinned = PinnedMemory(_BUFFERS * _SLICE_BYTES if stream is not None else 0)
        self._pinned.pin()
        #: Buffers, each with the event of the last copy from it.
        self._free: SimpleQueue[tuple[torch.Tensor, Any]] = SimpleQueue()
        for buffer in torch.split(self._pinned.bytes, _SLICE_BYTES):
            self._free.put((buffer, None))

    def read(self, parts: Sequence[Part], into: torch.Tensor, *, after: Any) -> Callable[[], Any]:
        """Read parts into a destination (n,) uint8, once the event ``after`` has passed.

        Returns:
            Waits until it was read and gives the event of its copy, None on a CPU; raises OSError when a file
            cannot be read.
        """
        jobs = [
            self._threads.submit(self._read, part, first, place, after)
            for part, first, place in _slices(parts, into)
        ]

        def wait() -> Any:
            for job in jobs:
                job.result()
            if self._stream is None:
                return None
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
            return copied

        return wait

    def close(self) -> None:
        """End the threads; what nobody waited for is not read."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._stream is not None:
            self._stream.synchronize()
        self._pinned.release()

    def _read(self, part: StoredTensor | torch.Tensor, first: int, place: torch.Tensor, after: Any) -> None:
        if self._stream is None:
            _fill(part, first, place)
            return
        buffer, copied = self._free.get()
        try:
            if copied is not None:
                copied.synchronize()
            _fill(part, first, buffer[: place.nbytes])
            with torch.cuda.stream(self._stream):
                if after is not None:
                    self._stream.wait_event(after)
                place.copy_(buffer[: place.nbytes], non_blocking=True)
                copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied.record(self._stream)
        finally:
            self._free.put((buffer, copied))


def _slices(
    parts: Sequence[Part], into: torch.Tensor
) -> Iterator[tuple[StoredTensor | torch.Tensor, int, torch.Tensor]]:
    """Each part's slices: from which of its bytes on, and where they belong."""
    for offset, part in parts:
        for first in range(0, part.nbytes, _SLICE_BYTES):
            last = min(first + _SLICE_BYTES, part.nbytes)
            yield part, first, into[offset + first : offset + last]


def _fill(part: StoredTensor | torch.Tensor, first: int, place: torch.Tensor) -> None:
    if isinstance(part, StoredTensor):
        read_into(part, place, first=first)
    else:
        place.copy_(part.reshape(-1).view(torch.uint8)[first : first + place.nbytes])
