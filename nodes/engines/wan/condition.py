"""What a window is given beside its text: frames and latents, as each kind of Wan reads them.

The layouts are those of diffusers' WanImageToVideoPipeline and WanVACEPipeline, where a first and a last
frame are known; here any frames are, and latents of the window before. tests/nodes/engines/wan holds them
equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nodes.engines.common import Holder
from nodes.engines.engine import Frames
from nodes.engines.wan.causal_vae import Clip, decode, encode_chunks, encode_video
from nodes.engines.wan.model import Given, Model

Known = Mapping[int, NDArray[np.uint8]]
"""Frames (H, W, 3) by position in the window."""


@torch.no_grad()
def condition(
    held: Holder[Model],
    known: Known,
    *,
    num_frames: int,
    height: int,
    width: int,
    prefix: NDArray[np.float32] | None = None,
    video: Frames | None = None,
    mask: NDArray[np.bool_] | None = None,
    references: Sequence[NDArray[np.uint8]] = (),
) -> Given:
    """The frames that are given, as the model reads them.

    Args:
        held: The loaded model.
        known: Frames that are given.
        num_frames: Of the window.
        height: Of a frame, in pixels.
        width: Of a frame, in pixels.
        prefix: (C, k, h, w) latents of the frames behind frame 0, from the window before.
        video: For VACE: (F, H, W, 3), what is changed where ``mask`` says so.
        mask: For VACE: (F, H, W), where the video is to be changed; None: everywhere.
        references: For VACE: pictures (H, W, 3) of what is to be seen.

    Raises:
        ValueError: latents are taken over without the frame they follow.
    """
    model = held.placed.model
    if prefix is not None and 0 not in known:
        raise ValueError("handover has latents and no image: they follow the frame that it holds")
    if model.folder.kind == "in_place":
        return Given(in_place=_in_place(held, known, num_frames, (height, width), prefix))
    if prefix is not None:
        known = {**_decoded_prefix(held, known[0], prefix), **known}
    clip = Clip(num_frames, height, width, model.folder.frames_per_latent)
    if model.folder.kind == "channels":
        latents = _with_prefix(encode_chunks(held, clip.chunks(known.get, held.device)), prefix)
        frames = torch.tensor([float(place in known) for place in range(num_frames)])
        stride = clip.frames_per_latent
        by_latent = torch.cat([frames[:1].expand(stride), frames[1:]]).view(-1, stride).T
        flags = by_latent[..., None, None].expand(-1, -1, *latents.shape[2:]).to(latents)
        return Given(channels=torch.cat([flags, latents]))
    return _vace(held, clip, known, prefix, video, mask, references)


def _with_prefix(latents: torch.Tensor, prefix: NDArray[np.float32] | None) -> torch.Tensor:
    """Latents encoded anew replaced by those of the window before: no encoder changed their colours."""
    if prefix is not None:
        latents[:, 1 : 1 + prefix.shape[1]] = torch.from_numpy(prefix.copy()).to(latents)
    return latents


def _decoded_prefix(
    held: Holder[Model], first: NDArray[np.uint8], prefix: NDArray[np.float32]
) -> dict[int, NDArray[np.uint8]]:
    """The frames of the latents taken over, which the encoder has to have seen before those to be made."""
    own = encode_video(held, first[None])
    frames = decode(held, torch.cat([own, torch.from_numpy(prefix.copy()).to(own)], dim=1))
    return dict(enumerate(frames))


def _in_place(
    held: Holder[Model],
    known: Known,
    num_frames: int,
    size: tuple[int, int],
    prefix: NDArray[np.float32] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    model = held.placed.model
    channels, *sides = model.latent_shape(*size)
    clean = torch.zeros(channels, model.num_latents(num_frames), *sides, device=held.device)
    free = torch.ones(1, clean.shape[1], 1, 1, device=held.device)
    if 0 in known:
        clean[:, :1] = encode_video(held, known[0][None])
        free[:, : 1 + (0 if prefix is None else prefix.shape[1])] = 0
    return _with_prefix(clean, prefix), free


def _vace(
    held: Holder[Model],
    clip: Clip,
    known: Known,
    prefix: NDArray[np.float32] | None,
    video: Frames | None,
    mask: NDArray[np.bool_] | None,
    references: Sequence[NDArray[np.uint8]],
) -> Given:
    changed = np.ones((clip.num_frames, clip.height, clip.width), dtype=bool) if mask is None else mask.copy()
    changed[sorted(known)] = False

    def kept(place: int) -> NDArray[np.generic] | None:
        if place in known or video is None:
            return known.get(place)
        return _where(video[place], ~changed[place])

    def to_change(place: int) -> NDArray[np.generic] | None:
        return None if video is None or place in known else _where(video[place], changed[place])

    inactive = _with_prefix(encode_chunks(held, clip.chunks(kept, held.device)), prefix)

    def changing() -> torch.Tensor:
        return encode_chunks(held, clip.chunks(to_change, held.device))

    # With no video it is the same for every window of the size.
    reactive = changing() if video is not None else held.kept(f"nothing in {clip}", changing)
    # The stock pipeline lays each before the last.
    shown = [encode_video(held, picture[None]) for picture in reversed(references)]
    before = [torch.cat([each, torch.zeros_like(each)]) for each in shown]
    control = torch.cat([*before, torch.cat([inactive, reactive])], dim=1)
    where = _where_changed(held.placed.model, changed).to(control)
    where = functional.pad(where, (0, 0, 0, 0, len(shown), 0))
    return Given(control=torch.cat([control, where]), num_references=len(shown))


def _where(frame: NDArray[np.uint8], wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(H, W, 3) in [-1, 1], 0 where it is not wanted."""
    return np.where(wanted[..., None], frame / np.float32(127.5) - 1, 0).astype(np.float32)


def _where_changed(model: Model, changed: NDArray[np.bool_]) -> torch.Tensor:
    """(F, H, W) to (p^2, L, h, w): the pixels of a latent as channels, of the frame nearest to its middle."""
    num_frames, height, width = changed.shape
    side = model.folder.pixels_per_latent
    pixels = torch.from_numpy(changed).view(num_frames, height // side, side, width // side, side).float()
    by_pixel = pixels.permute(2, 4, 0, 1, 3).flatten(0, 1)
    size = (model.num_latents(num_frames), height // side, width // side)
    return functional.interpolate(by_pixel[None], size=size, mode="nearest-exact")[0]
