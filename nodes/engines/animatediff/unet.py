"""UNetMotionModel and SparseControlNetModel in slices and in place: the same sums, less in flight.

What a SparseCtrl adds to a skip takes the skip's place: skips are not kept beside it. It starts from zeros in
place of the noisy latents, so that its first convolution is its bias.

tests/nodes/engines/animatediff/test_stock.py holds them equal to the stock models.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from nodes.engines.common import (
    ATTENTION,
    SlicedResnet,
    add_by_row,
    add_by_token,
    by_frame,
    moments_over_frames,
    sliced,
    slices,
)


class Words(NamedTuple):
    """What every row is told: prompts (B x F, L, D), and references (B x F, K, D) where there are some."""

    text: torch.Tensor
    look: torch.Tensor | None = None


class _TextBlock(nn.Module):
    """BasicTransformerBlock over the tokens of each frame, which see a prompt. Takes over its layers."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn1 = block.norm1, block.attn1
        self.norm2 = block.norm2
        self.look: Any = getattr(block.attn2, "look", None)
        self.attn2: Any = block.attn2 if self.look is None else None
        self.norm3, self.ff = block.norm3, block.ff

    def forward(self, x: torch.Tensor, words: Words) -> None:
        """(B x F, T, C), in place."""
        add_by_row(self.attn1, self.norm1, x)
        text, look = words
        for piece in slices(len(x), x[0].numel(), ATTENTION):
            seen = None if look is None else look[piece]
            x[piece] += self._of_words(self.norm2(x[piece]), text[piece], seen)
        add_by_token(self.ff, self.norm3, x)

    def _of_words(self, normed: torch.Tensor, text: torch.Tensor, look: torch.Tensor | None) -> torch.Tensor:
        if self.attn2 is None:
            return self.look(normed, text, look)  # type: ignore[no-any-return]
        return self.attn2(normed, encoder_hidden_states=text)  # type: ignore[no-any-return]


class _Spatial(nn.Module):
    """Transformer2DModel, in place. Takes over its layers."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = stock.norm, stock.proj_in, stock.proj_out
        self.blocks = nn.ModuleList(map(_TextBlock, stock.transformer_blocks))

    def forward(self, hidden: torch.Tensor, words: Words) -> torch.Tensor:
        """(B x F, C, h, w)."""
        channels, height, width = hidden.shape[1:]
        by_token = not isinstance(self.proj_in, nn.Conv2d)

        def entered(piece: slice) -> torch.Tensor:
            normed = self.norm(hidden[piece])
            if by_token:
                return self.proj_in(normed.flatten(2).transpose(1, 2))  # type: ignore[no-any-return]
            return self.proj_in(normed).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

        x = sliced(entered, len(hidden), hidden[0].numel(), ATTENTION)
        for block in self.blocks:
            block(x, words)
        for piece in slices(len(x), x[0].numel(), ATTENTION):
            if by_token:
                made = self.proj_out(x[piece]).transpose(1, 2).reshape(-1, channels, height, width)
            else:
                made = self.proj_out(x[piece].transpose(1, 2).reshape(-1, x.shape[2], height, width))
            hidden[piece] += made
        return hidden


class _MotionBlock(nn.Module):
    """BasicTransformerBlock over the frames of each place. Takes over its layers."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn1 = block.norm1, block.attn1
        self.norm2, self.attn2 = block.norm2, block.attn2
        self.norm3, self.ff = block.norm3, block.ff
        self.pos_embed = block.pos_embed or nn.Identity()

    def forward(self, y: torch.Tensor) -> None:
        """(B x P, F, C), in place."""
        add_by_row(self.attn1, lambda x: self.pos_embed(self.norm1(x)), y)
        if self.attn2 is not None:
            add_by_row(self.attn2, lambda x: self.pos_embed(self.norm2(x)), y)
        add_by_token(self.ff, self.norm3, y)


class _Motion(nn.Module):
    """AnimateDiffTransformer3D, in place. Takes over its layers."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = stock.norm, stock.proj_in, stock.proj_out
        self.blocks = nn.ModuleList(map(_MotionBlock, stock.transformer_blocks))

    def forward(self, hidden: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(B x F, C, h, w)."""
        x = hidden.view(-1, num_frames, hidden.shape[1], hidden[0, 0].numel())
        scale, shift = moments_over_frames(self.norm, x)
        y: torch.Tensor | None = None
        pieces = list(slices(x.shape[-1], x[..., 0].numel(), ATTENTION))
        for piece in pieces:
            normed = (x[..., piece] * scale).add_(shift).to(x.dtype)
            made = self.proj_in(normed.permute(0, 3, 1, 2))
            if y is None:
                y = made.new_empty((len(x), x.shape[-1], *made.shape[2:]))
            y[:, piece] = made
            del normed, made
        assert y is not None
        for block in self.blocks:
            block(y.view(-1, *y.shape[2:]))
        for piece in pieces:
            x[..., piece] += self.proj_out(y[:, piece]).permute(0, 2, 3, 1)
        return hidden


