"""LTXVideoTransformer3DModel with one modulation for each distinct noise level, not for each token.

Tokens of frames that are given have another noise level than the others, so the stock forward makes the
modulation of every token: seven tensors as wide as the activations, six of them alive through every layer.
A window has two or three levels, in runs of tokens; a run is scaled and shifted in place by its level's row.
The sums are the same. Rotary tables are kept at half their width, and turn in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_ltx import LTXVideoAttnProcessor
from torch import nn

from nodes.engines.common import InPieces

#: Tokens that are normed and turned at once.
_TOKENS_AT_ONCE = 1024


@dataclass(frozen=True)
class Run:
    """Tokens ``[start, stop)`` have the noise level of that row."""

    start: int
    stop: int
    row: int


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


class TurnedInPieces(LTXVideoAttnProcessor):
    """The stock attention, its queries and keys normed and turned in place."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> torch.Tensor:
        """(1, N, D) to (1, N, D), over itself or over ``encoder_hidden_states`` (1, L, D). No masks.

        ``image_rotary_emb``: from ``rotary_table``, or None.
        """
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = _normed(attn.norm_q, attn.to_q(hidden_states), image_rotary_emb)
        key = _normed(attn.norm_k, attn.to_k(context), image_rotary_emb)
        value = attn.to_v(context)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        attended = dispatch_attention_fn(query, key, value, backend=self._attention_backend)
        del query, key, value
        return attn.to_out[0](attended.flatten(2, 3))  # type: ignore[no-any-return]


def _normed(norm: Any, x: torch.Tensor, rotary: torch.Tensor | None) -> torch.Tensor:
    """(1, N, D) normed and its pairs of channels turned by their angles, in place and in pieces: both compute
    in float32."""
    for start in range(0, x.shape[1], _TOKENS_AT_ONCE):
        piece = slice(start, start + _TOKENS_AT_ONCE)
        normed = norm(x[:, piece])
        if rotary is not None:
            pairs = torch.view_as_complex(torch.unflatten(normed.float(), 2, (-1, 2)))
            normed = torch.view_as_real(pairs * rotary[piece]).flatten(2)
        x[:, piece] = normed
    return x


class RunwiseBlock(nn.Module):
    """LTXVideoTransformerBlock over runs of tokens. Takes over its layers."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attn1, self.attn2 = block.attn1, block.attn2
        self.ff = InPieces(block.ff, share=1.0, by_token=True)
        self.scale_shift_table = block.scale_shift_table

    def forward(
        self,
        hidden: torch.Tensor,
        text: torch.Tensor,
        levels: torch.Tensor,
        runs: Sequence[Run],
        rotary: torch.Tensor,
    ) -> torch.Tensor:
        """(1, N, D) to (1, N, D). ``levels`` (K, 6, D): of each noise level, before this block's table."""
        rows = self.scale_shift_table + levels
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = rows.unbind(dim=1)
        attended = self.attn1(
            _modulate(self.norm1(hidden), shift_msa, scale_msa, runs), image_rotary_emb=rotary
        )
        hidden = hidden.add_(_gate(attended, gate_msa, runs))
        del attended
        hidden = hidden.add_(self.attn2(hidden, encoder_hidden_states=text))
        made = self.ff(_modulate(self.norm2(hidden), shift_mlp, scale_mlp, runs))
        return hidden.add_(_gate(made, gate_mlp, runs))


class RunwiseTransformer(nn.Module):
    """The transformer over runs of tokens, one batch row. Takes over the stock model's layers."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        stock.set_attn_processor(TurnedInPieces())  # type: ignore[no-untyped-call]
        for i, block in enumerate(stock.transformer_blocks):
            stock.transformer_blocks[i] = RunwiseBlock(block)
        self.stock = stock

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
        return stock.proj_out(_modulate(stock.norm_out(hidden), shift, scale, runs))  # type: ignore[no-any-return]


def _modulate(
    hidden: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, runs: Sequence[Run]
) -> torch.Tensor:
    """(1, N, D) scaled and shifted in place, each run by its row of (K, D)."""
    for run in runs:
        hidden[:, run.start : run.stop].mul_(1 + scale[run.row]).add_(shift[run.row])
    return hidden


def _gate(hidden: torch.Tensor, gate: torch.Tensor, runs: Sequence[Run]) -> torch.Tensor:
    for run in runs:
        hidden[:, run.start : run.stop].mul_(gate[run.row])
    return hidden
