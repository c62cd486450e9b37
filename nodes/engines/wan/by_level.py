"""WanTransformer3DModel with one modulation for each noise level of a window, not for each of its tokens.

What is between the large layers is ``Pointwise``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nodes.engines.tokens import Pointwise, Run, TurnedAttention

#: Tokens that float32 copies are made of at once.
TOKENS_AT_ONCE = 4096


class ByLevel(nn.Module):
    """The transformer over runs of tokens, one batch row. Takes over the stock model's layers."""

    def __init__(self, stock: Any, pointwise: Pointwise) -> None:
        super().__init__()
        for i, block in enumerate(stock.blocks):
            stock.blocks[i] = _Block(block, pointwise)
        stock.set_attn_processor(TurnedAttention(pointwise))
        self.stock = stock
        self.pointwise = pointwise

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
        cos, sin = stock.rope(hidden_states)
        rotary = torch.complex(cos[0, :, 0, 0::2].float(), sin[0, :, 0, 1::2].float())
        del cos, sin
        hidden = stock.patch_embedding(hidden_states)
        grid = hidden.shape[2:]
        hidden = hidden.flatten(2).transpose(1, 2).contiguous()
        embedded, levels, text, _ = stock.condition_embedder(timestep, encoder_hidden_states)
        levels = levels.unflatten(1, (6, -1)).float()
        for block in stock.blocks:
            hidden = block(hidden, text, levels, runs, rotary)
        shift, scale = (stock.scale_shift_table + embedded[:, None]).unbind(dim=1)
        made = stock.proj_out(self.pointwise.modulated(stock.norm_out, hidden, shift, scale, runs))
        patch = stock.config.patch_size
        made = made.view(1, *grid, *patch, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return (made.flatten(6, 7).flatten(4, 5).flatten(2, 3),)


class _Block(nn.Module):
    """WanTransformerBlock over runs of tokens. Takes over its layers."""

    def __init__(self, block: Any, pointwise: Pointwise) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.attn1, self.attn2, self.ffn = block.attn1, block.attn2, block.ffn
        self.scale_shift_table = block.scale_shift_table
        self.pointwise = pointwise

    def forward(
        self,
        hidden: torch.Tensor,
        text: torch.Tensor,
        levels: torch.Tensor,
        runs: Sequence[Run],
        rotary: torch.Tensor,
    ) -> torch.Tensor:
        """(1, N, D) in place. ``levels`` (K, 6, D): of each noise level, before this block's table."""
        rows = self.scale_shift_table + levels
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = rows.unbind(dim=1)
        attended = self.attn1(
            self.pointwise.modulated(self.norm1, hidden, shift, scale, runs), None, None, rotary
        )
        hidden = self.pointwise.add_gated(hidden, attended, gate, runs)
        del attended
        hidden += self.attn2(self._before_text(hidden), text, None, None)
        made = self.ffn(self.pointwise.modulated(self.norm3, hidden, ffn_shift, ffn_scale, runs))
        return self.pointwise.add_gated(hidden, made, ffn_gate, runs)

    def _before_text(self, hidden: torch.Tensor) -> torch.Tensor:
        if isinstance(self.norm2, nn.Identity):
            return hidden
        return self.pointwise.normed(self.norm2, hidden)
