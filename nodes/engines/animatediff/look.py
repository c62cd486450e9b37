"""IP-Adapter: references that a window is to look like, as tokens beside those of its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import ImageProjection
from torch import nn
from torch.nn import functional
from transformers import CLIPImageProcessor

from farm.errors import InvalidInput
from nodes.engines.animatediff.layout import BEHIND_ENCODER, IN_ATTENTION
from nodes.engines.folders import file_tensors
from nodes.engines.weights import whole


class LookEncoder(nn.Module):
    """A CLIP image encoder and what projects its pictures to tokens."""

    def __init__(self, vision: Any, projection: nn.Module) -> None:
        super().__init__()
        self.vision, self.projection = vision, projection

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Prepared pixels (1, 3, S, S) to tokens (1, 2, T, D): of no picture, and of this one."""
        if isinstance(self.projection, ImageProjection):
            seen = self.vision(pixels).image_embeds
            nothing = torch.zeros_like(seen)
        else:  # as the adapters called "plus" were trained
            nothing, seen = (
                self.vision(each, output_hidden_states=True).hidden_states[-2]
                for each in (torch.zeros_like(pixels), pixels)
            )
        return torch.cat([self.projection(nothing), self.projection(seen)])[None]


class LookAttention(nn.Module):
    """Attention to a prompt, and beside it to the tokens of references. Takes over its layers."""

    def __init__(self, attention: Any, to_k: nn.Module, to_v: nn.Module, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = attention.heads, scale
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.to_out = attention.to_out[0]
        self.to_k_look, self.to_v_look = to_k, to_v

    def forward(self, hidden: torch.Tensor, text: torch.Tensor, look: torch.Tensor | None) -> torch.Tensor:
        """(N, T, C), prompts (N, L, D) and tokens of references (N, K, D), None: the prompt alone."""
        query = self._by_head(self.to_q(hidden))
        out = self._attended(query, self.to_k(text), self.to_v(text))
        if look is not None:
            out += self.scale * self._attended(query, self.to_k_look(look), self.to_v_look(look))
        return self.to_out(out)  # type: ignore[no-any-return]

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _attended(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        by_head = functional.scaled_dot_product_attention(query, self._by_head(key), self._by_head(value))
        return by_head.transpose(1, 2).flatten(2)


def read_look(file: Path, unet: Any, vision: Any, *, dtype: torch.dtype, scale: float) -> LookEncoder:
    """Read an IP-Adapter: put ``look``, a ``LookAttention``, beside each attention of the U-Net that sees
    prompts, and give what encodes references. Before attention kernels are chosen; inside ``reading()``.

    Raises:
        CannotRun: the file is damaged.
        InvalidInput: it was made for another U-Net or another image encoder.
    """
    tensors = {name: whole(tensor).to(dtype) for name, tensor in file_tensors(file).items()}
    in_attention, behind = _under(tensors, IN_ATTENTION), _under(tensors, BEHIND_ENCODER)
    state = {"ip_adapter": in_attention, "image_proj": behind}
    try:
        processors = unet._convert_ip_adapter_attn_to_diffusers([state])
        projection = unet._convert_ip_adapter_image_proj_to_diffusers(behind)
        lacking = [name for name, tensor in projection.state_dict().items() if tensor.is_meta]
        if lacking:
            raise ValueError(f"it lacks {lacking[0]}")
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInput(
            f"{file} does not fit this model ({reason}): give an IP-Adapter for Stable Diffusion 1.5",
            param="model",
        ) from error
    for name, processor in processors.items():
        if hasattr(processor, "to_k_ip"):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            attention.look = LookAttention(attention, processor.to_k_ip[0], processor.to_v_ip[0], scale)
    return LookEncoder(vision, projection.to(dtype)).eval().requires_grad_(False)


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): tensor for n, tensor in tensors.items() if n.startswith(prefix)}


def image_processor(vision: Any) -> CLIPImageProcessor:
    """What makes a picture of any size what the encoder sees: its middle, in the encoder's size."""
    side = int(vision.config.image_size)
    return CLIPImageProcessor(size=side, crop_size=side)
