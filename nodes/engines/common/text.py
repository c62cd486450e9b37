"""Prompts as data: what the arrays of an encoded prompt are called, and encoders without their tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

#: Of ``RenderInputs.text``.
PROMPT, NEGATIVE = "prompt_embeds", "negative_embeds"


class EncodedText(nn.Module):
    """The layers of a T5 without its table of tokens, of which only the rows of a prompt are ever needed."""

    def __init__(self, stack: nn.Module) -> None:
        super().__init__()
        stack.register_module("embed_tokens", None)
        self.stack = stack

    def forward(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(1, L, D) rows of the table and (1, L) which count, None: all; to (1, L, D)."""
        encoded: Any = self.stack(inputs_embeds=inputs_embeds, attention_mask=attention_mask)
        return encoded.last_hidden_state  # type: ignore[no-any-return]
