"""Which files a model's denoisers run from on this machine, told by their headers, without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farm.capabilities import EngineSpec, LoraFile, Weights
from farm.capabilities import WeightFormat as Format
from farm.errors import InvalidInput
from nodes.engines.folders.finite import not_finite
from nodes.engines.folders.formats import Kept, WeightFormat, stored_bytes
from nodes.engines.folders.single_file import file_tensors
from nodes.engines.folders.stored_tensors import PLAIN_TYPES, StoredTensor, component_tensors
from nodes.engines.folders.weight_files import steps_of

#: What files of a whole model have beside its transformer.
_OTHER_PARTS = ("vae.", "first_stage_model.", "text_encoder", "cond_stage_model.")


@dataclass(frozen=True)
class WeightSource:
    """Which weights a component runs with, beside a folder that has its config.

    Args:
        file: A single file in place of the folder's weights.
        loras: What is added to them, in this order.
        format: How they are kept; weights that come in fewer bits stay as they are.
        in_files: Convert plain weights, too, where they must be cast or have LoRAs, so that they can be
            streamed from files; else these are in memory.
    """

    file: Path | None = None
    loras: tuple[LoraFile, ...] = ()
    format: WeightFormat = "plain"
    in_files: bool = False

    def streamable(self, in_files: bool) -> WeightSource:
        """The same weights, such that they can be streamed from files if ``in_files``."""
        return replace(self, in_files=in_files or self.in_files)


#: Weights as a folder has them.
THE_FOLDERS = WeightSource()


def sources_of(weights: Weights, denoisers: Sequence[str], model: str) -> dict[str, WeightSource]:
    """What each denoiser of a model runs from, by its name; ``weights`` as ``found_here`` gives them.

    Args:
        denoisers: Their names: one, or the one for high noise levels and the one for low.
        model: Its name, for refusals.

    Raises:
        InvalidInput: a part is named that the model has not, or none of two, or a file has fewer bits and a
            format is asked for.
        CannotRun: a file cannot be read.
    """
    for param, files in (("weights", weights.files), ("loras", weights.loras)):
        for file in files:
            if file.part and len(denoisers) == 1:
                raise InvalidInput(
                    f"{param}: {file}: {model} has one transformer; leave {file.part}= out", param=param
                )
            if param == "weights" and not file.part and len(denoisers) > 1:
                raise InvalidInput(
                    f"{param}: {file}: {model} has two transformers; say which, high= or low=", param=param
                )
    for file in weights.files:
        if weights.format is not None and in_fewer_bits(file_tensors(file.path)):
            raise InvalidInput(
                f"weight_format is {weights.format}, and {file.path.name} has fewer bits already; leave one "
                "of them out",
                param="weight_format",
            )
    parts = dict(zip(denoisers, (None,) if len(denoisers) == 1 else ("high", "low"), strict=False))
    return {
        name: WeightSource(
            file=next((file.path for file in weights.files if file.part == part), None),
            loras=tuple(lora for lora in weights.loras if lora.part in (None, part)),
            format="plain" if weights.format is None or weights.format == "bf16" else weights.format,
        )
        for name, part in parts.items()
    }


def source_tensors(
    source: WeightSource, component: Path, stem: str, *, half: bool
) -> dict[str, StoredTensor]:
    """The tensors of a component that runs from ``source``, as its file or its folder names them.

    Args:
        component: Its folder.
        stem: Of the folder's weight files (see ``Layout``).
        half: Read the smaller files where there are two.

    Raises:
        CannotRun: a file is missing or damaged.
    """
    if source.file is None:
        return component_tensors(component, stem, half=half)
    found = file_tensors(source.file)
    return {name: tensor for name, tensor in found.items() if not name.startswith(_OTHER_PARTS)}


def in_fewer_bits(tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether matrices come in a type that nothing but their layer can read."""
    return any(len(t.shape) == 2 and t.type not in PLAIN_TYPES for t in tensors.values())


def source_bytes(
    source: WeightSource, tensors: Mapping[str, StoredTensor], *, kept: Kept, dtype_bytes: int
) -> list[int]:
    """Bytes of each tensor that a component holds when it runs from ``source``.

    Args:
        tensors: Of its file, or of its folder.
        kept: What its model keeps.
        dtype_bytes: Of the dtype of computation.
    """
    held = [
        stored_bytes({name: tensor}, source.format, kept=kept, dtype_bytes=dtype_bytes)
        for name, tensor in tensors.items()
    ]
    # Beside weights in fewer bits LoRAs are branches; else they are added to the weights.
    beside = source.loras if in_fewer_bits(tensors) else ()
    return held + [
        math.prod(tensor.shape) * dtype_bytes
        for lora in beside
        for tensor in file_tensors(lora.path).values()
    ]


