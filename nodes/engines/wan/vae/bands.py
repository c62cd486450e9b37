"""The up-sampling levels of Wan's VAE decoder over a band of rows, a latent at a time: the same sums.

All that a band's pixels depend on is rows around it (each 3 x 3 x 3 convolution reaches one further) and what
was kept of earlier frames, two for each convolution. So each layer is told which rows are wanted of it and
asks for those it needs; a clip is decoded band after band, each from its first latent to its last, and what
is kept is kept of one band alone. Within it a convolution runs in pieces of rows: its normed input exists for
one piece, and residual sums are added in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nodes.engines.common import padded_conv3d

#: Of a convolution's padded input, which exists for so many rows at once.
_PIECE_BYTES = 64 * 2**20

Rows = tuple[int, int]
"""From the first to behind the last."""


@dataclass(frozen=True)
class Band:
    """Some rows, ``x`` (1, C, n, rows, W), from row ``top`` on, of a level that has ``height`` of them."""

    x: torch.Tensor
    top: int
    height: int

    def rows(self, rows: Rows) -> torch.Tensor:
        """A view of some of them."""
        return self.x[:, :, :, rows[0] - self.top : rows[1] - self.top]

    def part(self, rows: Rows) -> Band:
        return Band(self.rows(rows), rows[0], self.height)

    def grown(self, rows: Rows) -> Rows:
        """With a row more to each side, where there is one."""
        return max(0, rows[0] - 1), min(self.height, rows[1] + 1)

    def empty(self, rows: Rows, channels: int) -> Band:
        _, _, frames, _, width = self.x.shape
        return Band(_empty(self.x, channels, frames, rows[1] - rows[0], width), rows[0], self.height)


def _empty(like: torch.Tensor, channels: int, frames: int, rows: int, width: int) -> torch.Tensor:
    """(1, channels, frames, rows, width), its channels side by side where those of ``like`` are."""
    if like.stride(1) == 1:
        return like.new_empty(1, frames, rows, width, channels).permute(0, 4, 1, 2, 3)
    return like.new_empty(1, channels, frames, rows, width)


def _in_pieces(rows: Rows, row_bytes: int) -> Iterator[Rows]:
    count = max(1, _PIECE_BYTES // row_bytes)
    for first in range(*rows, count):
        yield first, min(first + count, rows[1])


def _normed(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """WanRMS_norm of half precision without float32 copies: what it divides by is float32 alone. Not ``x``
    itself: it may be changed."""
    if x.dtype == torch.float32:
        return norm(x)  # type: ignore[no-any-return]
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).clamp_(min=1e-12)
    made = torch.mul(x, norm.scale / length, out=torch.empty_like(x)).mul_(norm.gamma)
    return made.add_(norm.bias) if isinstance(norm.bias, torch.Tensor) else made


def _between_zeros(padded: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Rows ``[first, last)`` of (1, C, n, rows, W); the others become zeros."""
    padded[:, :, :, :first].zero_()
    padded[:, :, :, last:].zero_()
    return padded[:, :, :, first:last]


