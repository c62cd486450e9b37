"""The networks of tiny_wan as a browser runs them: one graph each, of whole clips of any size.

The same functions as the stock classes', in products, sums and convolutions: a runtime for browsers has no
kernels of its own for attention, writes to every other number, or norms over channels.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanRMS_norm
from torch import nn

from models.tiny_wan.recipe import whole_clip


class TextEncoder(nn.Module):
    """Token ids and which of them count, (1, T) int64 each, to (1, T, D): zeros beyond the prompt's end."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states * mask[..., None]


class Transformer(nn.Module):
    """Latents, mask and condition (1, C, L, h, w), timestep (1,), text (1, T, D) to (1, C', L, h, w)."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        transformer.set_attn_processor(PlainAttention())
        self.transformer = transformer

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.transformer(latents, timestep, text, return_dict=False)[0]
        return made


class PlainAttention:
    """Attention of WanTransformer3DModel in products and a softmax, without a write to every other number."""

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """(1, N, D) to (1, N, D), over itself or over ``encoder_hidden_states`` (1, T, D). No masks."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(context))
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, attn.to_v(context)))
        if rotary_emb is not None:
            query, key = _turned(query, *rotary_emb), _turned(key, *rotary_emb)
        scores = (query * query.shape[-1] ** -0.5).transpose(1, 2) @ key.permute(0, 2, 3, 1)
        attended = torch.softmax(scores, dim=-1) @ value.transpose(1, 2)
        return attn.to_out[0](attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(1, N, heads, d): its pairs of numbers turned by their places."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2)


class _Autoencoder(nn.Module):
    """Takes over an AutoencoderKLWan."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        whole_clip.prepare(vae)
        for module in vae.modules():
            if isinstance(module, WanRMS_norm) and module.channel_first:
                module.forward = MethodType(_normalised, module)
        self.vae = vae
        for name in ("mean", "std"):
            numbers = torch.tensor(vae.config[f"latents_{name}"]).view(1, -1, 1, 1, 1)
            self.register_buffer(name, numbers, persistent=False)


class Encoder(_Autoencoder):
    """A clip (1, 3, F, H, W) in [-1, 1] to its latents (1, C, L, h, w) of unit variance."""

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return (whole_clip.encode(self.vae, clip)[0] - self.mean) / self.std


class Decoder(_Autoencoder):
    """Latents (1, C, L, h, w) to a clip (1, 3, F, H, W) about [-1, 1]."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return whole_clip.decode(self.vae, latents * self.std + self.mean)


def _normalised(norm: Any, x: torch.Tensor) -> torch.Tensor:
    length = x.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)
    return x / length * (norm.gamma * norm.scale) + norm.bias  # type: ignore[no-any-return]