def unpacked_bytes(
    source: WeightSource, tensors: Mapping[str, StoredTensor], *, kept: Kept, dtype_bytes: int
) -> int:
    """Bytes of the largest weight that its layer dequantises to compute; 0 where none is in fewer bits."""
    sizes = (
        math.prod(tensor.shape) * dtype_bytes
        for name, tensor in tensors.items()
        if tensor.type not in PLAIN_TYPES or (source.format != "plain" and kept.quantises(name, tensor.shape))
    )
    return max(sizes, default=0)


def in_formats(
    weights: Weights,
    *,
    is_free: bool,
    made: Callable[[Weights], EngineSpec],
    distance_db: Mapping[Format, float],
) -> EngineSpec:
    """The spec of a model with these weights, and beside it what a plan may propose in their place.

    Args:
        is_free: Whether they come in 16 bits or more, and so may be kept in fewer.
        made: The spec with some weights.
        distance_db: How near each format is to 16 bits, where that is known.
    """
    said = steps_of(weights.loras)
    changes: dict[str, object] = {}
    if said is not None:
        changes = {"default_steps": said.num_inference_steps, "steps_from": said.name}
        if said.guidance_scale is not None:
            changes["default_guidance_scale"] = said.guidance_scale
    spec = made(weights).model_copy(update=changes)
    if not is_free or weights.format not in (None, "bf16"):
        return spec
    # int8 before float8: as many bytes, and nearer to 16 bits.
    formats: tuple[Format, ...] = ("int8", "float8")
    lighter = tuple(
        made(weights.model_copy(update={"format": format})).model_copy(
            update={**changes, "format_db": distance_db.get(format)}
        )
        for format in formats
    )
    return spec.model_copy(update={"in_fewer_bits": lighter})


def check_file(
    source: WeightSource, tensors: Mapping[str, StoredTensor], model: str, *, dim: int, num_layers: int
) -> None:
    """Refuse a file in place of a transformer that is of another size, or no transformer at all.

    Names differ between authors and tools, shapes do not: a layer has at least the four square matrices of
    its self-attention.

    Args:
        tensors: The component's, whatever their names.
        dim: Elements of a token between the layers.

    Raises:
        InvalidInput: the file has too few such matrices.
    """
    if source.file is None:
        return
    held = sum(tuple(tensor.shape) == (dim, dim) for tensor in tensors.values())
    if held < 4 * num_layers:
        raise InvalidInput(
            f"{source.file} has {held} matrices of {dim}x{dim}, and the {num_layers} layers of {model} have "
            f"at least {4 * num_layers}: it was made for another model, or is no whole transformer",
            param="weights",
        )


def check_loras(source: WeightSource, tensors: Mapping[str, StoredTensor], model: str) -> None:
    """Refuse a LoRA that was made for another model: one that changes matrices of shapes this one has not.

    And a file that is none, such as a whole transformer, or that holds what is no number: that would be seen
    when the first step is done.

    Args:
        tensors: The component's, whatever their names.

    Raises:
        InvalidInput: a LoRA's shapes do not fit, its values are not finite, or it is none.
        CannotRun: a LoRA cannot be read.
    """
    shapes = {_as_matrix(tensor.shape) for tensor in tensors.values() if len(tensor.shape) > 1}
    for lora in source.loras:
        held = file_tensors(lora.path)
        if not any("lora" in name or ".diff" in name for name in held):
            raise InvalidInput(
                f"{lora.path} has no key of a LoRA (lora_A and lora_B, lora_down and lora_up, diff, diff_b); "
                "a whole transformer is given as weights",
                param="loras",
            )
        for name, changed in _changed(held):
            if changed not in shapes:
                raise InvalidInput(
                    f"{lora.path} changes a matrix of {changed[0]}x{changed[1]} ({name}), and {model} has "
                    "none: it was made for another model",
                    param="loras",
                )
        wrong = not_finite(held)
        if wrong is not None:
            raise InvalidInput(
                f"{lora.path} holds values that are not finite ({wrong}): it is damaged, or its training "
                "failed; give another",
                param="loras",
            )


def _changed(tensors: Mapping[str, StoredTensor]) -> Iterable[tuple[str, tuple[int, int]]]:
    """Of each low-rank pair of a LoRA: the name of its first half, and the shape of what it changes."""
    for name, down in tensors.items():
        for of_down, of_up in (("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up")):
            up = tensors.get(name.replace(of_down, of_up)) if of_down in name else None
            if up is not None and up.shape and down.shape:
                yield name, (up.shape[0], _as_matrix(down.shape)[1])


def _as_matrix(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])