class _Convolution:
    """A causal convolution behind a norm and the decoder's non-linearity."""

    def __init__(self, layer: Any, norm: Any, nonlinearity: Any) -> None:
        assert isinstance(nonlinearity, nn.SiLU)  # of every published decoder
        self._layer, self._norm = layer, norm
        self._kept: Band | None = None

    @property
    def out_channels(self) -> int:
        return int(self._layer.out_channels)

    def pieces(self, band: Band, rows: Rows) -> Iterator[tuple[Rows, torch.Tensor]]:
        """The wanted rows (1, C, n, rows, W), some at a time."""
        _, channels, frames, _, width = band.x.shape
        needed = band.grown(rows)
        if self._kept is None:  # for good: what lives long at places of its own leaves no holes
            zeros = _empty(band.x, channels, 2, needed[1] - needed[0], width).zero_()
            self._kept = Band(zeros, needed[0], band.height)
        kept, to_keep = self._kept, needed[0]
        row_bytes = channels * (frames + 2) * width * band.x.element_size()
        for first, last in _in_pieces(rows, row_bytes):
            seen = band.grown((first, last))
            padded = _empty(band.x, channels, frames + 2, last - first + 2, width)
            within = _between_zeros(padded, seen[0] - first + 1, seen[1] - first + 1)
            within[:, :, :2] = kept.rows(seen)
            torch.ops.aten.silu.out(_normed(self._norm, band.rows(seen)), out=within[:, :, 2:])
            # The next piece sees the last two rows as they were.
            done = last - 1 if last < rows[1] else needed[1]
            kept.rows((to_keep, done)).copy_(within[:, :, frames:, to_keep - seen[0] : done - seen[0]])
            to_keep = done
            made = padded_conv3d(self._layer, padded, (0, 0, 1))
            del padded, within
            yield (first, last), made
            del made


class _Resnet:
    def __init__(self, block: Any) -> None:
        self._shortcut = block.conv_shortcut
        self._first = _Convolution(block.conv1, block.norm1, block.nonlinearity)
        self._second = _Convolution(block.conv2, block.norm2, block.nonlinearity)

    def needed(self, band: Band, rows: Rows) -> Rows:
        return band.grown(band.grown(rows))

    def __call__(self, band: Band, rows: Rows, *, in_place: bool) -> Band:
        made = band.empty(band.grown(rows), self._first.out_channels)
        for some, piece in self._first.pieces(band, band.grown(rows)):
            made.rows(some).copy_(piece)
            del piece
        channels = self._second.out_channels
        if in_place and channels <= band.x.shape[1]:
            out = Band(band.rows(rows)[:, :channels], rows[0], band.height)
        else:
            out = band.empty(rows, channels)
        for some, piece in self._second.pieces(made, rows):
            torch.add(piece, self._shortcut(band.rows(some)), out=out.rows(some))
            del piece
        return out


