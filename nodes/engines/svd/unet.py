"""UNetSpatioTemporalConditionModel with less in flight: the same sums, a slice of rows at a time.

The stock forward holds about 25 tensors as large as a level's activations; here it is six, for every sum goes
where its first part was, a skip is joined slice by slice and is gone when it is used, and what a layer makes
on its way (a feed-forward layer 16 times its input) is there for one slice. Slices are as large as a card
needs to be busy, whatever the window. Cross-attention to a picture's one embedding is the same for every
token: it gives that embedding's value, so that queries, keys and their norm are not computed and not kept.

tests/nodes/engines/svd/test_stock.py holds the two equal, test_live_bytes.py the bytes to the spec.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nodes.engines.common import (
    ATTENTION,
    RESNET,
    SlicedResnet,
    add_by_row,
    add_by_token,
    by_frame,
    moments_over_frames,
    sliced,
    slices,
)


class _OneTokenAttention(nn.Module):
    """Attention to one token, whatever asks: its value. Takes over the layers that make it."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.to_v, self.to_out = attention.to_v, attention.to_out[0]

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        """(B, 1, D) to (B, 1, C)."""
        return self.to_out(self.to_v(context))  # type: ignore[no-any-return]


class _SpatialBlock(nn.Module):
    """BasicTransformerBlock over the tokens of each frame, in place. Takes over its layers."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn1, self.norm3, self.ff = block.norm1, block.attn1, block.norm3, block.ff
        self.attn2 = _OneTokenAttention(block.attn2)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> None:
        """(B x F, T, C) and the picture's embedding (B, 1, D)."""
        add_by_row(self.attn1, self.norm1, x)
        x.view(len(context), -1, x.shape[-1]).add_(self.attn2(context))
        add_by_token(self.ff, self.norm3, x)


class _TemporalBlock(nn.Module):
    """TemporalBasicTransformerBlock over the frames of each place. Takes over its layers."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm_in, self.ff_in = block.norm_in, block.ff_in
        self.norm1, self.attn1, self.norm3, self.ff = block.norm1, block.attn1, block.norm3, block.ff
        self.attn2 = _OneTokenAttention(block.attn2)

    def forward(self, y: torch.Tensor, context: torch.Tensor) -> None:
        """(B x T, F, C) and the picture's embedding (B, 1, D), in place."""
        add_by_token(self.ff_in, self.norm_in, y)
        add_by_row(self.attn1, self.norm1, y)
        y.view(len(context), -1, y.shape[-1]).add_(self.attn2(context))
        add_by_token(self.ff, self.norm3, y)


class _Transformer(nn.Module):
    """TransformerSpatioTemporalModel, in place. Takes over its layers."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = stock.norm, stock.proj_in, stock.proj_out
        self.time_proj, self.time_pos_embed = stock.time_proj, stock.time_pos_embed
        self.time_mixer = stock.time_mixer
        self.spatial = nn.ModuleList(map(_SpatialBlock, stock.transformer_blocks))
        self.temporal = nn.ModuleList(map(_TemporalBlock, stock.temporal_transformer_blocks))

    def forward(self, hidden: torch.Tensor, context: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(B x F, C, h, w) and the picture's embedding (B, 1, D)."""
        size = hidden.shape[2:]
        x = sliced(
            lambda piece: self.proj_in(self.norm(hidden[piece]).flatten(2).transpose(1, 2)),
            len(hidden),
            hidden[0].numel(),
            ATTENTION,
        )
        places = self.time_proj(torch.arange(num_frames, device=hidden.device)).to(hidden.dtype)
        places = self.time_pos_embed(places)[:, None]
        mix = 1 - torch.sigmoid(self.time_mixer.mix_factor.float()).to(hidden.dtype)
        for spatial, temporal in zip(self.spatial, self.temporal, strict=True):
            spatial(x, context)
            frames = x.view(len(context), num_frames, *x.shape[1:])
            turned = _turned(frames, places)
            temporal(turned.view(-1, num_frames, x.shape[-1]), context)
            for piece in slices(x.shape[1], frames[:, :, 0].numel(), ATTENTION):
                frames[:, :, piece].lerp_(turned[:, piece].transpose(1, 2), mix)
            del turned
        for piece in slices(len(x), x[0].numel(), ATTENTION):
            hidden[piece] += self.proj_out(x[piece]).transpose(1, 2).unflatten(2, size)
        return hidden


