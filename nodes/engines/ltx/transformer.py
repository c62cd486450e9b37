"""LTXVideoTransformer3DModel with one modulation for each distinct noise level, not for each token.

What is between the large layers is ``Pointwise``'s; rotary tables are kept at half their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nodes.engines.common import InPieces
from nodes.engines.tokens import Pointwise, Run, TurnedAttention

#: Tokens that float32 copies are made of at once.
TOKENS_AT_ONCE = 1792


def rotary_table(rope: Any, coordinates: torch.Tensor) -> torch.Tensor:
    """The rotary embedding of tokens at ``coordinates`` (3, N): seconds, and pixels down and across.

    (N, D / 2) complex64: by what each pair of channels, as a complex number, is to be multiplied.

    Args:
        rope: The transformer's LTXVideoRotaryPosEmbed.
        coordinates: float32, on the device.
    """
    bases = torch.tensor([rope.base_num_frames, rope.base_height, rope.base_width], device=coordinates.device)
    places = (coordinates / bases[:, None]).T
    exponents = torch.linspace(0.0, 1.0, rope.dim // 6, device=coordinates.device, dtype=torch.float32)
    frequencies = rope.theta**exponents * torch.pi / 2.0
    angles = (frequencies * (places[..., None] * 2 - 1)).transpose(-1, -2).flatten(1)
    unturned = rope.dim % 6 // 2
    angles = torch.cat([angles.new_zeros(angles.shape[0], unturned), angles], dim=1)
    return torch.complex(angles.cos(), angles.sin())


class RunwiseBlock(nn.Module):
    """LTXVideoTransformerBlock over runs of tokens. Takes over its layers."""

    def __init__(self, block: Any, pointwise: Pointwise) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attn1, self.attn2 = block.attn1, block.attn2
        self.ff = InPieces(block.ff, share=1.0, by_token=True)
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
        shift, scale, gate, ff_shift, ff_scale, ff_gate = rows.unbind(dim=1)
        attended = self.attn1(
            self.pointwise.modulated(self.norm1, hidden, shift, scale, runs), image_rotary_emb=rotary
        )
        hidden = self.pointwise.add_gated(hidden, attended, gate, runs)
        del attended
        hidden += self.attn2(hidden, encoder_hidden_states=text)
        made = self.ff(self.pointwise.modulated(self.norm2, hidden, ff_shift, ff_scale, runs))
        return self.pointwise.add_gated(hidden, made, ff_gate, runs)


class RunwiseTransformer(nn.Module):
    """The transformer over runs of tokens, one batch row. Takes over the stock model's layers."""

    def __init__(self, stock: Any, pointwise: Pointwise) -> None:
        super().__init__()
        stock.set_attn_processor(TurnedAttention(pointwise))
        for i, block in enumerate(stock.transformer_blocks):
            stock.transformer_blocks[i] = RunwiseBlock(block, pointwise)
        self.stock = stock
        self.pointwise = pointwise

    def forward(
        self,
        tokens: torch.Tensor,
        text: torch.Tensor,
        timesteps: torch.Tensor,
        runs: Sequence[Run],
        rotary: torch.Tensor,
    ) -> torch.Tensor:
        """Noise less picture of every token, (1, N, C).

        Args:
            tokens: (1, N, C), in the weights' precision.
            text: (1, L, T): embeddings of the prompt's own tokens, without padding.
            timesteps: (K,) float32: the distinct noise levels, times 1000.
            runs: Which tokens have which, all of them in order.
            rotary: Of the tokens' places (see ``rotary_table``).
        """
        stock = self.stock
        hidden = stock.proj_in(tokens)
        levels, embedded = stock.time_embed(timesteps, batch_size=1, hidden_dtype=hidden.dtype)
        levels = levels.unflatten(1, (6, -1))
        text = stock.caption_projection(text)
        for block in stock.transformer_blocks:
            hidden = block(hidden, text, levels, runs, rotary)
        shift, scale = (stock.scale_shift_table + embedded[:, None]).unbind(dim=1)
        made = self.pointwise.modulated(stock.norm_out, hidden, shift, scale, runs)
        return stock.proj_out(made)  # type: ignore[no-any-return]