class _Upsampler:
    """Twice the rows and columns, and in some levels twice the frames, but for the clip's first."""

    def __init__(self, layer: Any) -> None:
        self._time = getattr(layer, "time_conv", None)
        self._layer = layer.resample[1]
        self._kept: torch.Tensor | None = None

    def needed(self, band: Band, rows: Rows) -> Rows:
        first, last = max(0, rows[0] - 1), min(2 * band.height, rows[1] + 1)
        return first // 2, -(-last // 2)

    def __call__(self, band: Band, rows: Rows, beside: Callable[[Rows], torch.Tensor] | None) -> Band:
        """``beside``: what is added to some rows of it."""
        x = band.part(self.needed(band, rows))
        x = Band(self._doubled(x.x), x.top, x.height)
        _, channels, frames, _, width = x.x.shape
        size = (rows[1] - rows[0], 2 * width)
        out = Band(_empty(x.x, self._layer.out_channels, frames, *size), rows[0], 2 * x.height)
        row_bytes = channels * frames * 2 * width * x.x.element_size()
        for first, last in _in_pieces(rows, row_bytes):
            seen = out.grown((first, last))
            coarse = x.rows((seen[0] // 2, -(-seen[1] // 2)))
            padded = _empty(x.x, channels, frames, last - first + 2, 2 * width)
            within = _between_zeros(padded, seen[0] - first + 1, seen[1] - first + 1)
            for across in (0, 1):
                for down in (0, 1):
                    place, first_row = within[:, :, :, down::2, across::2], down * (seen[0] % 2)
                    place.copy_(coarse[:, :, :, first_row : first_row + place.shape[3]])
            frame_rows = padded[0].transpose(0, 1)
            made = functional.conv2d(frame_rows, self._layer.weight, self._layer.bias, padding=(0, 1))
            del padded, within, frame_rows
            some = out.rows((first, last))
            some.copy_(made.transpose(0, 1)[None])
            del made
            if beside is not None:
                some += beside((first, last))
        return out

    def _doubled(self, x: torch.Tensor) -> torch.Tensor:
        if self._time is None:
            return x
        if self._kept is None:  # the clip's first latent is one frame
            self._kept = _empty(x, x.shape[1], 2, *x.shape[3:]).zero_()
            return x
        x = torch.cat([self._kept, x], dim=2)
        self._kept.copy_(x[:, :, -2:])
        pairs = self._time._conv_forward(x, self._time.weight, self._time.bias)
        doubled = _empty(pairs, pairs.shape[1] // 2, 2 * pairs.shape[2], *pairs.shape[3:])
        for which, half in enumerate(pairs.chunk(2, dim=1)):
            doubled[:, :, which::2] = half
        return doubled


class _Level:
    def __init__(self, block: Any, *, keeps_input: bool) -> None:
        upsampler = getattr(block, "upsampler", None) or (getattr(block, "upsamplers", None) or (None,))[0]
        self._resnets = [_Resnet(resnet) for resnet in block.resnets]
        self._upsampler = None if upsampler is None else _Upsampler(upsampler)
        self._shortcut = getattr(block, "avg_shortcut", None)
        self._keeps_input = keeps_input or self._shortcut is not None

    @property
    def factor(self) -> int:
        return 1 if self._upsampler is None else 2

    def needed(self, like: Band, rows: Rows) -> list[Rows]:
        """Of the input and behind each resnet."""
        wanted = [rows if self._upsampler is None else self._upsampler.needed(like, rows)]
        for resnet in reversed(self._resnets):
            wanted.insert(0, resnet.needed(like, wanted[0]))
        return wanted

    def __call__(self, band: Band, rows: Rows, *, first: bool) -> Band:
        entered = band if self._shortcut is not None else None
        for number, wanted in enumerate(self.needed(band, rows)[1:]):
            band = self._resnets[number](band, wanted, in_place=number > 0 or not self._keeps_input)
        if self._upsampler is None:
            return band
        if entered is None:
            return self._upsampler(band, rows, None)

        def beside(some: Rows) -> torch.Tensor:
            coarse = entered.rows((some[0] // 2, -(-some[1] // 2)))
            shown = self._shortcut(coarse, first_chunk=first)  # type: ignore[misc]
            start = some[0] % 2
            return shown[:, :, :, start : start + some[1] - some[0]]  # type: ignore[no-any-return]

        return self._upsampler(band, rows, beside)


class BandDecoder:
    """One band of a clip's frames, from what the decoder's middle makes of its latents.

    Args:
        decoder: Of an AutoencoderKLWan.
        rows: Wanted of the last level, which has as many as a frame has patches.
    """

    def __init__(self, decoder: Any, rows: Rows) -> None:
        self._levels = [_Level(block, keeps_input=i == 0) for i, block in enumerate(decoder.up_blocks)]
        self._head = _Convolution(decoder.conv_out, decoder.norm_out, decoder.nonlinearity)
        self._rows = rows

    def __call__(self, middle: torch.Tensor, *, first: bool) -> torch.Tensor:
        """(1, C, 1, h, w) of one latent, all its rows, to the band's rows (1, C', n, rows, W).

        ``first``: it is the clip's first, which is one frame.
        """
        sizes = [Band(middle, 0, middle.shape[3])]
        for level in self._levels:
            sizes.append(Band(middle, 0, sizes[-1].height * level.factor))
        wanted = [sizes[-1].grown(self._rows)]
        for level, like in zip(reversed(self._levels), reversed(sizes[:-1]), strict=True):
            wanted.insert(0, level.needed(like, wanted[0])[0])
        band = sizes[0].part(wanted[0])
        del middle, sizes
        for level, rows in zip(self._levels, wanted[1:], strict=True):
            band = level(band, rows, first=first)
        return torch.cat([piece for _, piece in self._head.pieces(band, self._rows)], dim=3)
