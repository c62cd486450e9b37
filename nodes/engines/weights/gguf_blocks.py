"""GGUF's block formats dequantised on the device that computes, with the values of ``gguf.dequantize``.

A weight stays the bytes of its file. Blocks of 32 or 256 values have a scale in float16, the larger ones with
scales of their own for each 16 or 32 values (https://github.com/ggml-org/ggml, ggml-quants.c).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from nodes.engines.weights.layers import QuantisedLinear

#: Values that are dequantised at once: some bytes of temporaries for each.
_CHUNK_ELEMENTS = 2**24

#: Of blocks (n, bytes): whole numbers (n, groups, values), and of each group what they are multiplied by and
#: what is then taken off, (n, groups, 1) float32.
_Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def dequantised(stored: torch.Tensor, type: str, *, dtype: torch.dtype) -> torch.Tensor:
    """The values of a GGUF tensor, computed in float32 and rounded once.

    Args:
        stored: (rows, bytes of a row) uint8.
        type: GGML's name of the block format, one of ``BLOCKS``.
        dtype: Of the result.

    Returns:
        (rows, values of a row) in ``dtype``.
    """
    block_bytes, block_values, parts_of = BLOCKS[type]
    rows, row_bytes = stored.shape
    row_values = row_bytes // block_bytes * block_values
    out = torch.empty((rows, row_values), dtype=dtype, device=stored.device)
    at_once = max(1, _CHUNK_ELEMENTS // row_values)
    for first in range(0, rows, at_once):
        values, scale, minus = parts_of(stored[first : first + at_once].reshape(-1, block_bytes))
        place = out[first : first + at_once].view(values.shape)
        if minus is None:
            torch.mul(values, scale, out=place)
        else:
            torch.sub(values * scale, minus, out=place)
    return out


class GgufLinear(QuantisedLinear):
    """A linear layer whose weight is the blocks of a GGUF file.

    Args:
        stored: (out, bytes of a row) uint8.
        type: GGML's name of the block format, one of ``BLOCKS``.
    """

    def __init__(
        self, stored: torch.Tensor, bias: torch.Tensor | None, *, type: str, dtype: torch.dtype
    ) -> None:
        block_bytes, block_values, _ = BLOCKS[type]
        in_features = stored.shape[1] // block_bytes * block_values
        super().__init__(in_features, stored.shape[0], stored, bias, dtype=dtype)
        self.block_type = type

    def dequantised(self, dtype: torch.dtype) -> torch.Tensor:
        return dequantised(self.stored, self.block_type, dtype=dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, type={self.block_type}"


def row_bytes(type: str, shape: tuple[int, ...]) -> int | None:
    """Bytes of a row of a tensor in a block format; None where blocks do not end with its rows."""
    block_bytes, block_values, _ = BLOCKS[type]
    return None if shape[-1] % block_values else shape[-1] // block_values * block_bytes


def _halves(blocks: torch.Tensor, first: int, count: int = 1) -> torch.Tensor:
    """``count`` float16 numbers from byte ``first`` of every block, (n, count, 1) float32."""
    return blocks[:, first : first + 2 * count].contiguous().view(torch.float16).float().unsqueeze(-1)


def _nibbles(low_and_high: torch.Tensor) -> torch.Tensor:
    """(n, groups, bytes) to (n, 2 x groups, bytes): of each byte the low four bits, then the high."""
    n, groups, size = low_and_high.shape
    return torch.stack((low_and_high & 15, low_and_high >> 4), dim=2).view(n, 2 * groups, size)


def _bits(data: torch.Tensor, width: int) -> torch.Tensor:
    """(n, groups, bytes) to (n, groups, 8 // width, bytes): of each byte its numbers of ``width`` bits."""
    shifts = torch.arange(0, 8, width, device=data.device, dtype=torch.uint8).view(1, 1, -1, 1)
    return (data.unsqueeze(2) >> shifts).bitwise_and_(2**width - 1)


def _fifth_bits(blocks: torch.Tensor, first: int) -> torch.Tensor:
    """The bits of four bytes from ``first`` on, each as the fifth bit of a value: (n, 1, 32)."""
    by_byte = _bits(blocks[:, first : first + 4].unsqueeze(1), 1)  # (n, 1, 8, 4)
    return by_byte.transpose(2, 3).reshape(-1, 1, 32) << 4


def _q4_0(blocks: torch.Tensor) -> _Parts:
    values = _nibbles(blocks[:, None, 2:]).view(torch.int8).view(-1, 1, 32) - 8
    return values, _halves(blocks, 0), None


def _q4_1(blocks: torch.Tensor) -> _Parts:
    values = _nibbles(blocks[:, None, 4:]).view(-1, 1, 32)
    return values, _halves(blocks, 0), -_halves(blocks, 2)


def _q5_0(blocks: torch.Tensor) -> _Parts:
    values = _nibbles(blocks[:, None, 6:]).view(-1, 1, 32) | _fifth_bits(blocks, 2)
    return values.view(torch.int8) - 16, _halves(blocks, 0), None


def _q5_1(blocks: torch.Tensor) -> _Parts:
    values = _nibbles(blocks[:, None, 8:]).view(-1, 1, 32) | _fifth_bits(blocks, 4)
    return values, _halves(blocks, 0), -_halves(blocks, 2)


def _q8_0(blocks: torch.Tensor) -> _Parts:
    return blocks[:, None, 2:].view(torch.int8), _halves(blocks, 0), None


def _q2_k(blocks: torch.Tensor) -> _Parts:
    scales, d, dmin = blocks[:, :16, None], _halves(blocks, 80), _halves(blocks, 82)
    values = _bits(blocks[:, 16:80].reshape(-1, 2, 32), 2).view(-1, 16, 16)
    return values, d * (scales & 15), dmin * (scales >> 4)


def _q3_k(blocks: torch.Tensor) -> _Parts:
    high = _bits(blocks[:, None, :32], 1).view(-1, 16, 16)
    low = _bits(blocks[:, 32:96].reshape(-1, 2, 32), 2).view(-1, 16, 16)
    low_scales = _nibbles(blocks[:, None, 96:104]).view(-1, 16, 1)
    high_scales = _bits(blocks[:, None, 104:108], 2).view(-1, 16, 1)
    scales = (low_scales | high_scales << 4).view(torch.int8) - 32
    values = (low | high << 2).view(torch.int8) - 4
    return values, _halves(blocks, 108) * scales, None


def _scales_of_k(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight scales and eight minima of six bits, packed into twelve bytes: (n, 12) to twice (n, 8, 1)."""
    d, m, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat((d & 63, rest & 15 | (d >> 2) & 48), dim=1)
    minima = torch.cat((m & 63, rest >> 4 | (m >> 2) & 48), dim=1)
    return scales.unsqueeze(-1), minima.unsqueeze(-1)


def _q4_k(blocks: torch.Tensor) -> _Parts:
    scales, minima = _scales_of_k(blocks[:, 4:16])
    values = _nibbles(blocks[:, 16:].reshape(-1, 4, 32))
    return values, _halves(blocks, 0) * scales, _halves(blocks, 2) * minima


def _q5_k(blocks: torch.Tensor) -> _Parts:
    scales, minima = _scales_of_k(blocks[:, 4:16])
    high = _bits(blocks[:, None, 16:48], 1).view(-1, 8, 32)
    values = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)) | high << 4
    return values, _halves(blocks, 0) * scales, _halves(blocks, 2) * minima


def _q6_k(blocks: torch.Tensor) -> _Parts:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).view(-1, 16, 16)
    high = _bits(blocks[:, 128:192].reshape(-1, 2, 32), 2).view(-1, 16, 16)
    scales = blocks[:, 192:208, None].view(torch.int8)
    return (low | high << 4).view(torch.int8) - 32, _halves(blocks, 208) * scales, None


#: Block formats by GGML's name: bytes and values of a block, and how it is taken apart.
BLOCKS: dict[str, tuple[int, int, Callable[[torch.Tensor], _Parts]]] = {
    "Q4_0": (18, 32, _q4_0),
    "Q4_1": (20, 32, _q4_1),
    "Q5_0": (22, 32, _q5_0),
    "Q5_1": (24, 32, _q5_1),
    "Q8_0": (34, 32, _q8_0),
    "Q2_K": (84, 256, _q2_k),
    "Q3_K": (110, 256, _q3_k),
    "Q4_K": (144, 256, _q4_k),
    "Q5_K": (176, 256, _q5_k),
    "Q6_K": (210, 256, _q6_k),
}
