"""What a video transformer computes between its large layers: norms, modulation, rotation, gated sums.

Tokens that are given have another noise level than those that are made, so the stock forwards make the
modulation of every token: tensors as wide as the activations. There are two or three levels, in runs of
tokens: each run is scaled, shifted and gated by its level's row. The sums are the same, and in float32.

Each function is one kernel where it is compiled, and reads and writes a token once; else what float32 takes
is limited by the tokens that are worked on at once. Layers are called outside of them and weights are their
arguments: one compilation serves every block of every model of these shapes, and whatever streams or converts
the weights of layers does not meet the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Run:
    """Tokens ``[start, stop)`` have the noise level of that row."""

    start: int
    stop: int
    row: int


def runs_of(levels: Sequence[float], tokens_per_latent: int) -> tuple[list[float], list[Run]]:
    """The distinct levels of latents in a row, and the runs of their tokens that share one."""
    distinct = sorted(set(levels))
    runs: list[Run] = []
    for i, level in enumerate(levels):
        start, stop, row = i * tokens_per_latent, (i + 1) * tokens_per_latent, distinct.index(level)
        if runs and runs[-1].row == row:
            runs[-1] = Run(runs[-1].start, stop, row)
        else:
            runs.append(Run(start, stop, row))
    return distinct, runs


@dataclass
class Pointwise:
    """The functions, as one model runs them. Tensors of tokens are (1, N, D), rows of levels (K, D).

    Args:
        tokens_at_once: Tokens of which float32 copies are made at once, where nothing is compiled.
        compiled: Each function is compiled when it is first called with a new kind of arguments.
    """

    tokens_at_once: int
    compiled: bool = False
    _rows: tuple[Sequence[Run], torch.Tensor] | None = field(default=None, init=False)

    def normed(self, norm: Any, x: torch.Tensor) -> torch.Tensor:
        """Over the channels."""
        if self.compiled:
            return _compiled(_normed)(x, *_of(norm))
        made = torch.empty_like(x)
        for piece in self._pieces(0, x.shape[1]):
            made[:, piece] = _norm(x[:, piece].float(), *_of(norm))
        return made

    def modulated(
        self, norm: Any, x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, runs: Sequence[Run]
    ) -> torch.Tensor:
        """Normed over the channels, scaled and shifted."""
        if self.compiled:
            return _compiled(_modulated)(x, *_of(norm), shift, scale, self._row_of_token(runs, x.device))
        made, scale = torch.empty_like(x), (1 + scale).float()
        weight, bias, eps, centred = _of(norm)
        for run in runs:
            for piece in self._pieces(run.start, run.stop):
                some = x[:, piece].float()
                if weight is None and bias is None:  # the norm scales by itself what it has in hand
                    normed = _norm(some, scale[run.row], None, eps, centred)
                else:
                    normed = _norm(some, weight, bias, eps, centred).mul_(scale[run.row])
                torch.add(normed, shift[run.row], out=made[:, piece])
        return made

    def add_gated(
        self, x: torch.Tensor, added: torch.Tensor, gate: torch.Tensor, runs: Sequence[Run]
    ) -> torch.Tensor:
        """``x`` with the gated rest added to it in place."""
        if self.compiled:
            return _compiled(_add_gated)(x, added, gate, self._row_of_token(runs, x.device))
        for run in runs:  # in float32, and no float32 copy is made
            some = x[:, run.start : run.stop]
            torch.addcmul(some, added[:, run.start : run.stop], gate[run.row].float(), out=some)
        return x

    def turned(self, norm: Any, x: torch.Tensor, rotary: torch.Tensor | None) -> torch.Tensor:
        """Queries or keys, normed over the channels; pairs of channels are turned.

        ``rotary`` (N, P) complex64: by what P pairs of channels, and every P further ones, are multiplied.
        """
        if self.compiled:
            if rotary is None:
                return _compiled(_normed)(x, *_of(norm))
            return _compiled(_turned)(x, *_of(norm), torch.view_as_real(rotary))
        for piece in self._pieces(0, x.shape[1]):
            normed = norm(x[:, piece])
            if rotary is not None:
                pairs = torch.view_as_complex(torch.unflatten(normed.float(), 2, (-1, rotary.shape[1], 2)))
                normed = torch.view_as_real(pairs.mul_(rotary[piece, None])).flatten(2)
            x[:, piece] = normed
        return x

    def _row_of_token(self, runs: Sequence[Run], device: torch.device) -> torch.Tensor:
        """(N,); of one forward, all layers ask for the same."""
        if self._rows is None or self._rows[0] is not runs or self._rows[1].device != device:
            rows = torch.tensor([run.row for run in runs]).repeat_interleave(
                torch.tensor([run.stop - run.start for run in runs])
            )
            self._rows = runs, rows.to(device)
        return self._rows[1]

    def _pieces(self, start: int, stop: int) -> Iterator[slice]:
        for first in range(start, stop, self.tokens_at_once):
            yield slice(first, min(first + self.tokens_at_once, stop))


def _of(norm: Any) -> tuple[torch.Tensor | None, torch.Tensor | None, float, bool]:
    """Its weight and bias, what keeps it from dividing by zero, and whether it takes off the mean."""
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    return weight, bias, norm.eps, isinstance(norm, nn.LayerNorm)


def _norm(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float, centred: bool
) -> torch.Tensor:
    """(1, N, D) float32."""
    weight = None if weight is None else weight.float()
    if centred:
        bias = None if bias is None else bias.float()
        return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return functional.rms_norm(x, x.shape[-1:], weight, eps)


def _normed(x: torch.Tensor, weight: Any, bias: Any, eps: float, centred: bool) -> torch.Tensor:
    return _norm(x.float(), weight, bias, eps, centred).to(x.dtype)


def _modulated(
    x: torch.Tensor,
    weight: Any,
    bias: Any,
    eps: float,
    centred: bool,
    shift: torch.Tensor,
    scale: torch.Tensor,
    rows: torch.Tensor,
) -> torch.Tensor:
    return (_norm(x.float(), weight, bias, eps, centred) * (1 + scale[rows]) + shift[rows]).to(x.dtype)


def _add_gated(x: torch.Tensor, added: torch.Tensor, gate: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return x.copy_(x.float() + added.float() * gate[rows])


def _turned(
    x: torch.Tensor, weight: Any, bias: Any, eps: float, centred: bool, rotary: torch.Tensor
) -> torch.Tensor:
    normed = _norm(x.float(), weight, bias, eps, centred)
    pairs = torch.unflatten(normed, 2, (-1, rotary.shape[1], 2))
    real, imaginary = pairs.unbind(-1)
    cos, sin = rotary[:, None].unbind(-1)
    return (
        torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], -1).flatten(2).to(x.dtype)
    )


_COMPILED: dict[Callable[..., torch.Tensor], Callable[..., torch.Tensor]] = {}


def _compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    if function not in _COMPILED:
        _COMPILED[function] = torch.compile(function, fullgraph=True)
    return _COMPILED[function]
