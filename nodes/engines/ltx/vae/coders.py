"""LTX-Video's VAE over a clip that comes in chunks (see ``layers``)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from nodes.engines.ltx.vae.layers import (
    Chunks,
    convolved,
    downsampled,
    in_pieces,
    modulated,
    over_channels,
    resnet,
    upsampled,
)


def encoded(encoder: Any, chunks: Iterable[torch.Tensor]) -> Chunks:
    """Pixels (1, 3, n, H, W) in [-1, 1] to the mode of their latents (1, C, k, h, w), as the VAE has them."""
    hidden = convolved(encoder.conv_in, map(partial(_in_patches, encoder.patch_size), chunks))
    for block in encoder.down_blocks:
        hidden = _resnets(block.resnets, hidden)
        for layer in block.downsamplers or ():
            narrow = downsampled if hasattr(layer, "group_size") else convolved
            hidden = narrow(layer, hidden)
        if getattr(block, "conv_out", None) is not None:
            hidden = resnet(block.conv_out, hidden, None)
    hidden = _resnets(encoder.mid_block.resnets, hidden)
    hidden = map(lambda chunk: encoder.conv_act(over_channels(encoder.norm_out, chunk)), hidden)
    # The last channel is the variance that all others share.
    return map(lambda chunk: chunk[:, :-1], convolved(encoder.conv_out, hidden))


def decoded(
    decoder: Any, latents: torch.Tensor, timestep: torch.Tensor | None, *, frames_at_once: int
) -> Chunks:
    """Latents (1, C, k, h, w), as the VAE has them, to pixels (1, 3, n, H, W) about [-1, 1] in chunks.

    Args:
        decoder: Of an AutoencoderKLLTXVideo.
        latents: Of the whole clip.
        timestep: (1,), for a VAE that has one.
        frames_at_once: Frames in flight at every level.
    """
    if decoder.timestep_scale_multiplier is not None:
        assert timestep is not None
        timestep = timestep * decoder.timestep_scale_multiplier
    total = latents.shape[2]

    def resnets(block: Any, hidden: Chunks) -> Chunks:
        embedded = _embedded(block, timestep, latents)
        for each in block.resnets:
            # What is known to end has a longer last chunk.
            hidden = in_pieces(resnet(each, hidden, embedded, total), frames_at_once)
        return hidden

    hidden = convolved(decoder.conv_in, in_pieces([latents], frames_at_once), total)
    hidden = resnets(decoder.mid_block, hidden)
    for block in decoder.up_blocks:
        if block.conv_in is not None:
            hidden = resnet(block.conv_in, hidden, timestep, total)
        for layer in block.upsamplers or ():
            hidden = in_pieces(upsampled(layer, hidden, total), frames_at_once)
            total = total * layer.stride[0] - (layer.stride[0] - 1)
        hidden = resnets(block, hidden)
    embedded = _embedded(decoder, timestep, latents)
    shift = scale = None
    if embedded is not None:
        table = torch.unflatten(embedded, 1, (2, -1)) + decoder.scale_shift_table[None, ..., None, None, None]
        shift, scale = table.unbind(dim=1)

    def finished(chunk: torch.Tensor) -> torch.Tensor:
        shown: torch.Tensor = decoder.conv_act(
            modulated(over_channels(decoder.norm_out, chunk), shift, scale)
        )
        return shown

    made = in_pieces(convolved(decoder.conv_out, map(finished, hidden), total), frames_at_once)
    return map(partial(_out_of_patches, decoder.patch_size), made)


def _resnets(blocks: Any, hidden: Chunks) -> Chunks:
    for block in blocks:
        hidden = resnet(block, hidden, None)
    return hidden


def _embedded(block: Any, timestep: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    """The timestep as the block reads it, (1, C, 1, 1, 1); None where it reads none."""
    if block.time_embedder is None or timestep is None:
        return None
    embedded: torch.Tensor = block.time_embedder(
        timestep=timestep.flatten(), resolution=None, aspect_ratio=None, batch_size=1, hidden_dtype=like.dtype
    )
    return embedded.view(1, -1, 1, 1, 1)


def _in_patches(size: int, pixels: torch.Tensor) -> torch.Tensor:
    """(1, 3, n, H, W) to (1, 3 size^2, n, H / size, W / size): columns of a patch before its rows."""
    patches = torch.unflatten(torch.unflatten(pixels, 4, (-1, size)), 3, (-1, size))
    return patches.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def _out_of_patches(size: int, patches: torch.Tensor) -> torch.Tensor:
    """The way back."""
    pixels = torch.unflatten(patches, 1, (-1, size, size))
    return pixels.permute(0, 1, 4, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)
