"""What an AnimateDiff model needs and allows, from its configs and file headers (no torch).

Activation bytes follow the tensors alive at the peak of each stage, at e bytes an element (c = first width of
the U-Net, v = widths of the VAE):

* denoising, per latent voxel of a context and batch row: 6.1 c elements; with a SparseCtrl 9.25 c, for what
  it adds to every skip is there from the start; beside them what a slice of a layer makes on its way;
* the VAE as that of I2VGen-XL, per pixel and frame: 5 v1 to decode and 4 v0 to encode.

Traced by tests/nodes/engines/animatediff/test_live_bytes.py; not measured on a card yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.capabilities import (
    OWN_WEIGHTS,
    Conditioning,
    DeviceKind,
    EngineSpec,
    FrameRule,
    RungSpec,
    StageCost,
    Weights,
)
from farm.errors import CannotRun
from nodes.engines.animatediff.facts import ModelFacts
from nodes.engines.animatediff.layout import (
    BEHIND_ENCODER,
    CHECKPOINT_PREFIX,
    DENOISER,
    IMAGE_ENCODER,
    IN_ATTENTION,
    KEPT,
    LOOK,
    PARTS,
    TEXT_ENCODER,
    UNET,
    VAE,
    AnimateDiffFolder,
    read_folder,
)
from nodes.engines.animatediff.placements import placements
from nodes.engines.animatediff.textual_inversions import check_inversions, without_inversions
from nodes.engines.folders import (
    THE_FOLDERS,
    Kept,
    StoredTensor,
    WeightSource,
    check_file,
    check_loras,
    component_tensors,
    file_tensors,
    in_fewer_bits,
    in_formats,
    model_facts,
    read_json,
    source_bytes,
    source_tensors,
    sources_of,
    unpacked_bytes,
)
from nodes.engines.placement import ELEMENTS_AT_ONCE, Placement, ring_bytes

_FRAMES: frozenset[Conditioning] = frozenset({"image", "last_image", "keyframes"})
_LOOK: frozenset[Conditioning] = frozenset({"references"})
TAKES: frozenset[Conditioning] = _FRAMES | _LOOK | {"text", "text_alone", "video"}

#: Driver context and libraries of a CUDA process; the interpreter with PyTorch and diffusers on a CPU.
CONTEXT_BYTES = {"cuda": 800 * 2**20, "cpu": 512 * 2**20}
RESERVE_RATIO = {"cuda": 1.05, "cpu": 1.2}
WORKSPACE_BYTES = 64 * 2**20
_ELEMENT_BYTES = {"cuda": 2, "cpu": 4}

#: Work for a million pixels of a frame: a guided step, counted from the full-size U-Net's graph, decoding
#: and encoding; their parameters; and what unmeasured workers are taken to do.
_TFLOP = {DENOISER: 7.0, VAE: 10.0}
_FULL_PARAMETERS = {DENOISER: 1_276_658_564, VAE: 83_653_863}
#: What is counted for latents and frames beside a context is a workspace.
_MAX_FRAMES = 256
_PRIOR_TFLOPS = {"cuda": 25.0, "cpu": 0.1}
_ENCODE_SHARE = 0.4


def animatediff_spec(
    path: Path, *, model: str, revision: str | None = None, weights: Weights = OWN_WEIGHTS
) -> EngineSpec:
    """Read the spec of a model folder in diffusers format.

    Half precision as a card holds it, and under ``on_cpu`` float32 with every component in memory.

    Args:
        path: Holds model_index.json, unet, vae, text_encoder, tokenizer, scheduler, ``motion_adapter`` where
            the unet has no motion modules, perhaps ``controlnet``; and farm.json when the weights were not
            trained for what the published ones were.
        model: The name the farm knows it by.
        revision: Pinned hub revision; None for a local folder.
        weights: What its U-Net runs from, as ``found_here`` gives them.

    Raises:
        CannotRun: the folder lacks a component, is of another model, or its farm.json is wrong.
        InvalidInput: the weights do not fit the model.
    """
    source, inversions = without_inversions(sources_of(weights, PARTS.denoisers, model)[DENOISER])
    folder = read_folder(path, has_unet=source.file is None)
    facts = model_facts(path, ModelFacts)
    tensors = {name: _tensors(folder, name, source) for name in folder.weights()}
    _check_weights(source, tensors, model, folder)
    _add_look(folder, tensors)
    width = int(read_json(path, f"{TEXT_ENCODER}/config.json").get("hidden_size", 768))
    check_inversions(inversions, weights.loras, path, width=width, model=model)
    tensors[TEXT_ENCODER] = {**tensors[TEXT_ENCODER], **{each.word: each.tensor for each in inversions}}
    parameters = {
        name: sum(math.prod(t.shape) for each in _of(name, tensors) for t in each.values()) for name in _TFLOP
    }
    tflop = {name: each * parameters[name] / _FULL_PARAMETERS[name] for name, each in _TFLOP.items()}
    longest = int((folder.adapter or folder.unet).get("motion_max_seq_length", 32))
    context = min(facts.window_frames, longest)

    def on(kind: DeviceKind, weights: Weights, on_cpu: EngineSpec | None) -> EngineSpec:
        in_format, _ = without_inversions(sources_of(weights, PARTS.denoisers, model)[DENOISER])
        held, unpacked = _held(tensors, in_format, _ELEMENT_BYTES[kind])
        cost = _Cost.of(folder, facts, held, kind, unpacked_bytes=unpacked)
        return EngineSpec(
            model=model,
            engine="animatediff",
            revision=revision,
            weights=weights,
            taught_words=tuple(each.word for each in inversions),
            takes=TAKES
            - (frozenset() if folder.control is not None else _FRAMES)
            - (frozenset() if folder.look is not None else _LOOK),
            frames=FrameRule(max_frames=_MAX_FRAMES),
            context_frames=context,
            trained_windows=(facts.window_frames,),
            knows_rates=False,
            side_multiple=folder.pixels_per_latent * 2 ** (len(folder.unet["block_out_channels"]) - 1),
            **facts.model_dump(exclude={"sampler", "timestep_spacing", "ip_adapter_scale"}),
            component_bytes=cost.component_bytes,
            context_bytes=CONTEXT_BYTES[kind],
            reserve_ratio=RESERVE_RATIO[kind],
            rungs=tuple(cost.rung(placement) for placement in placements(kind)),
            prior_seconds_per_mpixel_step=tflop[DENOISER] / _PRIOR_TFLOPS[kind],
            decode_steps=tflop[VAE] / tflop[DENOISER],
            encode_steps=_ENCODE_SHARE * tflop[VAE] / tflop[DENOISER],
            on_cpu=on_cpu,
        )

    return in_formats(
        weights,
        is_free=not in_fewer_bits(tensors[UNET]),
        made=lambda each: on("cuda", each, on("cpu", each, None)),
        distance_db={},
    )


_Tensors = Mapping[str, StoredTensor]


def _tensors(folder: AnimateDiffFolder, name: str, source: WeightSource) -> _Tensors:
    """The tensors of one of the folders; of a whole checkpoint in one file those of its U-Net."""
    path, stem = folder.path / name, folder.weights()[name]
    if name != UNET:
        return component_tensors(path, stem, half=False)
    found = source_tensors(source, path, stem, half=False)
    own = {key: tensor for key, tensor in found.items() if key.startswith(CHECKPOINT_PREFIX)}
    return own or found


def _check_weights(
    source: WeightSource, tensors: Mapping[str, _Tensors], model: str, folder: AnimateDiffFolder
) -> None:
    """
    Raises:
        InvalidInput: a file or a LoRA is of another model.
    """
    # Of each transformer at the full size, self-attention is four squares.
    layers = 2 * int(folder.unet.get("layers_per_block", 2)) + 1
    width = folder.unet["block_out_channels"][0]
    check_file(source, tensors[UNET], model, dim=width, num_layers=layers)
    check_loras(source, {f"{n} {key}": t for n, each in tensors.items() for key, t in each.items()}, model)


_APART = (VAE, TEXT_ENCODER, IMAGE_ENCODER)


def _add_look(folder: AnimateDiffFolder, tensors: dict[str, _Tensors]) -> None:
    """Count what an IP-Adapter adds to attention and to the image encoder.

    Raises:
        CannotRun: it is one that looks at faces by another program, or of another U-Net.
    """
    if folder.look is None:
        return
    found = file_tensors(folder.look)
    parts = {
        prefix: {name: t for name, t in found.items() if name.startswith(prefix)}
        for prefix in (IN_ATTENTION, BEHIND_ENCODER)
    }
    wanted = int(folder.unet.get("cross_attention_dim", 768))
    reads = {tensor.shape[-1] for tensor in parts[IN_ATTENTION].values()}
    is_known = any(f"{BEHIND_ENCODER}{name}" in found for name in ("proj.weight", "latents"))
    if reads != {wanted} or not is_known or any("perceiver" in name for name in found):
        raise CannotRun(
            f"{folder.look} is no IP-Adapter that this model can read (of {sorted(reads)} numbers a token, "
            f"expected {wanted}): give ip-adapter_sd15, -light or -plus in safetensors"
        )
    tensors[LOOK] = parts[IN_ATTENTION]
    tensors[IMAGE_ENCODER] = {**tensors[IMAGE_ENCODER], **parts[BEHIND_ENCODER]}


def _of(component: str, tensors: Mapping[str, _Tensors]) -> Iterator[_Tensors]:
    """Of the folders' tensors those of a component."""
    for name, each in tensors.items():
        if component == (name if name in _APART else DENOISER):
            yield each