def _turned(frames: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(B, F, T, C) with the frames' places (F, 1, C) added, as (B, T, F, C)."""
    batch, num_frames, tokens, channels = frames.shape
    out = frames.new_empty((batch, tokens, num_frames, channels))
    for piece in slices(tokens, frames[:, :, 0].numel(), ATTENTION):
        out[:, piece] = (frames[:, :, piece] + places).transpose(1, 2)
    return out


class _TemporalResnet(nn.Module):
    """TemporalResnetBlock and its mixer, in place: convolutions over time act on every place alone, and norms
    between them need of the others their mean and variance. Takes over its layers."""

    def __init__(self, resnet: Any, mixer: Any) -> None:
        super().__init__()
        self.norm1, self.conv1, self.time_emb_proj = resnet.norm1, resnet.conv1, resnet.time_emb_proj
        self.norm2, self.conv2 = resnet.norm2, resnet.conv2
        self.mixer = mixer

    def forward(self, hidden: torch.Tensor, emb: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(B x F, C, h, w) and the embedding of the step (B, E)."""
        x = hidden.view(len(emb), num_frames, hidden.shape[1], -1)
        made = torch.empty_like(x)
        step = self.time_emb_proj(functional.silu(emb))[:, :, None, None, None]
        pieces = list(slices(x.shape[-1], x[..., 0].numel(), RESNET))
        moments = moments_over_frames(self.norm1, x)
        for piece in pieces:
            after = self.conv1(_activated(x[..., piece], moments)) + step
            made[..., piece] = after[..., 0].transpose(1, 2)
            del after
        moments = moments_over_frames(self.norm2, made)
        mix = 1 - torch.sigmoid(self.mixer.mix_factor.float()).to(hidden.dtype)
        for piece in pieces:
            after = self.conv2(_activated(made[..., piece], moments))
            before = x[..., piece]
            before.lerp_(before + after[..., 0].transpose(1, 2), mix)
            del after
        return hidden


def _activated(x: torch.Tensor, moments: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Places of (B, F, C, P), normed and activated, as a convolution over time has them: (B, C, F, P, 1)."""
    scale, shift = moments
    normed = (x * scale).add_(shift).to(x.dtype)
    return functional.silu(normed, inplace=True).transpose(1, 2)[..., None].contiguous()


class _Level(nn.Module):
    """Resnets, their transformers where there are any, and what leads to the next level."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.spatial = nn.ModuleList(SlicedResnet(each.spatial_res_block) for each in stock.resnets)
        self.temporal = nn.ModuleList(
            _TemporalResnet(each.temporal_res_block, each.time_mixer) for each in stock.resnets
        )
        self.transformers = nn.ModuleList(map(_Transformer, getattr(stock, "attentions", ())))
        self.samplers = nn.ModuleList(
            getattr(stock, "downsamplers", None) or getattr(stock, "upsamplers", None) or ()
        )


class SlicedUNet(nn.Module):
    """The UNet. Takes over the stock model's layers, whose temporal convolutions are folded."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.conv_in, self.conv_norm_out, self.conv_out = stock.conv_in, stock.conv_norm_out, stock.conv_out
        self.time_proj, self.time_embedding = stock.time_proj, stock.time_embedding
        self.add_time_proj, self.add_embedding = stock.add_time_proj, stock.add_embedding
        self.down: Any = nn.ModuleList(map(_Level, stock.down_blocks))
        self.middle: Any = _Level(stock.mid_block)
        self.up: Any = nn.ModuleList(map(_Level, stock.up_blocks))

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        added_time_ids: torch.Tensor,
    ) -> torch.Tensor:
        """The prediction (B, F, C', h, w) float32.

        Args:
            sample: (B, F, C, h, w): latents, joined by channel with those of the picture.
            timestep: () float32.
            context: (B, 1, D): the picture's embedding.
            added_time_ids: (B, K): rate, motion and noise that the model is told.
        """
        batch, num_frames = sample.shape[:2]
        emb = self._embedded(timestep, added_time_ids, sample.dtype)
        hidden = by_frame(self.conv_in, sample.flatten(0, 1))
        skips = [hidden]
        for level in self.down:
            for i in range(len(level.spatial)):
                hidden = level.spatial[i](hidden, None, emb)
                hidden = self._over_time(level, i, hidden, emb, context, num_frames)
                skips.append(hidden)
            for sampler in level.samplers:
                hidden = by_frame(sampler, hidden)
                skips.append(hidden)
        hidden = self.middle.spatial[0](hidden, None, emb)
        hidden = self._over_time(self.middle, 0, hidden, emb, context, num_frames)
        for i in range(1, len(self.middle.spatial)):
            hidden = self.middle.spatial[i](hidden, None, emb)
            hidden = self.middle.temporal[i](hidden, emb, num_frames)
        for level in self.up:
            for i in range(len(level.spatial)):
                hidden = level.spatial[i](hidden, skips.pop(), emb)
                hidden = self._over_time(level, i, hidden, emb, context, num_frames)
            for sampler in level.samplers:
                hidden = by_frame(sampler, hidden, grows=4)
        made = by_frame(lambda x: self.conv_out(functional.silu(self.conv_norm_out(x))), hidden)
        return made.view(batch, num_frames, *made.shape[1:]).float()

    def _embedded(
        self, timestep: torch.Tensor, added_time_ids: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        """(B, E)."""
        batch = len(added_time_ids)
        step = self.time_embedding(self.time_proj(timestep.expand(batch)).to(dtype))
        told = self.add_time_proj(added_time_ids.flatten()).view(batch, -1).to(dtype)
        embedded: torch.Tensor = step + self.add_embedding(told)
        return embedded

    def _over_time(
        self,
        level: Any,
        i: int,
        hidden: torch.Tensor,
        emb: torch.Tensor,
        context: torch.Tensor,
        num_frames: int,
    ) -> torch.Tensor:
        """What follows a level's resnet of the frames, in place."""
        hidden = level.temporal[i](hidden, emb, num_frames)
        if len(level.transformers):
            hidden = level.transformers[i](hidden, context, num_frames)
        return hidden
