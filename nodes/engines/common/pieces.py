"""Running the layers whose temporaries fill a card slice by slice: the same numbers, less in flight.

Every layer wrapped here acts on each row of its input alone: a feed-forward layer on tokens, attention on
batch rows, a resnet and an up-sampler on frames. A slice's temporaries (queries, keys and values, the inner
GEGLU activation, the copies cuDNN makes of a convolution's input and output) are gone before the next
slice's come. A level of the UNet twice as wide holds half the bytes, so it runs in half the pieces, and the
narrow kernels of the deep levels are not split at all.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

#: CUDA grids end at 65,535 rows: temporal attention has batch x height x width (in latents) of them.
MAX_ATTENTION_ROWS = 65_535


class InPieces(nn.Module):
    """A layer applied to ``pieces`` slices of its rows, one after the other.

    Args:
        whole: The layer: it takes tensors (rows, ...) and gives one, row by row.
        share: Pieces of this layer for each piece asked of the model.
        by_token: Rows are tokens: all dimensions but the last are rows.
    """

    def __init__(self, whole: nn.Module, *, share: float, by_token: bool = False) -> None:
        super().__init__()
        self.whole = whole
        self.share = share
        self.by_token = by_token
        self.pieces = 1

    def forward(self, hidden_states: torch.Tensor, *others: Any) -> torch.Tensor:
        if self.pieces == 1:
            return self.whole(hidden_states, *others)  # type: ignore[no-any-return]
        if self.by_token:
            tokens = self._sliced(hidden_states.reshape(-1, hidden_states.shape[-1]), others)
            return tokens.reshape(*hidden_states.shape[:-1], tokens.shape[-1])
        return self._sliced(hidden_states, others)

    def _sliced(self, rows: torch.Tensor, others: tuple[Any, ...]) -> torch.Tensor:
        size = -(-rows.shape[0] // self.pieces)
        out: torch.Tensor | None = None
        for first in range(0, rows.shape[0], size):
            piece = slice(first, first + size)
            with_them = [o[piece] if isinstance(o, torch.Tensor) else o for o in others]
            made = self.whole(rows[piece], *with_them)
            if out is None:
                out = made.new_empty((rows.shape[0], *made.shape[1:]))
            out[piece] = made
            del made  # else it lives through the next slice
        assert out is not None
        return out


class AttentionInRows:
    """An attention processor that calls another one on slices of the batch rows.

    Args:
        inner: The processor of the kernels.
        max_rows: Rows of a launch at most.
        share: Pieces of this layer for each piece asked of the model.
    """

    def __init__(self, inner: Any, max_rows: int = MAX_ATTENTION_ROWS, *, share: float = 1.0) -> None:
        self.inner = inner
        self.max_rows = max_rows
        self.share = share
        self.pieces = 1

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        rows = hidden_states.shape[0]
        size = min(self.max_rows, -(-rows // self.pieces))
        if rows <= size or attention_mask is not None:  # this UNet has no masks
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask)  # type: ignore[no-any-return]
        out = torch.empty_like(hidden_states)
        for first in range(0, rows, size):
            piece = slice(first, first + size)
            context = None if encoder_hidden_states is None else encoder_hidden_states[piece]
            out[piece] = self.inner(attn, hidden_states[piece], context)
        return out


#: Bytes a layer has in flight beside its input and output, in inputs: GEGLU (8 + 4 + 4); queries to rescaled
#: output (6); a resnet with cuDNN's copies and the wider input of the way up (8); an up-sampler (8).
_TEMPORARIES: dict[type[nn.Module], float] = {FeedForward: 16, Attention: 6, ResnetBlock2D: 8, Upsample2D: 8}


def _share(unet: Any, name: str, layer: nn.Module, channels: int) -> float:
    """Bytes in flight of a layer of ``channels`` relative to a resnet of the widest level."""
    width: int = unet.config.block_out_channels[0]
    # In the levels twice as wide means a quarter of the pixels; before them all is at the full size.
    in_levels = name.startswith(("down_blocks", "mid_block", "up_blocks"))
    relative = width / channels if in_levels else channels / width
    return relative * _TEMPORARIES[type(layer)] / _TEMPORARIES[ResnetBlock2D]


def wrap_in_pieces(unet: Any) -> None:
    """Put the layers of the UNet that can run in pieces in an ``InPieces`` (of one piece), in place."""
    for path, parent in list(unet.named_modules()):
        for name, child in list(parent.named_children()):
            channels: Any
            if isinstance(parent, InPieces):
                continue
            if isinstance(child, FeedForward):
                channels = child.net[-1].out_features
            elif isinstance(child, ResnetBlock2D):
                channels = child.out_channels
            elif isinstance(child, Upsample2D):
                channels = child.channels // 2  # the output is at the next level's size already
            else:
                continue
            share = _share(unet, path, child, channels)
            setattr(parent, name, InPieces(child, share=share, by_token=isinstance(child, FeedForward)))


def set_attention_processors(unet: Any, *, max_rows: int = MAX_ATTENTION_ROWS) -> None:
    """Put every attention processor of the UNet in an ``AttentionInRows`` (of one piece), in place."""
    shares = {
        f"{name}.processor": _share(unet, name, layer, layer.to_q.in_features)
        for name, layer in unet.named_modules()
        if isinstance(layer, Attention)
    }
    unet.set_attn_processor(
        {
            name: AttentionInRows(inner, max_rows, share=shares[name])
            for name, inner in unet.attn_processors.items()
        }
    )


def set_pieces(denoiser: nn.Module, pieces: int) -> None:
    """Set how many pieces a resnet of the widest level runs in; the other layers follow by their share."""
    for module in denoiser.modules():
        for layer in (module, getattr(module, "processor", None)):
            if isinstance(layer, (InPieces, AttentionInRows)):
                layer.pieces = 1 if pieces == 1 else max(1, int(pieces * layer.share))