def _held(
    tensors: Mapping[str, _Tensors], source: WeightSource, element_bytes: int
) -> tuple[dict[str, list[int]], int]:
    """Bytes of every tensor that each component holds, and of the largest that is dequantised to compute."""
    held = {
        name: source_bytes(THE_FOLDERS, each, kept=Kept(), dtype_bytes=element_bytes)
        for name in _APART
        for each in _of(name, tensors)
    }
    parts = enumerate(_of(DENOISER, tensors))
    denoiser = {f"{i} {name}": tensor for i, each in parts for name, tensor in each.items()}
    more: dict[str, Any] = {"kept": KEPT, "dtype_bytes": element_bytes}
    held[DENOISER] = source_bytes(source, denoiser, **more)
    return held, unpacked_bytes(source, denoiser, **more)


@dataclass(frozen=True)
class _Cost:
    """Bytes of the stages of one model on one kind of device (formulas: see the module)."""

    denoise: float
    decode: float
    encode: float
    #: Of what a slice of the U-Net's layers makes on its way.
    slice_bytes: int
    context_frames: int
    component_bytes: dict[str, int]
    #: Card bytes of the ring that streams a component.
    ring: dict[str, int]
    #: Of the largest weight of the denoiser that is dequantised to compute.
    unpacked_bytes: int
    on_cpu: bool

    @classmethod
    def of(
        cls,
        folder: AnimateDiffFolder,
        facts: ModelFacts,
        held: Mapping[str, Sequence[int]],
        kind: DeviceKind,
        *,
        unpacked_bytes: int = 0,
    ) -> _Cost:
        """Of a model whose components hold tensors of so many bytes."""
        element, side = _ELEMENT_BYTES[kind], folder.pixels_per_latent
        width, widths = folder.unet["block_out_channels"][0], folder.vae["block_out_channels"]
        alive = 6.1 if folder.control is None else 9.25
        voxels = 2 * facts.window_frames * facts.native_width * facts.native_height / side**2
        return cls(
            denoise=element * alive * width / side**2,
            decode=element * 5.0 * widths[min(1, len(widths) - 1)],
            encode=element * 4.0 * widths[0],
            context_frames=facts.window_frames,
            # A window of a small model is no more than a slice.
            slice_bytes=element * min(ELEMENTS_AT_ONCE, round(17 * width * voxels)),
            component_bytes={name: sum(each) for name, each in held.items()},
            ring={name: ring_bytes(each) for name, each in held.items()},
            unpacked_bytes=unpacked_bytes,
            on_cpu=kind == "cpu",
        )

    def rung(self, placement: Placement) -> RungSpec:
        streamed = placement.streamed(PARTS)

        def stage(name: str, component: str, *, beside: int = 0, **cost: Any) -> StageCost:
            ring = self.ring[component] if component in streamed else 0
            return StageCost(
                name=name,
                components=() if component in streamed else (component,),
                fixed_bytes=WORKSPACE_BYTES + beside + ring,
                **cost,
            )

        # On a CPU both passes run side by side, and so do some frames.
        passes = placement.guided_batch if self.on_cpu else 1
        at_once = placement.decode_frames
        return RungSpec(
            name=placement.rung,
            # What sees references visits a card; on a CPU everything is in its one memory.
            resident=tuple(self.component_bytes) if self.on_cpu else placement.resident(PARTS),
            in_files=tuple(sorted(streamed)) if placement.from_files else (),
            stages=(
                stage("text_encode", TEXT_ENCODER),
                *([stage("image_encode", IMAGE_ENCODER)] if IMAGE_ENCODER in self.component_bytes else []),
                stage(
                    "vae_encode",
                    VAE,
                    bytes_per_pixel=self.encode,
                    frames_at_once=at_once if self.on_cpu else 1,
                ),
                stage(
                    "denoise",
                    DENOISER,
                    beside=(self.slice_bytes + self.unpacked_bytes) * passes,
                    bytes_per_pixel=self.denoise,
                    batch=placement.guided_batch,
                    frames_at_once=self.context_frames,
                ),
                stage("vae_decode", VAE, bytes_per_pixel=self.decode, frames_at_once=at_once),
            ),
            slowdown=placement.slowdown,
        )
