"""Weight files are found on each machine, told apart by their content, and judged by their headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from farm.capabilities import LoraFile, WeightFile, Weights
from farm.errors import CannotRun, InvalidInput
from nodes.engines.folders import (
    Kept,
    StoredTensor,
    WeightSource,
    check_file,
    check_loras,
    found_here,
    source_bytes,
    sources_of,
    unpacked_bytes,
)
from nodes.engines.folders.weight_files import steps_of

ONE, TWO = ("transformer",), ("transformer", "transformer_2")


def written(path: Path, metadata: dict[str, str] | None = None, **tensors: tuple[int, ...]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = tensors or {"w": (2, 2)}
    save_file({name: np.ones(shape, np.float16) for name, shape in shapes.items()}, path, metadata=metadata)
    return path


def test_a_name_is_looked_up_in_this_machines_weights_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELFARM_WEIGHTS", str(tmp_path / "here"))
    path = written(tmp_path / "here" / "loras" / "a.safetensors")
    by_name = Weights(loras=(LoraFile(path=Path("loras/a.safetensors"), part="low", scale=0.5),))
    found = found_here(by_name)
    assert (found.loras[0].path, found.loras[0].part, found.loras[0].scale) == (path, "low", 0.5)
    assert found_here(Weights(loras=(LoraFile(path=path, part="low", scale=0.5),))) == found


def test_a_file_that_is_not_here_is_refused_with_where_it_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELFARM_WEIGHTS", str(tmp_path))
    for path, said in (
        (Path("a.gguf"), f"a.gguf is not in {tmp_path} on this machine: copy it there"),
        (tmp_path / "b.gguf", f"{tmp_path / 'b.gguf'} is no file on this machine: copy it there"),
    ):
        with pytest.raises(CannotRun) as refused:
            found_here(Weights(files=(WeightFile(path=path),)))
        assert (refused.value.message, refused.value.param) == (said, "weights")


def test_a_file_of_the_same_name_size_and_header_is_another_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", w=(300, 300))
    planned = found_here(Weights(loras=(LoraFile(path=path),)))
    assert found_here(planned) == planned
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CannotRun, match=r"another file than the one the job was planned with: copy that one"):
        found_here(planned)


def test_each_denoiser_gets_the_file_and_the_loras_that_are_for_it(tmp_path: Path) -> None:
    high, low = written(tmp_path / "h.safetensors"), written(tmp_path / "l.safetensors")
    loras = tuple(LoraFile(path=high, part=part, scale=n) for n, part in enumerate((None, "high", "low")))
    weights = Weights(
        files=(WeightFile(path=high, part="high"), WeightFile(path=low, part="low")),
        loras=loras,
        format="int8",
    )
    assert sources_of(weights, TWO, "m") == {
        "transformer": WeightSource(file=high, loras=loras[:2], format="int8"),
        "transformer_2": WeightSource(file=low, loras=(loras[0], loras[2]), format="int8"),
    }
    assert sources_of(Weights(format="bf16"), ONE, "m") == {"transformer": WeightSource()}


@pytest.mark.parametrize(
    ("denoisers", "weights", "param", "said"),
    [
        (ONE, {"files": ["high=a.safetensors"]}, "weights", "m has one transformer; leave high= out"),
        (ONE, {"loras": ["low=a.safetensors"]}, "loras", "m has one transformer; leave low= out"),
        (TWO, {"files": ["a.safetensors"]}, "weights", "m has two transformers; say which, high= or low="),
    ],
)
def test_a_part_that_the_model_has_not_is_refused(
    denoisers: tuple[str, ...], weights: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        sources_of(Weights.model_validate(weights), denoisers, "m")
    assert refused.value.param == param
    assert said in refused.value.message


def test_a_format_is_refused_for_a_file_in_fewer_bits(tmp_path: Path) -> None:
    path = tmp_path / "fp8.safetensors"
    save_file({"w": np.ones((4, 4), np.int8)}, path)
    weights = Weights(files=(WeightFile(path=path),), format="float8")
    with pytest.raises(InvalidInput, match=r"^weight_format is float8, and fp8.safetensors has fewer"):
        sources_of(weights, ONE, "m")


def tensor(type: str, *shape: int, nbytes: int = 0) -> StoredTensor:
    return StoredTensor(Path("x"), 0, nbytes, type, shape)


def test_bytes_are_those_of_the_format_the_file_and_the_branches(tmp_path: Path) -> None:
    lora = LoraFile(path=written(tmp_path / "l.safetensors", lora_A=(4, 20), lora_B=(10, 4)))
    plain = {"a.weight": tensor("BF16", 10, 20), "a.bias": tensor("BF16", 10)}
    packed = {"a.weight": tensor("Q4_K", 10, 20, nbytes=112), "a.bias": tensor("F32", 10)}
    kept = Kept()
    for source, tensors, held, unpacked in (
        (WeightSource(), plain, 400 + 20, 0),
        (WeightSource(loras=(lora,)), plain, 400 + 20, 0),
        (WeightSource(format="int8"), plain, 200 + 40 + 20, 400),
        (WeightSource(format="int8", loras=(lora,)), plain, 200 + 40 + 20, 400),
        (WeightSource(), packed, 112 + 20, 400),
        (WeightSource(loras=(lora,)), packed, 112 + 20 + 2 * (80 + 40), 400),
    ):
        assert sum(source_bytes(source, tensors, kept=kept, dtype_bytes=2)) == held
        assert unpacked_bytes(source, tensors, kept=kept, dtype_bytes=2) == unpacked


@pytest.mark.parametrize("pair", [("lora_A", "lora_B"), ("lora_down", "lora_up")])
def test_a_lora_for_another_model_is_told_by_the_shapes_it_changes(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    down, up = (f"blocks.0.q.{half}.weight" for half in pair)
    path = written(tmp_path / "l.safetensors", **{down: (4, 20), up: (10, 4)})
    source = WeightSource(loras=(LoraFile(path=path),))
    check_loras(source, {"other.name": tensor("BF16", 10, 20)}, "m")
    check_loras(source, {"conv": tensor("BF16", 10, 5, 2, 2)}, "m")
    with pytest.raises(InvalidInput, match=r"a matrix of 10x20 \(.*\), and m has none: it was made"):
        check_loras(source, {"other.name": tensor("BF16", 20, 20)}, "m")


#: Of a type: the bits of its largest number, and of what is none.
NO_NUMBERS: list[tuple[str, type[Any], int, tuple[int, ...]]] = [
    ("BF16", np.uint16, 0x7F7F, (0x7F80, 0xFF80, 0x7FC0)),
    ("F16", np.uint16, 0x7BFF, (0x7C00, 0xFC00, 0x7E01)),
    ("F32", np.uint32, 0x7F7FFFFF, (0x7F800000, 0xFF800000, 0x7FC00000)),
    ("F64", np.uint64, (0x7FF0 << 48) - 1, (0x7FF0 << 48, 0xFFF8 << 48)),
    ("F8_E5M2", np.uint8, 0x7B, (0x7C, 0xFE)),
    ("F8_E4M3", np.uint8, 0x7E, (0x7F, 0xFF)),
]


@pytest.mark.parametrize(("type", "words", "largest", "wrong"), NO_NUMBERS)
def test_a_lora_with_what_is_no_number_is_told_where_it_is_checked(
    tmp_path: Path, type: str, words: type[Any], largest: int, wrong: tuple[int, ...]
) -> None:
    path = tmp_path / "l.safetensors"
    source, tensors = WeightSource(loras=(LoraFile(path=path),)), {"q": tensor("BF16", 10, 20)}
    made = {"q.lora_A.weight": np.full((4, 20), largest, words), "q.lora_B.weight": np.zeros((10, 4), words)}
    write_typed(path, made, type)
    check_loras(source, tensors, "m")
    for word in wrong:
        made["q.lora_B.weight"][9, 3] = word
        write_typed(path, made, type)
        with pytest.raises(InvalidInput, match=r"holds values that are not finite \(q\.lora_B\.weight\)"):
            check_loras(source, tensors, "m")


def write_typed(path: Path, tensors: dict[str, Any], type: str) -> None:
    """A safetensors file of tensors of one type, whatever numpy knows of it."""
    header, data = {}, b""
    for name, each in tensors.items():
        offsets = [len(data), len(data) + each.nbytes]
        header[name] = {"dtype": type, "shape": list(each.shape), "data_offsets": offsets}
        data += each.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_a_whole_transformer_is_no_lora(tmp_path: Path) -> None:
    source = WeightSource(loras=(LoraFile(path=written(tmp_path / "t.safetensors", q=(8, 8))),))
    with pytest.raises(InvalidInput, match=r"has no key of a LoRA .*a whole transformer is given as weights"):
        check_loras(source, {"q": tensor("BF16", 8, 8)}, "m")


def test_a_file_of_a_transformer_has_the_square_matrices_of_every_layer() -> None:
    def square(dim: int, layers: int) -> dict[str, StoredTensor]:
        return {f"{n}.{name}": tensor("Q4_K", dim, dim) for n in range(layers) for name in "qkvo"}

    check_file(WeightSource(), {}, "m", dim=8, num_layers=2)
    source = WeightSource(file=Path("f.gguf"))
    check_file(source, square(8, 2), "m", dim=8, num_layers=2)
    for tensors, held in ((square(8, 1), 4), (square(16, 2), 0), ({"q.lora_A": tensor("F16", 4, 8)}, 0)):
        with pytest.raises(
            InvalidInput, match=rf"f.gguf has {held} matrices of 8x8, .*another model"
        ) as told:
            check_file(source, tensors, "m", dim=8, num_layers=2)
        assert told.value.param == "weights"


def test_a_lora_may_say_for_how_many_steps_it_was_made(tmp_path: Path) -> None:
    silent = LoraFile(path=written(tmp_path / "a.safetensors", {"author": "x"}))
    wrong = LoraFile(path=written(tmp_path / "b.safetensors", {"num_inference_steps": "many"}))
    said = LoraFile(
        path=written(tmp_path / "c.safetensors", {"num_inference_steps": "4", "guidance_scale": "1"})
    )
    assert steps_of((silent, wrong)) is None
    found = steps_of((silent, said))
    assert found is not None
    assert (found.name, found.num_inference_steps, found.guidance_scale) == ("c.safetensors", 4, 1.0)
