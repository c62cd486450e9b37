"""WanTransformer3DModel with one modulation for each noise level of a window, not for each of its tokens.

Latents that are given have another noise level than those that are made, so the stock forward makes six
float32 tensors as wide as the activations for every token. There are two levels, in runs of tokens: each run
is scaled and shifted by its level's row, some tokens at a time. The sums are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

#: Tokens that are normed, scaled and shifted at once: what float32 takes beside the activations.
_TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class Run:
    """Tokens ``[start, stop)`` have the noise level of that row."""

    start: int
    stop: int
    row: int


def runs_of(rows: Sequence[int], tokens_per_latent: int) -> list[Run]:
    """The runs of a window whose latents have the levels ``rows``."""
    return [Run(i * tokens_per_latent, (i + 1) * tokens_per_latent, row) for i, row in enumerate(rows)]


class ByLevel(nn.Module):
    """The transformer over runs of tokens, one batch row. Takes over the stock model's layers."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        for i, block in enumerate(stock.blocks):
            stock.blocks[i] = _Block(block)
        self.stock = stock

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *,
        runs: Sequence[Run],
    ) -> tuple[torch.Tensor]:
        """(1, C, L, h, w) and the text (1, T, D) to the velocity (1, C', L, h, w), alone in a tuple.

        Args:
            hidden_states: Latents, those that are given in their places.
            timestep: (K,): of each noise level.
            encoder_hidden_states: The prompt.
            runs: Which tokens have which level; all of them.
        """
        stock = self.stock
        rotary = stock.rope(hidden_states)
        hidden = stock.patch_embedding(hidden_states)
        grid = hidden.shape[2:]
        hidden = hidden.flatten(2).transpose(1, 2).contiguous()
        embedded, levels, text, _ = stock.condition_embedder(timestep, encoder_hidden_states)
        levels = levels.unflatten(1, (6, -1))
        for block in stock.blocks:
            hidden = block(hidden, text, levels, runs, rotary)
        shift, scale = (stock.scale_shift_table + embedded[:, None]).unbind(dim=1)
        made = stock.proj_out(_modulated(stock.norm_out, hidden, shift, scale, runs))
        patch = stock.config.patch_size
        made = made.view(1, *grid, *patch, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return (made.flatten(6, 7).flatten(4, 5).flatten(2, 3),)


class _Block(nn.Module):
    """WanTransformerBlock over runs of tokens. Takes over its layers."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.attn1, self.attn2, self.ffn = block.attn1, block.attn2, block.ffn
        self.scale_shift_table = block.scale_shift_table

    def forward(
        self,
        hidden: torch.Tensor,
        text: torch.Tensor,
        levels: torch.Tensor,
        runs: Sequence[Run],
        rotary: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """(1, N, D) in place. ``levels`` (K, 6, D): of each noise level, before this block's table."""
        rows = self.scale_shift_table + levels.float()
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = rows.unbind(dim=1)
        attended = self.attn1(_modulated(self.norm1, hidden, shift, scale, runs), None, None, rotary)
        _add_gated(hidden, attended, gate, runs)
        del attended
        normed = self.norm2(hidden.float()).type_as(hidden)
        hidden += self.attn2(normed, text, None, None)
        del normed
        _add_gated(
            hidden, self.ffn(_modulated(self.norm3, hidden, ffn_shift, ffn_scale, runs)), ffn_gate, runs
        )
        return hidden


def _pieces(runs: Sequence[Run]) -> Iterator[tuple[slice, int]]:
    for run in runs:
        for start in range(run.start, run.stop, _TOKENS_AT_ONCE):
            yield slice(start, min(start + _TOKENS_AT_ONCE, run.stop)), run.row


def _modulated(
    norm: nn.Module, hidden: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, runs: Sequence[Run]
) -> torch.Tensor:
    """(1, N, D) normed in float32, scaled and shifted by the rows (K, D) of its runs."""
    made = torch.empty_like(hidden)
    for piece, row in _pieces(runs):
        made[:, piece] = norm(hidden[:, piece].float()) * (1 + scale[row]) + shift[row]
    return made


def _add_gated(hidden: torch.Tensor, added: torch.Tensor, gate: torch.Tensor, runs: Sequence[Run]) -> None:
    """Add (1, N, D) times the rows (K, D) of its runs to ``hidden`` in place, in float32."""
    for piece, row in _pieces(runs):
        hidden[:, piece] = hidden[:, piece].float() + added[:, piece].float() * gate[row]
