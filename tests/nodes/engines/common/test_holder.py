"""Any model with named components is placed by what it is told of them, whatever they are called."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from farm.capabilities.engine_spec import EngineSpec, RungSpec
from nodes.engines.common.holder import Holder
from nodes.engines.common.pieces import AttentionInRows, InPieces
from nodes.engines.common.placing import PlacedModel
from nodes.engines.engine import OutOfMemory
from nodes.engines.folders import stored_tensors
from nodes.engines.placement import Parts, Placement, once
from nodes.engines.weights import file_span
from nodes.engines.weights.files import MappedFiles

PARTS = Parts(denoisers=("high_noise", "low_noise"), vae="codec", encoders=("words",))
RESIDENT = Placement("resident", "resident", False, 1, 2, 4, 1.0)
EVICT = Placement("evict", "visiting", False, 1, 2, 4, 1.0)
CHUNK = Placement("chunk", "streamed", False, 4, 1, 1, 1.0)
STREAM = Placement("stream", "streamed", True, 4, 1, 1, 1.0)


class Attended(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.processor = AttentionInRows(None)


@dataclass
class Model:
    components: dict[str, Any] = field(default_factory=dict)


def model() -> Model:
    denoisers = {
        name: nn.Sequential(InPieces(nn.Linear(3, 3), share=2.0), Attended()) for name in PARTS.denoisers
    }
    return Model({**denoisers, "codec": nn.Linear(3, 3), "words": nn.Linear(3, 3)})


@pytest.mark.parametrize(
    ("placement", "resident", "streamed"),
    [
        # Denoisers take turns on the card where there are several.
        (RESIDENT, ("codec", "words"), ()),
        (EVICT, ("codec",), ()),
        (CHUNK, ("codec",), ("words",)),
        (STREAM, (), ("high_noise", "low_noise", "words")),
    ],
    ids=lambda value: getattr(value, "rung", None),
)
def test_a_rung_says_which_components_stay_and_which_pass_through_the_ring(
    placement: Placement, resident: tuple[str, ...], streamed: tuple[str, ...]
) -> None:
    assert placement.resident(PARTS) == resident
    assert placement.streamed(PARTS) == streamed


def test_what_is_streamed_once_is_not_copied_to_pinned_memory_first() -> None:
    assert [p.from_files for p in once((RESIDENT, EVICT, CHUNK, replace(STREAM, from_files=True)))] == [
        False,
        False,
        True,
        True,
    ]


def test_a_single_denoiser_stays_on_the_card_and_encoders_may_be_all_there_is() -> None:
    assert RESIDENT.resident(Parts(("unet",), "codec", ())) == ("unet", "codec")
    assert RESIDENT.resident(Parts((), None, ("words",))) == ("words",)
    assert CHUNK.streamed(Parts((), None, ("words",))) == ("words",)


def test_every_component_computes_the_same_at_every_rung_and_every_denoiser_runs_in_its_pieces() -> None:
    made = model()
    rows = torch.randn(2, 3)
    names = ("codec", "words")
    expected = [made.components[name](rows) for name in names]
    placed = PlacedModel(made, PARTS, "cpu", RESIDENT)
    for placement in (EVICT, CHUNK, STREAM, RESIDENT):
        placed.place(placement)
        for name, numbers in zip(names, expected, strict=True):
            with placed.on_card(name):
                assert torch.equal(made.components[name](rows), numbers)
        for name in PARTS.denoisers:
            layer, attended = made.components[name]
            assert (layer.pieces, attended.processor.pieces) == ((8, 4) if placement.pieces == 4 else (1, 1))


def holder(read: Any) -> Holder[Model]:
    spec = EngineSpec(
        model="made-up",
        engine="made_up",
        takes=frozenset({"image"}),
        native_width=64,
        native_height=64,
        component_bytes={},
        context_bytes=0,
        rungs=(RungSpec(name="resident", stages=()), RungSpec(name="stream", stages=())),
        prior_seconds_per_mpixel_step=1.0,
    )
    return Holder(
        spec,
        device="cpu",
        dtype=torch.float32,
        parts=PARTS,
        placements=(RESIDENT, EVICT, STREAM),
        read=read,
        cpu_threads=1,
    )


def test_a_model_is_read_once_for_all_rungs_and_again_after_it_was_unloaded() -> None:
    reads: list[int] = []

    def read() -> Model:
        reads.append(1)
        return model()

    held = holder(read)
    with pytest.raises(ValueError, match=r"made-up is not loaded: call load\(rung\) first"):
        _ = held.placed
    for rung in ("resident", "stream", "resident"):
        held.load(rung)  # type: ignore[arg-type]
    assert len(reads) == 1
    with pytest.raises(ValueError, match="rung is 'evict': made-up offers resident, stream"):
        held.load("evict")
    held.unload()
    held.load("stream")
    assert len(reads) == 2


@pytest.mark.parametrize("rung", ["resident", "stream"])
@pytest.mark.parametrize("is_circular", [False, True])
def test_weights_leave_the_host_with_the_model_and_no_garbage_is_looked_for_unless_there_is_some(
    rung: Any, is_circular: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, collected = model(), []
    if is_circular:
        made.components["codec"].itself = [made.components["codec"]]
    weights = [weakref.ref(p) for m in made.components.values() for p in m.parameters()]
    read = [made]
    held = holder(read.pop)
    held.load(rung)
    del made
    gc.disable()
    monkeypatch.setattr(gc, "collect", lambda collect=gc.collect: collected.append(1) or collect())
    try:
        held.unload()
    finally:
        gc.enable()
    assert not any(each() is not None for each in weights)
    assert bool(collected) == is_circular


def test_out_of_memory_while_reading_or_rendering_leaves_nothing_loaded_and_all_usable() -> None:
    memory = [2**55, 1]
    held = holder(lambda: torch.empty(memory.pop(0), dtype=torch.uint8) is not None and model())
    with pytest.raises(OutOfMemory):
        held.load("resident")
    held.load("resident")
    with pytest.raises(OutOfMemory), held.rendering():
        torch.empty(2**55, dtype=torch.uint8)
    with pytest.raises(ValueError, match="not loaded"):
        _ = held.placed


def test_a_component_comes_to_the_card_for_a_tensor_that_is_not_cached_and_else_not() -> None:
    held = holder(model)
    held.load("resident")
    made: list[str] = []

    def make(key: str) -> Any:
        return lambda: made.append(key) or torch.full((1, 2), float(len(made)))  # type: ignore[func-returns-value]

    first = held.cached("words", [(key, make(key)) for key in ("a", "b")])
    assert first.tolist() == [[1, 1], [2, 2]]
    held.unload()  # what was cached stays, and needs no model
    assert torch.equal(held.cached("words", [(key, make(key)) for key in ("a", "b")]), first)
    with pytest.raises(ValueError, match="not loaded"):
        held.cached("words", [("c", make("c"))])
    assert made == ["a", "b"]


def in_a_file(module: nn.Module, path: Path) -> None:
    save_file(module.state_dict(), path)
    files = MappedFiles()
    for name, tensor in stored_tensors(path).items():
        module.get_parameter(name).data = files.tensor(tensor)
    files.remember(module)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of its own memory, which is this machine's."""
    monkeypatch.setattr("nodes.engines.common.placing._copied", lambda data, device: data.clone())


