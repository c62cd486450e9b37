from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nodes.engines.folders import StoredTensor, stored_tensors
from nodes.engines.streaming.weight_ring import WeightRing
from nodes.engines.weights import file_span, read_into
from nodes.engines.weights.files import MappedFiles

LAYER_BYTES = 4 * (16 * 16 + 16)


class _Stack(nn.Module):
    """Nine layers called in an order of choice, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(9))
        self.scale = nn.Parameter(torch.full((16,), 1.5))

    def forward(self, x: torch.Tensor, order: list[int]) -> torch.Tensor:
        for index in order:
            x = torch.tanh(self.layers[index](x)) * self.scale
        return x


@pytest.fixture
def stack() -> _Stack:
    torch.manual_seed(3)
    return _Stack().requires_grad_(False)


def _on_card(stack: _Stack, ring: WeightRing) -> int:
    host = [group.flat.untyped_storage().data_ptr() for group in ring._groups]
    return sum(layer.weight.untyped_storage().data_ptr() not in host for layer in stack.layers)


@pytest.mark.parametrize("slots", [2, 3, 9])
def test_a_streamed_module_gives_exactly_the_numbers_of_a_resident_one(stack: _Stack, slots: int) -> None:
    x = torch.randn(5, 16)
    order = list(range(9))
    expected = stack(x, order)
    ring = WeightRing(stack, "cpu", group_bytes=LAYER_BYTES, slots=slots)
    with ring:
        passes = [stack(x, order) for _ in range(3)]
    assert all(torch.equal(got, expected) for got in passes)


def test_layers_called_out_of_order_twice_or_not_at_all_stay_right(stack: _Stack) -> None:
    x = torch.randn(5, 16)
    orders = [[0, 1, 2, 3, 4, 5, 6, 7, 8], [8, 0, 0, 5, 1], [3, 3, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8]]
    expected = [stack(x, order) for order in orders]
    with WeightRing(stack, "cpu", group_bytes=LAYER_BYTES, slots=2):
        got = [stack(x, order) for order in orders]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_no_more_layers_are_on_the_card_than_there_are_slots(stack: _Stack) -> None:
    ring = WeightRing(stack, "cpu", group_bytes=LAYER_BYTES, slots=3)
    most = 0

    def count(*_: object) -> None:
        nonlocal most
        most = max(most, _on_card(stack, ring))

    for layer in stack.layers:
        layer.register_forward_hook(count)
    with ring:
        for _ in range(3):
            stack(torch.randn(5, 16), list(range(9)))
    assert most == 3
    assert _on_card(stack, ring) == 0
    assert ring.slot_bytes < 2 * LAYER_BYTES


@pytest.mark.parametrize("order", [list(range(9)), list(range(8, -1, -1))], ids=["the module's", "another"])
def test_the_next_layers_are_there_before_they_are_called_once_the_order_is_known(
    stack: _Stack, order: list[int]
) -> None:
    ring = WeightRing(stack, "cpu", group_bytes=LAYER_BYTES, slots=3)
    fetched: list[bool] = []
    with ring:
        if order[0]:  # in the module's, it is known from the start
            stack(torch.randn(5, 16), order)
        for group, layer in zip(ring._groups, stack.layers, strict=True):
            # Runs before the ring's own hook.
            layer.register_forward_pre_hook(
                lambda *_, group=group: fetched.append(group.slot is not None), prepend=True
            )
        stack(torch.randn(5, 16), order)
        stack(torch.randn(5, 16), order)
    assert fetched[1:] == [True] * 17


def test_a_streamed_module_outside_its_ring_fails_with_what_to_do(stack: _Stack) -> None:
    WeightRing(stack, "cpu", group_bytes=LAYER_BYTES, slots=2)
    with pytest.raises(RuntimeError, match="enter the ring first"):
        stack(torch.randn(5, 16), [0])


def test_a_detached_module_is_an_ordinary_one_again(stack: _Stack) -> None:
    x = torch.randn(5, 16)
    expected = stack(x, [4, 2])
    ring = WeightRing(stack, "cpu", group_bytes=LAYER_BYTES, slots=2)
    with ring:
        stack(x, [0, 1, 2])
    ring.detach()
    assert torch.equal(stack(x, [4, 2]), expected)


def test_one_slot_is_refused(stack: _Stack) -> None:
    with pytest.raises(ValueError, match="slots is 1"):
        WeightRing(stack, "cpu", group_bytes=LAYER_BYTES, slots=1)


@pytest.fixture
def mapped(stack: _Stack, tmp_path: Path) -> _Stack:
    """The stack with the weights of its layers in a file, and its own parameter in memory."""
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor for name, tensor in stack.state_dict().items() if name != "scale"}, path)
    files = MappedFiles()
    for name, tensor in stored_tensors(path).items():
        owner, _, leaf = name.rpartition(".")
        parameter = nn.Parameter(files.tensor(tensor), requires_grad=False)
        setattr(stack.get_submodule(owner), leaf, parameter)
    files.remember(stack)
    return stack


@pytest.mark.parametrize("slots", [2, 3])
def test_weights_that_wait_in_their_files_give_exactly_the_same_numbers(mapped: _Stack, slots: int) -> None:
    x = torch.randn(5, 16)
    orders = [[0, 1, 2, 3, 4, 5, 6, 7, 8], [8, 0, 0, 5, 1], [3, 3, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8]]
    copies = WeightRing(mapped, "cpu", group_bytes=LAYER_BYTES, slots=slots)
    with copies:
        expected = [mapped(x, order) for order in orders]
    copies.detach()
    ring = WeightRing(mapped, "cpu", group_bytes=LAYER_BYTES, slots=slots, from_files=True)
    for _ in range(2):
        with ring:
            got = [mapped(x, order) for order in orders]
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    # Nothing was copied to host memory, and outside the ring everything is mapped as before.
    assert all(group.flat is None for group in ring._groups)
    assert all(file_span(p) is not None for p in mapped.layers.parameters())


def test_a_weight_that_is_no_longer_what_its_file_holds_is_taken_from_memory(mapped: _Stack) -> None:
    x = torch.randn(5, 16)
    changed = mapped.layers[3].weight
    changed.data = changed.data + 1
    expected = mapped(x, [2, 3])
    with WeightRing(mapped, "cpu", group_bytes=LAYER_BYTES, slots=2, from_files=True):
        got = mapped(x, [2, 3])
    torch.testing.assert_close(got, expected)


def test_a_ring_of_copies_leaves_a_mapped_module_mapped(mapped: _Stack) -> None:
    ring = WeightRing(mapped, "cpu", group_bytes=LAYER_BYTES, slots=2)
    assert file_span(mapped.layers[0].weight) is None
    ring.detach()
    assert all(file_span(p) is not None for p in mapped.layers.parameters())


def test_a_file_that_cannot_be_read_ends_the_pass_with_its_name(mapped: _Stack) -> None:
    span = file_span(mapped.layers[0].weight)
    assert span is not None
    ring = WeightRing(mapped, "cpu", group_bytes=LAYER_BYTES, slots=2, from_files=True)
    span.path.rename(span.path.with_name("elsewhere"))
    with pytest.raises(OSError, match=r"weights\.safetensors"), ring:
        mapped(torch.randn(5, 16), [0])


def test_copies_of_mapped_weights_are_read_past_the_mapping(
    mapped: _Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of the mapping would be held beside the copies."""
    read: list[int] = []

    def counted(span: StoredTensor, buffer: torch.Tensor, *, first: int) -> None:
        read.append(buffer.nbytes)
        read_into(span, buffer, first=first)

    monkeypatch.setattr("nodes.engines.weights.files.read_into", counted)
    expected = mapped(torch.ones(1, 16), [4])
    ring = WeightRing(mapped, "cpu", group_bytes=LAYER_BYTES, slots=2)
    assert sum(read) == 9 * LAYER_BYTES
    with ring:
        torch.testing.assert_close(mapped(torch.ones(1, 16), [4]), expected)
