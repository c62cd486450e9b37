"""What any latent diffusion engine needs: holding and placing a model, pieces, noise, cache.

Code that torch runs and that names no family enters; pieces, slices, attention and temporal convolutions are
those of diffusers' UNets, the rest is for any denoiser.
"""

from __future__ import annotations

from nodes.engines.common.anchor import channel_statistics, pulled_to_anchor
from nodes.engines.common.attention import set_attention, set_attention_backend
from nodes.engines.common.cache import image_hash
from nodes.engines.common.components import half_of_the_card, read_component, reading
from nodes.engines.common.cpu import convolve_with_onednn, padded_conv3d
from nodes.engines.common.ddim import OnStep, run_steps, starting_latents
from nodes.engines.common.frame_vae import decode_frames, encode_frame, encode_frames
from nodes.engines.common.holder import Holder
from nodes.engines.common.noise import causal_indices, frame_noise
from nodes.engines.common.pieces import InPieces, wrap_in_pieces
from nodes.engines.common.pixels import ClipOnHost, frames_of, vae_pixels
from nodes.engines.common.placing import PlacedModel
from nodes.engines.common.slicing import (
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
from nodes.engines.common.temporal_convs import fold_temporal_convs
from nodes.engines.common.text import NEGATIVE, PROMPT, EncodedText

__all__ = [
    "ATTENTION",
    "NEGATIVE",
    "PROMPT",
    "RESNET",
    "ClipOnHost",
    "EncodedText",
    "Holder",
    "InPieces",
    "OnStep",
    "PlacedModel",
    "SlicedResnet",
    "add_by_row",
    "add_by_token",
    "by_frame",
    "causal_indices",
    "channel_statistics",
    "convolve_with_onednn",
    "decode_frames",
    "encode_frame",
    "encode_frames",
    "fold_temporal_convs",
    "frame_noise",
    "frames_of",
    "half_of_the_card",
    "image_hash",
    "moments_over_frames",
    "padded_conv3d",
    "pulled_to_anchor",
    "read_component",
    "reading",
    "run_steps",
    "set_attention",
    "set_attention_backend",
    "sliced",
    "slices",
    "starting_latents",
    "vae_pixels",
    "wrap_in_pieces",
]