class _Level(nn.Module):
    """Resnets with what follows each of them, and what leads to the next level."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(map(SlicedResnet, stock.resnets))
        self.attentions = nn.ModuleList(map(_Spatial, getattr(stock, "attentions", None) or ()))
        self.motions = nn.ModuleList(map(_Motion, getattr(stock, "motion_modules", None) or ()))
        self.samplers = nn.ModuleList(
            getattr(stock, "downsamplers", None) or getattr(stock, "upsamplers", None) or ()
        )

    def layers(self) -> Iterator[tuple[Any, Any, Any]]:
        """Each resnet, its attention and its motion, or None."""
        return zip_longest(self.resnets, self.attentions, self.motions)


class _Encoder(nn.Module):
    """The way down and the middle of a U-Net. Takes over its layers."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.time_proj, self.time_embedding = stock.time_proj, stock.time_embedding
        self.down: Any = nn.ModuleList(map(_Level, stock.down_blocks))
        self.middle: Any = _Level(stock.mid_block)

    def embedded(self, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The step for every row of the prompts (B, L, D): (B, E)."""
        step = self.time_proj(timestep.expand(len(text))).to(text.dtype)
        return self.time_embedding(step)  # type: ignore[no-any-return]

    def states(
        self, hidden: torch.Tensor, emb: torch.Tensor, words: Words, num_frames: int
    ) -> Iterator[torch.Tensor]:
        """Every state (B x F, C, h, w) on the way down, which is a skip, and last what leaves the middle.

        The next one is made from it: it may be kept, not changed.
        """
        yield hidden
        for level in self.down:
            for layer in level.layers():
                hidden = _through(layer, hidden, None, emb, words, num_frames)
                yield hidden
            for sampler in level.samplers:
                hidden = by_frame(sampler, hidden)
                yield hidden
        first, *others = self.middle.resnets
        hidden = first(hidden, None, emb)
        for attention, motion, resnet in zip_longest(self.middle.attentions, self.middle.motions, others):
            hidden = attention(hidden, words)
            if motion is not None:
                hidden = motion(hidden, num_frames)
            hidden = resnet(hidden, None, emb)
        yield hidden


def _through(
    layer: tuple[Any, Any, Any],
    hidden: torch.Tensor,
    skip: torch.Tensor | None,
    emb: torch.Tensor,
    words: Words,
    num_frames: int,
) -> torch.Tensor:
    resnet, attention, motion = layer
    hidden = resnet(hidden, skip, emb)
    if attention is not None:
        hidden = attention(hidden, words)
    return hidden if motion is None else motion(hidden, num_frames)


class SlicedControl(_Encoder):
    """A SparseCtrl: what given frames add to the skips. Takes over the stock model's layers."""

    def __init__(self, stock: Any) -> None:
        super().__init__(stock)
        #: Of zeros it makes its bias.
        self.conv_in = stock.conv_in
        self.embedding = stock.controlnet_cond_embedding
        self.out: Any = nn.ModuleList([*stock.controlnet_down_blocks, stock.controlnet_mid_block])

    def forward(
        self, timestep: torch.Tensor, text: torch.Tensor, words: Words, given: torch.Tensor
    ) -> list[torch.Tensor]:
        """One tensor for every skip, and one for the middle.

        Args:
            timestep: ().
            text: (B, L, D): prompts.
            words: The same for every frame.
            given: (F, C + 1, h, w): latents of frames that are given, with ones behind them; else zeros.
        """
        emb = self.embedded(timestep, text)
        nothing = given.new_zeros(1, self.conv_in.in_channels, *given.shape[2:])
        started = by_frame(self.embedding, given) + self.conv_in(nothing)
        hidden = started.repeat(len(text), 1, 1, 1)
        states = self.states(hidden, emb, words, len(given))
        return [by_frame(out, state) for out, state in zip(self.out, states, strict=True)]


class SlicedMotionUNet(_Encoder):
    """The U-Net with its motion modules. Takes over the stock model's layers."""

    def __init__(self, stock: Any) -> None:
        super().__init__(stock)
        self.conv_in, self.conv_norm_out, self.conv_out = stock.conv_in, stock.conv_norm_out, stock.conv_out
        self.up: Any = nn.ModuleList(map(_Level, stock.up_blocks))

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        words: Words,
        added: list[torch.Tensor] | None,
    ) -> torch.Tensor:
        """The prediction (B, F, C, h, w) float32.

        Args:
            sample: (F, C, h, w): latents.
            timestep: ().
            text: (B, L, D): prompts.
            words: The same for every frame.
            added: What a SparseCtrl adds to the skips and the middle, used up; None: nothing.
        """
        emb = self.embedded(timestep, text)
        num_frames = len(sample)
        hidden = by_frame(self.conv_in, sample).repeat(len(text), 1, 1, 1)
        skips: list[torch.Tensor] = []
        for i, state in enumerate(self.states(hidden, emb, words, num_frames)):
            skips.append(state if added is None else added[i].add_(state))
        del state
        hidden = skips.pop()
        for level in self.up:
            for layer in level.layers():
                hidden = _through(layer, hidden, skips.pop(), emb, words, num_frames)
            for sampler in level.samplers:
                hidden = by_frame(sampler, hidden, grows=4)
        made = by_frame(lambda x: self.conv_out(functional.silu(self.conv_norm_out(x))), hidden)
        return made.view(len(text), num_frames, *made.shape[1:]).float()


class Denoiser(nn.Module):
    """The U-Net, with what given frames add to it where there is a SparseCtrl."""

    def __init__(self, unet: Any, control: Any | None) -> None:
        super().__init__()
        self.unet = SlicedMotionUNet(unet)
        self.control = None if control is None else SlicedControl(control)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        given: torch.Tensor | None,
        look: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Latents (F, C, h, w), prompts (B, L, D), given latents (F, C + 1, h, w) and tokens of references
        (B, K, D) to (B, F, C, h, w)."""
        frames = len(sample)
        by_row = None if look is None else look.repeat_interleave(frames, dim=0)
        words = Words(text.repeat_interleave(frames, dim=0), by_row)
        added = None
        if self.control is not None and given is not None:
            added = self.control(timestep, text, words, given)
        return self.unet(sample, timestep, text, words, added)  # type: ignore[no-any-return]