@pytest.mark.usefixtures("card")
def test_a_component_that_is_mapped_from_files_is_mapped_again_when_it_leaves_the_card(
    tmp_path: Path,
) -> None:
    held = model()
    for name, module in held.components.items():
        in_a_file(module.requires_grad_(False), tmp_path / f"{name}.safetensors")
    weights = [p for module in held.components.values() for p in module.parameters()]
    before = [p.clone() for p in weights]
    from_files = replace(STREAM, from_files=True)
    placed = PlacedModel(held, PARTS, "cpu", RESIDENT)
    assert file_span(held.components["codec"].weight) is None
    for placement in (EVICT, CHUNK, STREAM, from_files, RESIDENT, from_files):
        placed.place(placement)
    for name in held.components:
        with placed.on_card(name):
            pass
    assert all(file_span(p) is not None for p in weights)
    assert all(torch.equal(p, was) for p, was in zip(weights, before, strict=True))


@pytest.mark.usefixtures("card")
def test_a_visit_to_the_card_copies_nothing_back() -> None:
    placed = PlacedModel(model(), PARTS, "cpu", EVICT)
    weight = placed.model.components["words"].weight
    before, address = weight.clone(), weight.data_ptr()
    with placed.on_card("words"):
        assert weight.data_ptr() != address
    assert weight.data_ptr() == address
    assert torch.equal(weight, before)
