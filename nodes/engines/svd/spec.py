"""What a Stable Video Diffusion model needs and allows, from its configs and file headers (no torch).

Activation bytes follow the tensors alive at the peak of each stage, at e bytes an element (c = first width of
the UNet, v = widths of the VAE):

* denoising, per latent voxel and batch row: 5.4 c elements: within the last transformer of the first level
  the input, two skips, the tokens of frames and those of places, and the latents; beside them what a slice of
  a layer makes on its way, whatever the window;
* decoding, per pixel of ONE frame: 4.75 v1 (first full-size resnet: input, activation, output, and cuDNN's
  copies), taken as 5, for the allocator leaves holes between the three sizes;
* encoding, likewise: 4 v0 in float32, whose convolutions need no copies, taken as 5.

At the full size: 3.5 kB a voxel, 2.6 kB and 2.6 kB a pixel. Traced by
tests/nodes/engines/svd/test_live_bytes.py; not measured on a card yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.capabilities import Conditioning, DeviceKind, EngineSpec, FrameRule, RungSpec, StageCost
from farm.errors import CannotRun
from nodes.engines.folders import StoredTensor, check_folder, component_tensors, model_facts, read_json
from nodes.engines.placement import ELEMENTS_AT_ONCE, Placement, ring_bytes
from nodes.engines.svd.facts import MAX_FRAMES, ModelFacts
from nodes.engines.svd.layout import IMAGE_ENCODER, LAYOUT, PARTS, UNET, VAE, VAE_DECODER, VAE_ENCODER
from nodes.engines.svd.placements import placements

TAKES: frozenset[Conditioning] = frozenset({"image", "video"})

#: Driver context and libraries of a CUDA process; the interpreter with PyTorch and diffusers on a CPU.
CONTEXT_BYTES = {"cuda": 800 * 2**20, "cpu": 512 * 2**20}
RESERVE_RATIO = {"cuda": 1.05, "cpu": 1.2}
WORKSPACE_BYTES = 64 * 2**20
_ELEMENT_BYTES = {"cuda": 2, "cpu": 4}
#: Of attention to one token, what the engine does not compute and so does not keep.
_NOT_KEPT = (".attn2.to_q.", ".attn2.to_k.", "transformer_blocks.0.norm2.")

#: Work for a million pixels of a frame, counted from the full-size model's graphs: a guided step at 1024x576,
#: decoding, encoding; and their parameters. What unmeasured workers are taken to do: full-size convolutions
#: keep a card less busy (a frame of 1024x576 was decoded in 0.083 s on an H200, a step of 25 took 0.617).
_TFLOP = {UNET: 10.4, VAE_DECODER: 10.4, VAE_ENCODER: 4.4}
_FULL_PARAMETERS = {UNET: 1_474_233_322, VAE_DECODER: 63_579_183, VAE_ENCODER: 34_163_664}
_PRIOR_TFLOPS = {"cuda": 25.0, "cpu": 0.1}
_VAE_SLOWER = {"cuda": 3.0, "cpu": 1.0}


def svd_spec(folder: Path, *, model: str, revision: str | None = None) -> EngineSpec:
    """Read the spec of a model folder in diffusers format.

    Half precision as a card holds it, but for the VAE's encoder; under ``on_cpu`` float32 with every
    component in memory.

    Args:
        folder: Holds model_index.json, unet, vae, image_encoder, feature_extractor, scheduler; and farm.json
            when the weights were not trained for what the published ones were.
        model: The name the farm knows it by.
        revision: Pinned hub revision; None for a local folder.

    Raises:
        CannotRun: the folder lacks a component, is of another model, or its farm.json is wrong.
    """
    check_folder(folder, LAYOUT)
    facts = model_facts(folder, ModelFacts)
    unet, vae = (read_json(folder, f"{name}/config.json") for name in (UNET, VAE))
    expected = "UNetSpatioTemporalConditionModel"
    if unet.get("_class_name") != expected:
        raise CannotRun(
            f"{folder / UNET} is {unet.get('_class_name')}, expected {expected}: use the engine of its family"
        )
    window = facts.window_frames or int(unet.get("num_frames", 25))
    tensors = _tensors(folder)
    tflop = {
        name: each
        * sum(math.prod(tensor.shape) for tensor in tensors[name].values())
        / _FULL_PARAMETERS[name]
        for name, each in _TFLOP.items()
    }

    def on(kind: DeviceKind, on_cpu: EngineSpec | None) -> EngineSpec:
        cost = _Cost.of(unet, vae, facts, window, tensors, kind)
        return EngineSpec(
            model=model,
            engine="svd",
            revision=revision,
            takes=TAKES,
            window_frames=window,
            frames=FrameRule(max_frames=max(MAX_FRAMES, window)),
            trained_windows=(window,),
            side_multiple=cost.pixels_per_latent * 2 ** (len(unet["block_out_channels"]) - 1),
            **{name: value for name, value in facts.model_dump().items() if name in _OF_THE_SPEC},
            component_bytes=cost.component_bytes,
            context_bytes=CONTEXT_BYTES[kind],
            reserve_ratio=RESERVE_RATIO[kind],
            rungs=tuple(cost.rung(placement) for placement in placements(kind)),
            prior_seconds_per_mpixel_step=tflop[UNET] / _PRIOR_TFLOPS[kind],
            decode_steps=_VAE_SLOWER[kind] * tflop[VAE_DECODER] / tflop[UNET],
            encode_steps=_VAE_SLOWER[kind] * tflop[VAE_ENCODER] / tflop[UNET],
            on_cpu=on_cpu,
        )

    return on("cuda", on("cpu", None))


_OF_THE_SPEC = (
    *("native_width", "native_height", "native_fps", "min_fps", "trained_sides", "vocabulary"),
    *("default_steps", "default_guidance_scale", "default_strength", "preview_steps"),
)


def _tensors(folder: Path) -> dict[str, dict[str, StoredTensor]]:
    """The tensors of each component, as the engine has them, by name."""
    stored = {
        name: component_tensors(folder / name, stem, half=False) for name, stem in LAYOUT.weights.items()
    }
    kept = {n: each for n, each in stored[UNET].items() if not any(part in n for part in _NOT_KEPT)}
    decoder = {n: each for n, each in stored[VAE].items() if n.startswith("decoder.")}
    encoder = {n: each for n, each in stored[VAE].items() if n not in decoder}
    return {
        UNET: kept,
        IMAGE_ENCODER: stored[IMAGE_ENCODER],
        VAE_ENCODER: encoder,
        VAE_DECODER: decoder,
    }


@dataclass(frozen=True)
class _Cost:
    """Bytes of the stages of one model on one kind of device (formulas: see the module)."""

    pixels_per_latent: int
    #: Per pixel of all frames; of one frame.
    denoise: float
    decode: float
    encode: float
    #: Of what a slice of the UNet's layers makes on its way.
    slice_bytes: int
    component_bytes: dict[str, int]
    #: Card bytes of the ring that streams a component.
    ring: dict[str, int]
    on_cpu: bool

    @classmethod
    def of(
        cls,
        unet: Mapping[str, Any],
        vae: Mapping[str, Any],
        facts: ModelFacts,
        window: int,
        tensors: Mapping[str, Mapping[str, StoredTensor]],
        kind: DeviceKind,
    ) -> _Cost:
        element = _ELEMENT_BYTES[kind]
        width, widths = unet["block_out_channels"][0], vae["block_out_channels"]
        side = 2 ** (len(widths) - 1)
        upcast = 4 if vae.get("force_upcast", True) else element
        sizes = {
            name: [math.prod(t.shape) * (upcast if name == VAE_ENCODER else element) for t in each.values()]
            for name, each in tensors.items()
        }
        voxels = 2 * window * facts.native_width * facts.native_height / side**2
        return cls(
            pixels_per_latent=side,
            denoise=element * 5.4 * width / side**2,
            decode=element * 5.0 * widths[min(1, len(widths) - 1)],
            encode=upcast * 5.0 * widths[0],
            # A window of a small model is no more than a slice.
            slice_bytes=element * min(ELEMENTS_AT_ONCE, round(17 * width * voxels)),
            component_bytes={name: sum(each) for name, each in sizes.items()},
            ring={name: ring_bytes(each) for name, each in sizes.items()},
            on_cpu=kind == "cpu",
        )

    def rung(self, placement: Placement) -> RungSpec:
        streamed = placement.streamed(PARTS)

        def stage(name: str, component: str, *, beside: int = 0, **cost: Any) -> StageCost:
            return StageCost(
                name=name,
                components=() if component in streamed else (component,),
                fixed_bytes=WORKSPACE_BYTES + beside + (self.ring[component] if component in streamed else 0),
                **cost,
            )

        # On a CPU both passes run side by side, and so do some frames.
        passes = placement.guided_batch if self.on_cpu else 1
        return RungSpec(
            name=placement.rung,
            resident=placement.resident(PARTS),
            # The VAE's encoder is cast to float32, in memory.
            in_files=(IMAGE_ENCODER, UNET) if placement.from_files else (),
            stages=(
                stage("image_encode", IMAGE_ENCODER),
                stage(
                    "vae_encode",
                    VAE_ENCODER,
                    bytes_per_pixel=self.encode,
                    frames_at_once=placement.decode_frames,
                ),
                stage(
                    "denoise",
                    UNET,
                    beside=self.slice_bytes * passes,
                    bytes_per_pixel=self.denoise,
                    batch=placement.guided_batch,
                ),
                stage(
                    "vae_decode",
                    VAE_DECODER,
                    bytes_per_pixel=self.decode,
                    frames_at_once=placement.decode_frames,
                ),
            ),
            slowdown=placement.slowdown,
        )
