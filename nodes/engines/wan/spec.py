"""What a Wan model needs and allows, from its configs and file headers (no torch, no diffusers).

Activation bytes follow the tensors alive at the peak of each stage, at e bytes an element:

* denoising, per token and guidance pass (d = heads x width of a head, f = feed-forward width): the
  feed-forward layer, 2 e f and 2.2 e d beside it (hidden states, the normed input), or attention, 6.6 e d.
  VACE has the stock blocks: the residual sum behind the feed-forward layer, 22 d in half precision, or that
  layer itself, 2 e f and 4.5 e d, and a hint of e d for each of its layers. Rotary tables, the latents and
  what is given come on top;
* decoding, per pixel of ONE frame, whatever the window: of the base width's channels over the four frames
  that a latent becomes, 8.6 tensors (10.9 with residual shortcuts), 4.4 (5.6) in two bands, and 0.25 to 0.4
  GB of pieces; encoding: 11.3 (13.3) tensors, of an image alone 4.1. Frames beside the noisy latents are
  encoded as a whole window, whichever are given; a replaced first latent is an image.

Published sizes: 80, 74 and 102 kB a token for A14B, TI2V-5B and VACE-1.3B, 6.6 and 5.6 kB a pixel to decode
with the VAE of 2.1 and 2.2, in bands 3.4 and 2.8, 8.7 and 4.3 to encode, 1.3 an image with that of 2.2; what
is alive is 0.96 to 1.00 of it, of decoding 0.93 to 0.97 (tests/nodes/engines/wan/test_live_bytes.py); what a
card reserved of it: docs/measured.md.
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
    in_fewer_bits,
    in_formats,
    model_facts,
    source_bytes,
    source_tensors,
    sources_of,
    unpacked_bytes,
)
from nodes.engines.placement import Placement, ring_bytes
from nodes.engines.wan.facts import ModelFacts
from nodes.engines.wan.kinds import FACTS, TAKES, max_end_latents, max_prefix_latents, untrained
from nodes.engines.wan.layout import KEPT, TEXT_ENCODER, TEXT_PARTS, VAE, WanFolder, read_folder
from nodes.engines.wan.steps import by_expert, check_scheduler, schedule

#: Driver context and libraries of a CUDA process; the interpreter with PyTorch and diffusers on a CPU.
#: On H100s a process held 0.78 to 0.86 GiB beside what the allocator reserved (docs/measured.md).
CONTEXT_BYTES = {"cuda": 880 * 2**20, "cpu": 512 * 2**20}
RESERVE_RATIO = {"cuda": 1.005, "cpu": 1.2}
#: Reserved over alive of what a stage allocates on a card beside weights: 1.00 to 1.11 was seen; of encoding
#: a clip with the VAE of 2.1 1.04 to 1.19, with that of 2.2 nothing yet.
_RESERVED, _CLIP_RESERVED = 1.13, 1.2
WORKSPACE_BYTES = 128 * 2**20
_ELEMENT_BYTES = {"cuda": 2, "cpu": 4}
#: The text encoder's table of tokens, which stays on the host: a prompt reads a few of its rows.
_TABLE = "token_embeds"
_TABLES = {"shared.weight", "encoder.embed_tokens.weight"}
#: Prompts are encoded by a task of their own where the encoder is larger: else it costs more than they do.
_OWN_TASK_BYTES = 64 * 2**20

#: Tensors of the VAE's last level that decoding holds, a frame at once and in two bands: where no level is
#: larger than a piece of it; and where some are, with the MiB that pieces take.
_DECODING = ((14.5, 8.55, 245), (14.5, 4.4, 268))
_DECODING_RESIDUAL = ((21.5, 10.85, 292), (21.5, 5.55, 382))

#: One expert is reached in a single step, which makes no picture.
_STEPS_OF_A_PICTURE = 4
#: What unmeasured workers are taken to do: half precision on a card of 2020, two cores in float32.
_PRIOR_TFLOPS = {"cuda": 25.0, "cpu": 0.06}
#: Bytes of the cosines and sines of a token, in float32, and of its latents in and out.
_ROTARY_BYTES_PER_WIDTH = 8


#: In the ladder's order. Prompts are encoded by a task of their own, so a window's rungs differ in whether
#: the expert is on the card or streamed, and a prompt's in whether the encoder is. A step of the published
#: transformers computes far longer than its weights take to cross: streamed, one of A14B took what the stock
#: one takes resident, on an H100. ``pieces`` are the bands that the VAE decodes: two took 1.07 to 1.12 times
#: the seconds of one (docs/measured.md).
PLACEMENTS = (
    Placement("resident", "visiting", False, 1, 1, 1, 1.0),
    Placement("chunk", "streamed", False, 2, 1, 1, 1.02),
    Placement("stream", "streamed", True, 2, 1, 1, 1.03),
    # Where a machine's memory is short; a guess, for disks differ.
    Placement("disk", "streamed", True, 2, 1, 1, 1.3, from_files=True),
)
#: A CPU has no card to leave: what is in flight shrinks, from both guidance passes to one.
_CPU = (
    Placement("resident", "resident", False, 1, 2, 1, 1.0),
    Placement("cfg_split", "resident", False, 1, 1, 1, 1.9),
)


def placements(kind: DeviceKind) -> tuple[Placement, ...]:
    """The rungs offered on a kind of device."""
    return PLACEMENTS if kind == "cuda" else _CPU


def wan_spec(
    path: Path, *, model: str, revision: str | None = None, weights: Weights = OWN_WEIGHTS
) -> EngineSpec:
    """Read the spec of a model folder in diffusers format.

    Half precision as a card holds it, and under ``on_cpu`` float32 with every component in memory.

    Args:
        path: Holds model_index.json, transformer (and transformer_2), vae, text_encoder, tokenizer,
            scheduler; and farm.json when the weights were not trained for what the published ones were.
        model: The name the farm knows it by.
        revision: Pinned hub revision; None for a local folder.
        weights: What its experts run from, as ``found_here`` gives them.

    Raises:
        CannotRun: the folder lacks a component, is of a Wan that takes no image, or its farm.json is wrong.
        InvalidInput: the weights do not fit the model.
    """
    folder = read_folder(path)
    sources = sources_of(weights, folder.experts, model)
    check_folder(path, folder.layout.without(name for name, source in sources.items() if source.file))
    check_scheduler(folder.scheduler)
    facts = model_facts(path, FACTS[folder.kind])
    stride = folder.frames_per_latent
    frames = FrameRule.causal(stride, min_frames=stride + 1, max_frames=max(facts.windows))
    for window in (facts.window_frames, *facts.windows):
        if not frames.allows(window):
            raise CannotRun(
                f"{path / 'farm.json'} has a window of {window} frames, and its VAE makes {frames.form()}: "
                "correct it"
            )
    tensors: dict[str, Tensors] = {
        name: source_tensors(sources.get(name, THE_FOLDERS), path / name, stem, half=False)
        for name, stem in folder.layout.weights.items()
    }
    for name, source in sources.items():
        check_file(source, tensors[name], model, dim=folder.dim, num_layers=folder.num_layers)
        check_loras(source, tensors[name], model)
    encoder = tensors[TEXT_ENCODER]
    tensors |= {
        TEXT_ENCODER: {name: tensor for name, tensor in encoder.items() if name not in _TABLES},
        _TABLE: {name: tensor for name, tensor in encoder.items() if name in _TABLES},
    }
    side = folder.pixels_per_latent * folder.patch

    def on(kind: DeviceKind, weights: Weights, on_cpu: EngineSpec | None) -> EngineSpec:
        sources = sources_of(weights, folder.experts, model)
        cost = _Cost.of(folder, tensors, kind, sources, facts.native_width * facts.native_height)
        encoder_bytes = cost.component_bytes[TEXT_ENCODER] + cost.component_bytes[_TABLE]
        step_s, decode_s, encode_s = _prior_seconds(folder, facts, tensors, kind)
        return EngineSpec(
            model=model,
            engine="wan",
            revision=revision,
            weights=weights,
            takes=TAKES[folder.kind],
            untrained=untrained(folder.kind, facts),
            window_frames=facts.window_frames,
            frames=frames,
            trained_windows=tuple(sorted(facts.windows)),
            overlap_frames=frames.overlap_frames(1),
            max_prefix_latents=max_prefix_latents(facts),
            max_end_latents=max_end_latents(facts),
            side_multiple=math.lcm(side, facts.side_multiple or 1),
            pixels_per_token=side**2,
            native_width=facts.native_width,
            native_height=facts.native_height,
            native_fps=facts.native_fps,
            min_fps=facts.min_fps,
            knows_rates="{fps" in facts.prompt_template,
            default_steps=facts.default_steps,
            draft_steps=_fewest_steps(folder, facts),
            default_guidance_scale=facts.default_guidance_scale,
            default_strength=facts.default_strength,
            preview_steps=facts.preview_steps,
            trained_sides=facts.trained_sides,
            vocabulary=facts.vocabulary,
            component_bytes=cost.component_bytes,
            text_components=(TEXT_ENCODER, _TABLE) if encoder_bytes >= _OWN_TASK_BYTES else (),
            context_bytes=CONTEXT_BYTES[kind],
            reserve_ratio=RESERVE_RATIO[kind],
            rungs=tuple(cost.rung(placement) for placement in placements(kind)),
            prior_seconds_per_mpixel_step=step_s,
            attention_per_token=_attention_per_token(folder, tensors),
            decode_steps=decode_s / step_s,
            encode_steps=encode_s / step_s,
            on_cpu=on_cpu,
        )

    return in_formats(
        weights,
        is_free=not any(in_fewer_bits(tensors[name]) for name in folder.experts),
        made=lambda each: on("cuda", each, on("cpu", each, None)),
        distance_db=facts.format_db,
    )


Tensors = Mapping[str, StoredTensor]


def _kept(component: str) -> Kept:
    return KEPT.get("transformer" if component.startswith("transformer") else component, Kept())


def _fewest_steps(folder: WanFolder, facts: ModelFacts) -> int:
    """The fewest steps of which every expert has one; of a single expert, which make a picture."""
    for count in range(len(folder.experts), facts.default_steps):
        steps = schedule(folder.scheduler, count, flow_shift=facts.flow_shift, timesteps=facts.timesteps)
        if len(by_expert(steps, folder.experts, folder.boundary)) == len(folder.experts) > 1:
            return count
    return min(_STEPS_OF_A_PICTURE, facts.default_steps)


def _elements(tensors: Tensors, start: str = "") -> int:
    return sum(math.prod(tensor.shape) for name, tensor in tensors.items() if name.startswith(start))


@dataclass(frozen=True)
class _Cost:
    """Bytes of the stages of one model on one kind of device (formulas: see the module)."""

    folder: WanFolder
    component_bytes: dict[str, int]
    #: Card bytes of the ring that streams a component.
    ring: dict[str, int]
    #: Bytes of the largest weight of a component that is dequantised to compute.
    unpacked: dict[str, int]
    per_token: float
    #: Per pixel and whatever the size: a frame at once, and in two bands.
    decode: tuple[tuple[float, int], tuple[float, int]]
    encode_per_pixel: float
    #: Of an image alone.
    image_per_pixel: float
    on_cpu: bool

    @classmethod
    def of(
        cls,
        folder: WanFolder,
        tensors: Mapping[str, Tensors],
        kind: DeviceKind,
        sources: Mapping[str, WeightSource],
        native_pixels: int,
    ) -> _Cost:
        element = _ELEMENT_BYTES[kind]
        held = {name: (sources.get(name, THE_FOLDERS), each, _kept(name)) for name, each in tensors.items()}
        weights = {
            name: source_bytes(source, each, kept=kept, dtype_bytes=element)
            for name, (source, each, kept) in held.items()
        }
        transformer, vae = folder.transformer, folder.vae
        head = transformer["attention_head_dim"]
        width = folder.dim
        # The latents, what is given and what is predicted: in float32, and at once in the model's precision.
        channels = 2 * transformer["in_channels"] + transformer.get("vace_in_channels", 0)
        wide = element * (2 * transformer["ffn_dim"] + 4.5 * width)
        widest = max(6.6 * element * width, wide - 2.3 * element * width)
        if folder.kind == "vace":  # the stock blocks
            widest = max(22.1 * width, wide) + element * width * (len(transformer["vace_layers"]) + 0.6)
        residual = bool(vae.get("is_residual"))
        pixel = element * 4 / (vae.get("patch_size") or 1) ** 2
        base = vae["base_dim"]
        decode = pixel * (vae.get("decoder_base_dim") or base)
        decoding = [
            min((small * decode, 0), (large * decode, mib * 2**20), key=lambda c: c[0] * native_pixels + c[1])
            for small, large, mib in (_DECODING_RESIDUAL if residual else _DECODING)
        ]
        return cls(
            folder=folder,
            component_bytes={name: sum(each) for name, each in weights.items()},
            ring={name: ring_bytes(each) for name, each in weights.items()},
            unpacked={
                name: unpacked_bytes(source, each, kept=kept, dtype_bytes=element)
                for name, (source, each, kept) in held.items()
            },
            per_token=widest + _ROTARY_BYTES_PER_WIDTH * head + 6 * channels * folder.patch**2,
            decode=(decoding[0], decoding[1]),
            encode_per_pixel=pixel * base * (13.3 if residual else 11.3),
            image_per_pixel=pixel * base * (4.1 if residual else 3.6),
            on_cpu=kind == "cpu",
        )

    def rung(self, placement: Placement) -> RungSpec:
        parts = self.folder.parts
        streamed = {*placement.streamed(parts), *placement.streamed(TEXT_PARTS)}
        resident = {*placement.resident(parts), *placement.resident(TEXT_PARTS)}
        at_once = placement.guided_batch
        per_pixel, fixed = self.decode[placement.pieces > 1]

        def stage(
            name: str, component: str, more_bytes: int = 0, reserved: float = _RESERVED, **cost: Any
        ) -> StageCost:
            ring = self.ring[component] if component in streamed else 0
            return StageCost(
                name=name,
                components=() if component in streamed else (component,),
                reserve_ratio=1.0 if self.on_cpu else reserved,
                fixed_bytes=WORKSPACE_BYTES
                + ring
                + more_bytes
                # On a CPU guidance passes run side by side, each with a weight of its own.
                + self.unpacked[component] * (at_once if self.on_cpu else 1),
                **cost,
            )

        return RungSpec(
            name=placement.rung,
            # On a CPU everything is in its one memory.
            resident=tuple(n for n in self.component_bytes if self.on_cpu or n in resident),
            in_files=tuple(sorted({*streamed, _TABLE})) if placement.from_files else (),
            stages=(
                stage(TEXT_STAGE, TEXT_ENCODER),
                stage("vae_encode", VAE, bytes_per_pixel=self.image_per_pixel, frames_at_once=1),
                stage(
                    "vae_encode_clip",
                    VAE,
                    reserved=_CLIP_RESERVED,
                    bytes_per_pixel=self.encode_per_pixel,
                    frames_at_once=1,
                    clips_only=self.folder.kind == "in_place",
                ),
                *(
                    stage("denoise", expert, bytes_per_token=self.per_token, batch=at_once)
                    for expert in parts.denoisers
                ),
                stage(
                    "vae_decode",
                    VAE,
                    more_bytes=fixed,
                    bytes_per_pixel=per_pixel,
                    frames_at_once=1,
                ),
            ),
            slowdown=placement.slowdown,
        )


def _attention_per_token(folder: WanFolder, tensors: Mapping[str, Tensors]) -> float:
    """4 N d operations for each of N tokens, in every layer, over two for each weight."""
    return float(2 * folder.dim * folder.num_layers / _elements(tensors["transformer"]))


def _prior_seconds(
    folder: WanFolder, facts: ModelFacts, tensors: Mapping[str, Tensors], kind: DeviceKind
) -> tuple[float, float, float]:
    """Seconds per million pixels of a guided step, of decoding and of encoding, before anything is measured.

    Two floating-point operations for each weight and token, at the native window; attention apart.
    """
    latents = (facts.window_frames - 1) // folder.frames_per_latent + 1
    tokens_per_pixel = latents / facts.window_frames / (folder.pixels_per_latent * folder.patch) ** 2
    passes = 2 if facts.default_guidance_scale > 1 else 1
    step = passes * 2 * _elements(tensors["transformer"]) * tokens_per_pixel / 1e6
    # Counted of the published VAEs, which have 73 and 555 million weights in their decoders; the second works
    # on patches, as a smaller one may.
    decoder, encoder = _elements(tensors[VAE], "decoder."), _elements(tensors[VAE], "encoder.")
    patches = (folder.vae.get("patch_size") or 1) ** 2
    decode, encode = 8.6 * decoder / 73e6 / patches, 5.2 * encoder / 54e6 / patches
    if folder.vae.get("is_residual"):
        decode, encode = 18.6 * decoder / 555e6, 4.7 * encoder / 150e6
    rate = _PRIOR_TFLOPS[kind]
    return step / rate, decode / rate, encode / rate
