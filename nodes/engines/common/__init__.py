"""What any latent diffusion engine needs: holding and placing a model, pieces, noise, cache.

Code that torch runs and that names no family enters; pieces, attention and temporal convolutions are those of
diffusers' UNets, the rest is for any denoiser.
"""

from __future__ import annotations

from nodes.engines.common.anchor import channel_statistics, pulled_to_anchor
from nodes.engines.common.attention import set_attention, set_attention_backend
from nodes.engines.common.cache import image_hash
from nodes.engines.common.components import half_of_the_card, read_component, reading
from nodes.engines.common.cpu import convolve_with_onednn, padded_conv3d
from nodes.engines.common.holder import Holder
from nodes.engines.common.noise import causal_indices, frame_noise
from nodes.engines.common.pieces import InPieces, wrap_in_pieces
from nodes.engines.common.pixels import ClipOnHost, frames_of, vae_pixels
from nodes.engines.common.placing import PlacedModel
from nodes.engines.common.temporal_convs import fold_temporal_convs
from nodes.engines.common.text import NEGATIVE, PROMPT, EncodedText

__all__ = [
    "NEGATIVE",
    "PROMPT",
    "ClipOnHost",
    "EncodedText",
    "Holder",
    "InPieces",
    "PlacedModel",
    "causal_indices",
    "channel_statistics",
    "convolve_with_onednn",
    "fold_temporal_convs",
    "frame_noise",
    "frames_of",
    "half_of_the_card",
    "image_hash",
    "padded_conv3d",
    "pulled_to_anchor",
    "read_component",
    "reading",
    "set_attention",
    "set_attention_backend",
    "vae_pixels",
    "wrap_in_pieces",
]
