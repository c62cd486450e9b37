"""Exact changes to a loaded I2VGenXLUNet: the same numbers in less memory, or where it would fail."""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import TemporalConvLayer
from torch import nn

from farm.errors import CannotRun

Attentions = Literal["sdpa", "xformers"]

#: CUDA grids end at 65,535 rows: temporal attention has batch x height x width (in latents) of them.
MAX_ATTENTION_ROWS = 65_535


class FoldedTemporalConv(nn.Conv2d):
    """A Conv3d of kernel (3, 1, 1) as a Conv2d over (frames, pixels): the same sums.

    cuDNN has no half-precision 3-d path in some releases (PyTorch issue 166643), where the 3-d form needs up
    to 17 times the memory; the 2-d form has one everywhere.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, (3, 1), padding=(1, 0), device="meta")
        self.weight = nn.Parameter(conv.weight.detach()[..., 0], requires_grad=False)
        bias = conv.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, C, F, h, w) to (B, C', F, h, w)."""
        batch, channels, frames, height, width = hidden_states.shape
        folded = super().forward(hidden_states.reshape(batch, channels, frames, height * width))
        return folded.reshape(batch, -1, frames, height, width)


def fold_temporal_convs(unet: Any) -> None:
    """Replace every (3, 1, 1) Conv3d of the UNet's temporal layers by its folded form, in place."""
    for layer in unet.modules():
        if isinstance(layer, TemporalConvLayer):
            for block in (layer.conv1, layer.conv2, layer.conv3, layer.conv4):
                if isinstance(block[-1], nn.Conv3d):
                    block[-1] = FoldedTemporalConv(block[-1])


class FeedForwardInPieces(nn.Module):
    """A feed-forward layer applied to ``pieces`` slices of its tokens, one after the other.

    The layer acts on each token alone, so slicing changes no number; the wide inner activation (16 times
    the input with GEGLU) exists for one slice at a time.
    """

    def __init__(self, whole: FeedForward) -> None:
        super().__init__()
        self.whole = whole
        self.pieces = 1

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.pieces == 1:
            return self.whole(hidden_states)  # type: ignore[no-any-return]
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        out = torch.empty_like(tokens)
        size = -(-tokens.shape[0] // self.pieces)
        for piece, into in zip(torch.split(tokens, size), torch.split(out, size), strict=True):
            into.copy_(self.whole(piece))
        return out.reshape(hidden_states.shape)


def wrap_feed_forwards(unet: Any) -> None:
    """Put every feed-forward layer of the UNet in a ``FeedForwardInPieces`` (of one piece), in place."""
    for parent in list(unet.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FeedForward) and not isinstance(parent, FeedForwardInPieces):
                setattr(parent, name, FeedForwardInPieces(child))


def set_feed_forward_pieces(unet: Any, pieces: int) -> None:
    """Set how many pieces the wrapped feed-forward layers run in."""
    for module in unet.modules():
        if isinstance(module, FeedForwardInPieces):
            module.pieces = pieces


class AttentionInRows:
    """An attention processor that calls another one on at most ``max_rows`` batch rows at a time."""

    def __init__(self, inner: Any, max_rows: int = MAX_ATTENTION_ROWS) -> None:
        self.inner = inner
        self.max_rows = max_rows

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if hidden_states.shape[0] <= self.max_rows or attention_mask is not None:  # this UNet has no masks
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask)  # type: ignore[no-any-return]
        rows = torch.split(hidden_states, self.max_rows)
        contexts = (
            [None] * len(rows)
            if encoder_hidden_states is None
            else torch.split(encoder_hidden_states, self.max_rows)
        )
        return torch.cat([self.inner(attn, r, c) for r, c in zip(rows, contexts, strict=True)])


def set_attention(unet: Any, attention: Attentions, *, max_rows: int = MAX_ATTENTION_ROWS) -> None:
    """Choose the attention kernels and guard their row limit.

    Raises:
        CannotRun: xformers was asked for and is missing, or its kernels do not load beside this PyTorch.
    """
    if attention == "xformers":
        try:
            unet.enable_xformers_memory_efficient_attention()
        except (ImportError, NotImplementedError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CannotRun(
                f"attention is 'xformers', but its kernels cannot be used here ({reason}): "
                "install the xformers built for this PyTorch and CUDA, or use attention='sdpa'",
                param="attention",
            ) from None
    unet.set_attn_processor(
        {name: AttentionInRows(inner, max_rows) for name, inner in unet.attn_processors.items()}
    )
