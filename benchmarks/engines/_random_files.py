"""Safetensors files of random tensors, written as fast as memory or disk takes them."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

_SHARD_BYTES = 3 * 2**30
_POOL_ELEMENTS = 2**26
_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int8: "I8", torch.float8_e4m3fn: "F8_E4M3"}

Tensors = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


def tensor_bytes(tensor: tuple[tuple[int, ...], torch.dtype]) -> int:
    return math.prod(tensor[0]) * tensor[1].itemsize


def in_shards(tensors: Tensors) -> Iterator[dict[str, tuple[tuple[int, ...], torch.dtype]]]:
    shard: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for name, tensor in tensors.items():
        if shard and sum(map(tensor_bytes, shard.values())) + tensor_bytes(tensor) > _SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


class Pool:
    """Bytes of random tensors, by their type."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        plain = torch.randn(_POOL_ELEMENTS, generator=generator) * 0.02
        whole = torch.randint(-96, 96, (_POOL_ELEMENTS,), generator=generator, dtype=torch.int8)
        self._pools = {
            torch.float32: plain,
            torch.bfloat16: plain.bfloat16(),
            torch.int8: whole,
            # Any bits but those of NaN.
            torch.float8_e4m3fn: whole.abs().view(torch.float8_e4m3fn),
        }

    def pieces(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[memoryview]:
        count = math.prod(shape)
        leaf = name.rpartition(".")[2]
        if leaf in ("gamma", "latents_std") or (leaf == "weight" and len(shape) == 1) or leaf == "scale":
            value = 4e-4 if leaf == "scale" else 1.0
            yield torch.full((count,), value, dtype=dtype).view(torch.uint8).numpy().data
            return
        pool = self._pools[dtype].view(torch.uint8).numpy().data
        start = zlib.crc32(name.encode()) % (_POOL_ELEMENTS // 2) // 64 * 64
        while count:
            taken = min(count, _POOL_ELEMENTS - start)
            yield pool[start * dtype.itemsize : (start + taken) * dtype.itemsize]
            count, start = count - taken, 0


def write_safetensors(path: Path, tensors: Tensors, pool: Pool, *, hollow: bool = False) -> None:
    """One file with random tensors. ``hollow``: of its header and size alone."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    ordered = sorted(tensors.items(), key=lambda item: -item[1][1].itemsize)  # aligned
    for name, (shape, dtype) in ordered:
        size = tensor_bytes((shape, dtype))
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (end, end + size)}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if hollow:
            file.truncate(8 + len(text) + end)
            return
        for name, (shape, dtype) in ordered:
            for piece in pool.pieces(name, shape, dtype):
                done = 0
                while done < len(piece):
                    done += file.write(piece[done : done + 2**30])
