"""Tensors of files: mapped without a copy, or read piece by piece without a mapping."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn

from nodes.engines.folders import StoredTensor

#: The types of safetensors and GGUF that torch has.
TORCH_TYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
#: Elements that are computed with at once.
CHUNK_ELEMENTS = 2**22
#: Threads that read: one is slower than most disks. Of files that are in memory 16 read 35 GB a second into
#: memory that was used before, 8 read 24 and one 3.5 (docs/measured.md).
READERS = min(16, os.cpu_count() or 4)
#: What one of them reads at once.
_SLICE_BYTES = 4 * 2**20


class MappedFiles:
    """Files as tensors of bytes that the system reads when they are touched, and may forget again."""

    def __init__(self) -> None:
        self._files: dict[Path, torch.Tensor] = {}

    def bytes_of(self, tensor: StoredTensor) -> torch.Tensor:
        """The bytes (nbytes,) uint8 of a tensor, not copied; writing to them changes no file."""
        if tensor.path not in self._files:
            size = tensor.path.stat().st_size
            self._files[tensor.path] = torch.from_file(
                str(tensor.path), shared=False, size=size, dtype=torch.uint8
            )
        return self._files[tensor.path][tensor.offset : tensor.offset + tensor.nbytes]

    def tensor(self, tensor: StoredTensor) -> torch.Tensor:
        """A tensor of a type that torch has, in its shape; copied only where it lies at an odd address."""
        data, dtype = self.bytes_of(tensor), TORCH_TYPES[tensor.type]
        if data.storage_offset() % dtype.itemsize:
            data = data.clone()
        return data.view(dtype).view(tensor.shape)

    def remember(self, module: nn.Module) -> None:
        """Note where the tensors of a module lie that lie in one of these files (see ``file_span``)."""
        starts = [(path, file.data_ptr(), file.nbytes) for path, file in self._files.items()]
        for tensor in (*module.parameters(), *module.buffers()):
            for path, start, file_bytes in starts:
                if start <= tensor.data_ptr() < start + file_bytes and tensor.is_contiguous():
                    offset, size = tensor.data_ptr() - start, tensor.nbytes
                    span = StoredTensor(path, offset, size, "U8", (size,))
                    setattr(tensor, _SPAN, (span, tensor.data_ptr()))


#: An attribute of a parameter: its bytes in a file, and where that is mapped.
_SPAN = "_mapped_from"


def file_span(tensor: torch.Tensor) -> StoredTensor | None:
    """The bytes of the file that a parameter is mapped from; None once it holds anything else."""
    span, address = getattr(tensor, _SPAN, (None, None))
    return span if address == tensor.data_ptr() else None


def read_into(tensor: StoredTensor, buffer: torch.Tensor, *, first: int = 0) -> None:
    """Read ``buffer.nbytes`` bytes of a tensor from its byte ``first`` on into ``buffer`` (n,) uint8.

    Raises:
        OSError: the file cannot be read, or has become shorter.
    """
    with tensor.path.open("rb", buffering=0) as file:
        file.seek(tensor.offset + first)
        view, done = buffer.numpy().data, 0
        while done < len(view):
            count = file.readinto(view[done:])
            if not count:
                raise OSError(f"{tensor.path} ends before its byte {tensor.offset + first + len(view)}")
            done += count


def read_each(parts: Iterable[tuple[StoredTensor, torch.Tensor]]) -> None:
    """``read_into`` of each, in slices that many threads read at once.

    Raises:
        OSError: as ``read_into``.
    """
    slices = (
        (tensor, buffer[first : first + _SLICE_BYTES], first)
        for tensor, buffer in parts
        for first in range(0, buffer.nbytes, _SLICE_BYTES)
    )
    with ThreadPoolExecutor(READERS, "weight-reader") as threads:
        for _ in threads.map(lambda each: read_into(each[0], each[1], first=each[2]), slices):
            pass


def whole(tensor: StoredTensor) -> torch.Tensor:
    """A tensor of a type that torch has, float32, in its shape."""
    rows = [rows for _, rows in rows_of(tensor)]
    return torch.cat(rows).view(tensor.shape) if rows else torch.empty(tensor.shape)


def rows_of(tensor: StoredTensor) -> Iterator[tuple[int, torch.Tensor]]:
    """The rows (n, elements of a row) float32 of a tensor of a type that torch has, some at a time.

    A row is what the first dimension counts; each comes with the number of the first in it.
    """
    rows = tensor.shape[0] if tensor.shape else 1
    if rows == 0:
        return
    dtype, row_elements = TORCH_TYPES[tensor.type], math.prod(tensor.shape[1:])
    at_once = max(1, CHUNK_ELEMENTS // max(1, row_elements))
    for first in range(0, rows, at_once):
        count = min(at_once, rows - first)
        buffer = torch.empty(count * row_elements * dtype.itemsize, dtype=torch.uint8)
        read_into(tensor, buffer, first=first * row_elements * dtype.itemsize)
        yield first, buffer.view(dtype).view(count, row_elements).float()
