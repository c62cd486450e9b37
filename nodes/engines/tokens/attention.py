"""The attention of video transformers, in place of the stock processors."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

from nodes.engines.tokens.pointwise import Pointwise


class TurnedAttention:
    """The attention of video transformers that norm queries and keys, and turn them by their places.

    A processor of diffusers' attention layers, in place of the stock ones.
    """

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __init__(self, pointwise: Pointwise) -> None:
        self.pointwise = pointwise

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(1, N, D) to (1, N, D), over itself or over ``encoder_hidden_states`` (1, L, D). No masks.

        ``rotary``: as ``Pointwise.turned`` takes it.
        """
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = self.pointwise.turned(attn.norm_q, attn.to_q(hidden_states), rotary)
        key = self.pointwise.turned(attn.norm_k, attn.to_k(context), rotary)
        value = attn.to_v(context)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        attended = dispatch_attention_fn(query, key, value, backend=self._attention_backend)
        del query, key, value
        return attn.to_out[0](attended.flatten(2, 3))  # type: ignore[no-any-return]
