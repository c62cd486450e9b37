"""What an LTX-Video model needs and allows, from its configs and file headers (no torch, no diffusers).

Activation bytes follow the tensors alive at the peak of each stage, at e bytes an element:

* denoising, per token and guidance pass (d = the transformer's width): 10 d elements within a feed-forward
  layer (hidden states, the normed input, the layer four times as wide before and behind its activation), or
  in pieces 6 d within attention (hidden states, normed input, queries, keys, values, output); beside them
  the rotary table, 4 d bytes, and the latents in float32. The stock forward, with a timestep for every
  token, holds 58 d bytes where this holds 24 d, or 16 d;
* decoding, per pixel of ONE frame whatever the window (c = channels of the last level over its patch's area):
  77 c elements kept between chunks and 8.7 c more for each frame in flight; encoding 75 c and 6 c, of an
  image alone 87 c, which is a fifth more than what is alive, as cards showed.

Traced by tests/nodes/engines/ltx/test_live_bytes.py; what a card reserved of it: docs/measured.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.capabilities import (
    OWN_WEIGHTS,
    TEXT_STAGE,
    Conditioning,
    DeviceKind,
    EngineSpec,
    FrameRule,
    RungSpec,
    StageCost,
    Weights,
)
from farm.errors import CannotRun
from nodes.engines.folders import (
    THE_FOLDERS,
    Kept,
    StoredTensor,
    WeightSource,
    check_file,
    check_folder,
    check_loras,
    component_tensors,
    in_fewer_bits,
    in_formats,
    source_bytes,
    source_tensors,
    sources_of,
    unpacked_bytes,
)
from nodes.engines.ltx.facts import ModelFacts, facts_of
from nodes.engines.ltx.layout import (
    KEPT,
    PARTS,
    TEXT_ENCODER,
    TEXT_PARTS,
    TRANSFORMER,
    VAE,
    VAE_DECODER,
    VAE_ENCODER,
    WEIGHTS,
    LtxFolder,
    layout,
    read_folder,
)
from nodes.engines.ltx.placements import TEXT_ENCODERS, placements
from nodes.engines.placement import Placement, ring_bytes

TAKES: frozenset[Conditioning] = frozenset(
    {"image", "last_image", "keyframes", "prefix", "text", "text_alone", "video"}
)
#: What a model that was trained to be given its first frame alone can be given too.
_LATER: frozenset[Conditioning] = frozenset({"last_image", "keyframes", "prefix"})
_MAX_FRAMES = 257
_MAX_PREFIX_LATENTS = 3

#: Driver context and libraries of a CUDA process; the interpreter with PyTorch and diffusers on a CPU.
CONTEXT_BYTES = {"cuda": 800 * 2**20, "cpu": 512 * 2**20}
RESERVE_RATIO = {"cuda": 1.005, "cpu": 1.2}
#: Reserved over alive of what a stage allocates on a card beside weights; of encoding clips nothing was seen.
_RESERVED, _DECODING_RESERVED = 1.1, 1.22
WORKSPACE_BYTES = {"cuda": 128 * 2**20, "cpu": 64 * 2**20}
_ELEMENT_BYTES = {"cuda": 2, "cpu": 4}

#: The text encoder's table of tokens stays on the host, where a prompt's rows of it are read.
_TABLES = {"shared.weight", "encoder.embed_tokens.weight"}

#: What unmeasured workers are taken to do: half precision on a card of 2020, two cores in float32.
_PRIOR_TFLOPS = {"cuda": 25.0, "cpu": 0.06}
_ENCODE_SHARE = 0.5


def ltx_spec(
    path: Path, *, model: str, revision: str | None = None, weights: Weights = OWN_WEIGHTS
) -> EngineSpec:
    """Read the spec of a model folder in diffusers format.

    Half precision as a card holds it, and under ``on_cpu`` float32 with every component in memory.

    Args:
        path: Holds model_index.json, transformer, vae, text_encoder, tokenizer, scheduler; and farm.json when
            the weights were not trained for what the published ones were.
        model: The name the farm knows it by.
        revision: Pinned hub revision; None for a local folder.
        weights: What its transformer runs from, as ``found_here`` gives them.

    Raises:
        CannotRun: the folder lacks a component, is of another model, or its farm.json is wrong.
        InvalidInput: the weights do not fit the model.
    """
    source = sources_of(weights, PARTS.denoisers, model)[TRANSFORMER]
    files = layout(path)
    check_folder(path, files if source.file is None else files.without((TRANSFORMER,)))
    folder = read_folder(path, source.file)
    facts = facts_of(folder)
    stride, side = folder.frames_per_latent, folder.pixels_per_latent
    frames = FrameRule.causal(stride, min_frames=stride + 1, max_frames=_MAX_FRAMES)
    for window in (facts.window_frames, *facts.windows):
        if not frames.allows(window):
            raise CannotRun(
                f"{path / 'farm.json'} has a window of {window} frames, and this engine renders "
                f"{frames.form()}: correct it"
            )
    tensors = {
        TRANSFORMER: source_tensors(source, path / TRANSFORMER, WEIGHTS[TRANSFORMER], half=False),
        TEXT_ENCODER: _tensors(path, TEXT_ENCODER),
    }
    check_file(source, tensors[TRANSFORMER], model, dim=folder.dim, num_layers=folder.num_layers)
    check_loras(source, tensors[TRANSFORMER], model)
    for part, prefix in ((VAE_ENCODER, "encoder."), (VAE_DECODER, "decoder.")):
        tensors[part] = {n: each for n, each in _tensors(path, VAE).items() if n.startswith(prefix)}
    parameters = sum(math.prod(each.shape) for each in tensors[TRANSFORMER].values())

    def on(kind: DeviceKind, weights: Weights, on_cpu: EngineSpec | None) -> EngineSpec:
        cost = _Cost.of(folder, tensors, kind, sources_of(weights, PARTS.denoisers, model))
        step_s = _tflop_per_mpixel_step(folder, facts, parameters) / _PRIOR_TFLOPS[kind]
        decode_s = decoder_tflop_per_mpixel(folder) / _PRIOR_TFLOPS[kind]
        return EngineSpec(
            model=model,
            engine="ltx",
            revision=revision,
            weights=weights,
            takes=TAKES,
            untrained=frozenset() if folder.takes_any_frame else _LATER,
            window_frames=facts.window_frames,
            frames=frames,
            trained_windows=tuple(sorted(facts.windows)),
            overlap_frames=frames.overlap_frames(1),
            max_prefix_latents=_MAX_PREFIX_LATENTS,
            max_end_latents=2,
            keyframe_stride=stride,
            gives_beside=True,
            side_multiple=side,
            pixels_per_token=side**2,
            native_width=facts.native_width,
            native_height=facts.native_height,
            native_fps=facts.native_fps,
            min_fps=facts.min_fps,
            default_steps=facts.default_steps,
            default_guidance_scale=facts.default_guidance_scale,
            default_strength=facts.default_strength,
            preview_steps=facts.preview_steps,
            trained_sides=facts.trained_sides,
            vocabulary=facts.vocabulary,
            component_bytes=cost.component_bytes,
            text_components=(TEXT_ENCODER,),
            context_bytes=CONTEXT_BYTES[kind],
            reserve_ratio=RESERVE_RATIO[kind],
            rungs=tuple(cost.rung(placement) for placement in placements(kind)),
            prior_seconds_per_mpixel_step=step_s,
            # Of each of N tokens, in every layer: 4 N d operations.
            attention_per_token=2 * folder.dim * folder.num_layers / parameters,
            decode_steps=decode_s / step_s,
            encode_steps=_ENCODE_SHARE * decode_s / step_s,
            on_cpu=on_cpu,
        )

    return in_formats(
        weights,
        is_free=not in_fewer_bits(tensors[TRANSFORMER]),
        made=lambda each: on("cuda", each, on("cpu", each, None)),
        distance_db=facts.format_db,
    )


def _tensors(path: Path, component: str) -> dict[str, StoredTensor]:
    """The tensors of a component that come to the card, by name."""
    stored = component_tensors(path / component, WEIGHTS[component], half=False)
    return {name: tensor for name, tensor in stored.items() if name not in _TABLES}


@dataclass(frozen=True)
class _Cost:
    """Bytes of the stages of one model on one kind of device (formulas: see the module)."""

    folder: LtxFolder
    component_bytes: dict[str, int]
    #: Card bytes of the ring that streams a component.
    ring: dict[str, int]
    #: Bytes of the largest weight of a component that is dequantised to compute.
    unpacked: dict[str, int]
    element_bytes: int
    on_cpu: bool

    @classmethod
    def of(
        cls,
        folder: LtxFolder,
        tensors: Mapping[str, Mapping[str, StoredTensor]],
        kind: DeviceKind,
        sources: Mapping[str, WeightSource],
    ) -> _Cost:
        element = _ELEMENT_BYTES[kind]
        held = {
            name: (sources.get(name, THE_FOLDERS), each, KEPT.get(name, Kept()))
            for name, each in tensors.items()
        }
        weights = {
            name: source_bytes(source, each, kept=kept, dtype_bytes=element)
            for name, (source, each, kept) in held.items()
        }
        return cls(
            folder=folder,
            component_bytes={name: sum(each) for name, each in weights.items()},
            ring={name: ring_bytes(each) for name, each in weights.items()},
            unpacked={
                name: unpacked_bytes(source, each, kept=kept, dtype_bytes=element)
                for name, (source, each, kept) in held.items()
            },
            element_bytes=element,
            on_cpu=kind == "cpu",
        )

    def per_token(self, *, whole: bool) -> float:
        width = self.folder.dim
        return width * (4 + self.element_bytes * (10 if whole else 6)) + 32 * self.folder.latent_channels

    def decode_per_pixel(self, frames_at_once: int) -> float:
        vae = self.folder.vae
        width = float(_decoder_widths(vae)[-1][0])
        return self.element_bytes * width / _patch(vae) ** 2 * (77 + 8.7 * frames_at_once)

    def encode_per_pixel(self, frames_at_once: int) -> float:
        vae = self.folder.vae
        width = float(vae.get("block_out_channels", (128,))[0])
        return self.element_bytes * width / _patch(vae) ** 2 * (75 + 6.0 * frames_at_once)

    @property
    def image_per_pixel(self) -> float:
        return self.encode_per_pixel(2)

    def rung(self, placement: Placement) -> RungSpec:
        text = TEXT_ENCODERS[placement.rung]
        streamed = (*placement.streamed(PARTS), *text.streamed(TEXT_PARTS))

        def stage(name: str, component: str, reserved: float = _RESERVED, **cost: Any) -> StageCost:
            return StageCost(
                name=name,
                components=() if component in streamed else (component,),
                reserve_ratio=1.0 if self.on_cpu else reserved,
                fixed_bytes=WORKSPACE_BYTES["cpu" if self.on_cpu else "cuda"]
                + (self.ring[component] if component in streamed else 0)
                # On a CPU guidance passes run side by side, each with a weight of its own.
                + self.unpacked[component] * (placement.guided_batch if self.on_cpu else 1),
                **cost,
            )

        encoding = self.encode_per_pixel(placement.decode_frames)
        decoding = self.decode_per_pixel(placement.decode_frames)
        per_token = self.per_token(whole=placement.pieces == 1)
        return RungSpec(
            name=placement.rung,
            # On a CPU everything is in its one memory.
            resident=tuple(self.component_bytes) if self.on_cpu else placement.resident(PARTS),
            in_files=tuple(sorted(streamed)) if placement.from_files else (),
            stages=(
                stage(TEXT_STAGE, TEXT_ENCODER),
                stage(
                    "vae_encode",
                    VAE_ENCODER,
                    bytes_per_pixel=self.image_per_pixel,
                    frames_at_once=1,
                ),
                stage(
                    "vae_encode_clip",
                    VAE_ENCODER,
                    bytes_per_pixel=encoding,
                    frames_at_once=1,
                    clips_only=True,
                ),
                stage(
                    "denoise",
                    TRANSFORMER,
                    bytes_per_token=per_token,
                    batch=placement.guided_batch,
                ),
                stage(
                    "vae_decode",
                    VAE_DECODER,
                    reserved=_DECODING_RESERVED,
                    bytes_per_pixel=decoding,
                    frames_at_once=1,
                ),
            ),
            slowdown=placement.slowdown,
        )


def _patch(vae: dict[str, Any]) -> int:
    return int(vae.get("patch_size", 4))


def _decoder_widths(vae: dict[str, Any]) -> list[tuple[int, int, bool]]:
    """Of every level of the decoder: channels, by how much they were divided, whether it doubles its size."""
    widths = vae.get("decoder_block_out_channels", (128, 256, 512, 512))
    factors = vae.get("upsample_factor", (1,) * len(widths))
    scaled = vae.get("decoder_spatio_temporal_scaling", (True, True, True, False))
    levels = zip(reversed(widths), reversed(factors), reversed(scaled), strict=True)
    return [(width // factor, factor, bool(scales)) for width, factor, scales in levels]


def decoder_tflop_per_mpixel(folder: LtxFolder) -> float:
    """Work of the VAE's decoder for a million pixels of a frame: twice the multiply-adds of its 3 x 3 x 3
    convolutions."""
    vae = folder.vae
    first, *layers = reversed(vae.get("decoder_layers_per_block", (4, 3, 3, 3, 4)))
    share = 1 / (folder.pixels_per_latent**2 * folder.frames_per_latent)
    macs = first * 2 * 27 * vae.get("decoder_block_out_channels", (512,))[-1] ** 2 * share
    for (width, factor, scales), resnets in zip(_decoder_widths(vae), layers, strict=True):
        if scales:
            macs += 27 * (width * factor) * width * 8 * share
            share *= 8
        macs += resnets * 2 * 27 * width**2 * share
    return float(2 * macs / 1e6)


def _tflop_per_mpixel_step(folder: LtxFolder, facts: ModelFacts, parameters: int) -> float:
    """Work of a step for a million pixels of a frame, its guidance passes together, attention apart, at the
    native window: two operations for each weight and token."""
    latents = (facts.window_frames - 1) // folder.frames_per_latent + 1
    tokens_per_pixel = latents / facts.window_frames / folder.pixels_per_latent**2
    passes = 2 if facts.default_guidance_scale > 1 else 1
    return passes * 2 * parameters * tokens_per_pixel / 1e6
