"""What an I2VGen-XL model needs and allows, from its configs and file headers (no torch, no diffusers).

Activation bytes follow the tensors alive at the peak of each stage, in channels of the model's own config
(c0 = first UNet width, inner = 8 heads x attention_head_dim of ``transformer_in``, v = VAE widths):

* denoising, per latent voxel and batch row: GEGLU of ``transformer_in`` (projection 8 + gate 4 + product 4
  times ``inner``, input, residuals and output 4 more) = 20 inner + c0; in a model with a narrow ``inner``
  GEGLU of the last level (16 + 11.2) = 27.2 c0;
* denoising in pieces: 11.2 c0 of the last level beside GEGLU (3 skips, 2 of the up-sampler's output, input,
  residuals and output) and 2 in flight = 13.2 c0, taken as 14;
* VAE decoding, per pixel and frame: 4 v1 (first full-size resnet: input, activation, output, and cuDNN's
  copies of both), taken as 5: frame after frame the allocator leaves holes between the three sizes;
* VAE encoding, per pixel and frame: 4 v0.

At the full size in half precision: 21.1 kB, 9.0 kB, 2.56 kB and 1.0 kB. ``RESERVE_RATIO`` covers what the
allocator reserves over what is allocated, with expandable segments (see nodes/engines/memory/vram.py); other
segments need more. All rungs were measured on an H200 at 512x512x8 to 768x768x24, each in a process capped at
its need: held was 0.92 to 0.99 of predicted (benchmarks/results/i2vgen_xl_memory.json, checked by
tests/nodes/engines/i2vgen_xl/test_spec.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.capabilities import Conditioning, DeviceKind, EngineSpec, FrameRule, Rung, RungSpec, StageCost
from farm.errors import CannotRun
from nodes.engines.folders import check_folder, model_facts, read_json, tensor_sizes
from nodes.engines.i2vgen_xl.facts import ModelFacts
from nodes.engines.i2vgen_xl.layout import LAYOUT, PARTS
from nodes.engines.placement import Placement, ring_bytes

#: Driver context and libraries of a CUDA process (0.68 GiB on an H200, 0.77 when it streams); the interpreter
#: with PyTorch and diffusers on a CPU.
CONTEXT_BYTES = {"cuda": 800 * 2**20, "cpu": 512 * 2**20}
RESERVE_RATIO = {"cuda": 1.05, "cpu": 1.2}
#: Workspaces of matrix kernels, whatever the size (47 MiB on an H200).
WORKSPACE_BYTES = 64 * 2**20

#: Guided work of the full-size UNet (counted from its graph), and what unmeasured workers are taken to do.
#: A CPU moves activations beside that, so many seconds for a channel of the first level; a card launches a
#: pass layer by layer, in no less than a minimum. With them a model of 12 million weights in its UNet and 64
#: channels in the first level was predicted to take 3.8 s for a unit on a CPU, where 2.1 were measured on two
#: cores and 3.7 on one, and 0.19 on a card, as on an H200. Its VAE decoded a million pixels in 6.8 s on one
#: core and encoded them in 2.3; the published one has half the convolutions in its encoder.
_TFLOP_PER_MPIXEL_STEP = 10.0
_FULL_UNET_PARAMETERS = 1_420_469_224
_ELEMENT_BYTES = {"cuda": 2, "cpu": 4}
_PRIOR_TFLOPS = {"cuda": 25.0, "cpu": 0.15}
_PRIOR_S_PER_CHANNEL = {"cuda": 0.0, "cpu": 0.1}
_PRIOR_DECODE_S_PER_CHANNEL = {"cuda": 0.0, "cpu": 0.1}
_ENCODE_SHARE = 0.4
_PRIOR_MIN_STEP_S = {"cuda": 0.025, "cpu": 0.0}


#: In the ladder's order. Slowdowns were measured at 512x512x16 on an H200. Over all sizes they are 1.02 to
#: 1.07, 1.19 to 1.38, 1.03 to 1.33 and 1.24 to 1.92, the most at 512x512x8: there a pass is bound by its
#: launches and a copied weight is not hidden. A slower card computes longer per launch and per byte, and so
#: hides both better; one on a slow bus hides the copies worse, which is why cfg_split stands before stream.
PLACEMENTS = (
    Placement("resident", "resident", False, 1, 2, 4, 1.0),
    Placement("evict", "visiting", False, 1, 2, 4, 1.0),
    Placement("chunk", "streamed", False, 4, 2, 1, 1.04),
    Placement("cfg_split", "streamed", False, 4, 1, 1, 1.28),
    Placement("stream", "streamed", True, 4, 2, 1, 1.16),
    Placement("stream_cfg_split", "streamed", True, 4, 1, 1, 1.57),
)
_CPU_RUNGS: tuple[Rung, ...] = ("resident", "chunk", "cfg_split")
TAKES: frozenset[Conditioning] = frozenset({"image", "text", "video"})


def i2vgen_xl_spec(folder: Path, *, model: str, revision: str | None = None) -> EngineSpec:
    """Read the spec of a model folder in diffusers format.

    Half precision as a card holds it, and under ``on_cpu`` float32 with every component in memory.

    Args:
        folder: Holds model_index.json, unet, vae, text_encoder, image_encoder, tokenizer, feature_extractor,
            scheduler; and farm.json when the weights were not trained for what the published ones were.
        model: The name the farm knows it by.
        revision: Pinned hub revision; None for a local folder.

    Raises:
        CannotRun: the folder lacks a component, is no I2VGen-XL model, or its farm.json is wrong.
    """
    check_folder(folder, LAYOUT)
    facts = model_facts(folder, ModelFacts)
    unet = read_json(folder, "unet/config.json")
    vae = read_json(folder, "vae/config.json")
    if unet.get("_class_name") != "I2VGenXLUNet":
        raise CannotRun(
            f"{folder / 'unet'} is {unet.get('_class_name')}, expected I2VGenXLUNet: "
            "use the engine of its family"
        )
    elements = {name: tensor_sizes(folder / name, stem) for name, stem in LAYOUT.weights.items()}
    native_mpixels = facts.native_width * facts.native_height * facts.window_frames / 1e6

    def on(kind: DeviceKind, on_cpu: EngineSpec | None) -> EngineSpec:
        element_bytes = _ELEMENT_BYTES[kind]
        step_s = (
            _TFLOP_PER_MPIXEL_STEP * (sum(elements["unet"]) / _FULL_UNET_PARAMETERS) / _PRIOR_TFLOPS[kind]
            + _PRIOR_S_PER_CHANNEL[kind] * unet["block_out_channels"][0]
            + _PRIOR_MIN_STEP_S[kind] / native_mpixels
        )
        decode_s = (
            decoder_tflop_per_mpixel(vae) / _PRIOR_TFLOPS[kind]
            + _PRIOR_DECODE_S_PER_CHANNEL[kind] * vae["block_out_channels"][0]
        )
        cost = _Cost.of(unet, vae, elements, element_bytes)
        return EngineSpec(
            model=model,
            engine="i2vgen_xl",
            revision=revision,
            takes=TAKES,
            # Nothing fuses windows between steps yet.
            fusible=False,
            # Attention over time has no positional table: any length runs; 16 and 32 were trained.
            frames=FrameRule(max_frames=32),
            # Every level of the UNet but the last halves the latent once more.
            side_multiple=cost.vae_scale * 2 ** (len(unet["block_out_channels"]) - 1),
            **facts.model_dump(),
            component_bytes={name: sum(tensors) * element_bytes for name, tensors in elements.items()},
            context_bytes=CONTEXT_BYTES[kind],
            reserve_ratio=RESERVE_RATIO[kind],
            rungs=tuple(cost.rung(placement) for placement in placements(kind)),
            prior_seconds_per_mpixel_step=step_s,
            decode_steps=decode_s / step_s,
            encode_steps=_ENCODE_SHARE * decode_s / step_s,
            on_cpu=on_cpu,
        )

    return on("cuda", on("cpu", None))


def decoder_tflop_per_mpixel(vae: dict[str, Any]) -> float:
    """Work of a VAE decoder: twice the multiply-adds of its residual blocks and upsamplers."""
    widths: list[int] = vae["block_out_channels"]
    convolutions: int = 2 * (vae.get("layers_per_block", 1) + 1)
    before = widths[-1]
    macs_per_pixel: float = 4 * 9 * before**2 * 4.0 ** -(len(widths) - 1)  # two blocks in the middle
    for halvings, width in reversed(list(enumerate(widths))):
        own_pixels = 4.0**-halvings
        first, others = before * width, (convolutions - 1) * width**2
        macs_per_pixel += 9 * (first + others) * own_pixels
        if halvings:  # one more where it has been doubled in size
            macs_per_pixel += 9 * width**2 * 4 * own_pixels
        before = width
    return 2 * macs_per_pixel / 1e6


def placements(kind: DeviceKind) -> tuple[Placement, ...]:
    """The rungs offered on a kind of device. A CPU has no card to leave: only what is in flight shrinks."""
    if kind == "cuda":
        return PLACEMENTS
    return tuple(replace(p, encoders="resident") for p in PLACEMENTS if p.rung in _CPU_RUNGS)


@dataclass(frozen=True)
class _Cost:
    """Bytes per pixel of the stages of one model (formulas: see the module)."""

    vae_scale: int
    denoise_whole: float
    denoise_in_pieces: float
    decode: float
    encode: float
    #: Card bytes of the ring that streams a component.
    ring: dict[str, int]

    @classmethod
    def of(
        cls, unet: dict[str, Any], vae: dict[str, Any], elements: dict[str, list[int]], element_bytes: int
    ) -> _Cost:
        vae_widths = vae["block_out_channels"]
        width = unet["block_out_channels"][0]
        inner = 8 * unet["attention_head_dim"]
        vae_scale = 2 ** (len(vae_widths) - 1)
        per_pixel = element_bytes / vae_scale**2
        return cls(
            vae_scale=vae_scale,
            denoise_whole=per_pixel * max(20 * inner + width, 27.2 * width),
            denoise_in_pieces=per_pixel * max(14 * width, 6 * inner + width),
            decode=element_bytes * 5.0 * vae_widths[min(1, len(vae_widths) - 1)],
            encode=element_bytes * 4.0 * vae_widths[0],
            ring={
                name: ring_bytes([count * element_bytes for count in tensors])
                for name, tensors in elements.items()
            },
        )

    def rung(self, placement: Placement) -> RungSpec:
        streamed = placement.streamed(PARTS)

        def stage(name: str, component: str, **cost: Any) -> StageCost:
            return StageCost(
                name=name,
                components=() if component in streamed else (component,),
                fixed_bytes=WORKSPACE_BYTES + (self.ring[component] if component in streamed else 0),
                **cost,
            )

        pixel_bytes = self.denoise_whole if placement.pieces == 1 else self.denoise_in_pieces
        return RungSpec(
            name=placement.rung,
            resident=placement.resident(PARTS),
            stages=(
                stage("text_encode", "text_encoder"),
                stage("image_encode", "image_encoder"),
                stage("vae_encode", "vae", bytes_per_pixel=self.encode, frames_at_once=1),
                stage("denoise", "unet", bytes_per_pixel=pixel_bytes, batch=placement.guided_batch),
                stage(
                    "vae_decode",
                    "vae",
                    bytes_per_pixel=self.decode,
                    frames_at_once=placement.decode_frames,
                ),
            ),
            slowdown=placement.slowdown,
        )
