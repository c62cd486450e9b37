"""Run a module whose weights do not fit on the card, by copying them through a ring of fixed slots.

The weights wait in host memory, one flat (pinned) buffer per group of layers, or in the files they are mapped
from. While one group computes, the next ones are copied into the other slots on a stream of their own;
streams wait for each other by events, so the host never waits but for a disk, and the allocator is never
asked during a pass. Each group crosses once a pass, however its inner layers are called: this is why
feed-forward layers that run in pieces cost no second copy. The order of the groups is the module's at first,
and learned from every pass; a group that is not there in time is fetched on demand, so a wrong guess costs
time and never correctness. Needed card bytes: ``slots`` x the largest group.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from nodes.engines.streaming.file_reader import FileReader
from nodes.engines.streaming.pinned import PinnedMemory
from nodes.engines.streaming.pinned_weights import layout, moved_into, view, weights_of
from nodes.engines.weights import file_span

#: Layers of less than a group's bytes over this, norms and the like, would take a slot of the ring each time;
#: they are on the card for the whole pass, where their weights may be read without calling them.
_SMALL = 256


def _bytes(module: nn.Module) -> int:
    return sum(t.nbytes for t in weights_of(module).values())


def _units(module: nn.Module, group_bytes: int) -> Iterator[nn.Module]:
    """The largest modules of the tree that are called as a whole and hold at most ``group_bytes``."""
    children = list(module.children())
    if _bytes(module) <= (0 if children else group_bytes // _SMALL):
        return
    is_list = isinstance(module, (nn.ModuleList, nn.ModuleDict))
    if not children or (not is_list and _bytes(module) <= group_bytes):
        yield module
        return
    for child in children:
        yield from _units(child, group_bytes)


@dataclass
class _Group:
    tensors: list[torch.Tensor]
    #: What they are on the host: views of ``flat``, or as they were.
    host: list[torch.Tensor]
    #: What they were: None for what was copied from memory, which is not kept twice.
    before: list[torch.Tensor | None]
    offsets: list[int]
    nbytes: int
    #: The pinned bytes of all of them; None where they are read from files.
    flat: torch.Tensor | None
    #: The group that ran after this one last time; at first the module's next.
    follower: _Group | None = None
    slot: _Slot | None = None


@dataclass
class _Slot:
    buffer: torch.Tensor
    holds: _Group | None = None
    copied: torch.cuda.Event | None = None
    used: torch.cuda.Event | None = None
    #: Waits until what it holds was read from its files, and its copy is on the stream.
    wait_until_read: Any = None


def _group_of(unit: nn.Module) -> _Group:
    tensors = list(weights_of(unit).values())
    offsets, end = layout(tensors)
    host = [tensor.data for tensor in tensors]
    return _Group(tensors, host, list(host), offsets, end, flat=None)


def _moved_to_pinned(groups: list[_Group]) -> PinnedMemory:
    """Memory that holds the weights of all groups, each one's in a row; all of them are read at once."""
    pinned = PinnedMemory(sum(group.nbytes for group in groups))
    tensors, offsets, start = [], [], 0
    for group in groups:
        group.flat = pinned.bytes[start : start + group.nbytes]
        tensors += group.tensors
        offsets += [start + offset for offset in group.offsets]
        start += group.nbytes
    before = iter(moved_into(pinned.bytes, tensors, offsets))
    for group in groups:
        group.before = list(islice(before, len(group.tensors)))
        group.host = [tensor.data for tensor in group.tensors]
    return pinned


@dataclass
class WeightRing:
    """Streams ``module``'s weights to ``device`` while it runs inside ``with ring:``.

    Outside the ``with`` the module is whole on the host and nothing is held on the card. On a CPU device the
    copies are plain; the order of events is the same.

    Args:
        module: Any module whose submodules run one after the other; its weights are on the CPU.
        device: Where it computes.
        group_bytes: Weights of one group at most; a single larger layer makes a larger slot.
        slots: Groups held at once, two or more.
        from_files: Leave weights that are mapped from files (see ``load_weights``) there, and read them as
            they are needed; else they are copied to pinned memory.
    """

    module: nn.Module
    device: str
    group_bytes: int
    slots: int
    from_files: bool = False
    _groups: list[_Group] = field(default_factory=list, init=False)
    _ring: list[_Slot] = field(default_factory=list, init=False)
    _last: _Group | None = field(default=None, init=False)
    _next: int = field(default=0, init=False)
    _stream: Any = field(default=None, init=False)
    _reader: FileReader | None = field(default=None, init=False)
    _pinned: PinnedMemory | None = field(default=None, init=False)
    _hooks: list[RemovableHandle] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.slots < 2:
            raise ValueError(f"slots is {self.slots}: expected 2 or more, one computes while one is copied")
        self._cuda = torch.device(self.device).type == "cuda"
        units = list(_units(self.module, self.group_bytes))
        self._groups = [_group_of(unit) for unit in units]
        if not self.from_files:
            self._pinned = _moved_to_pinned(self._groups)
        for unit, group in zip(units, self._groups, strict=True):
            self._hooks += [
                unit.register_forward_pre_hook(partial(self._before, group)),
                unit.register_forward_hook(partial(self._after, group)),
            ]
        for group, follower in zip(self._groups, [*self._groups[1:], *self._groups[:1]], strict=True):
            group.follower = follower
        if self._pinned is not None and self._cuda:
            self._pinned.pin()
        grouped = {id(t) for group in self._groups for t in group.tensors}
        #: Parameters a container owns itself, and small layers: on the card for the whole pass.
        self._loose = [t for key, t in weights_of(self.module).items() if key not in grouped]
        self._loose_host = [t.data for t in self._loose]
        self.slot_bytes = max((g.nbytes for g in self._groups), default=0)

    def __enter__(self) -> WeightRing:
        for tensor in self._loose:
            tensor.data = tensor.data.to(self.device)
        self._ring = [
            _Slot(torch.empty(self.slot_bytes, dtype=torch.uint8, device=self.device))
            for _ in range(min(self.slots, len(self._groups)))
        ]
        self._next, self._last = 0, None
        if self._cuda:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            # The slots' memory may still be read by earlier kernels of the compute stream.
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        if self.from_files and self._groups:
            self._reader = FileReader(self._stream)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._cuda:
            torch.cuda.synchronize(self.device)
        for group in self._groups:
            self._evict(group)
        for tensor, host in zip(self._loose, self._loose_host, strict=True):
            tensor.data = host
        self._ring, self._stream, self._reader = [], None, None

    def detach(self) -> None:
        """Stop streaming for good: the module is an ordinary one again, whole on the host."""
        for hook in self._hooks:
            hook.remove()
        for group in self._groups:
            for tensor, before in zip(group.tensors, group.before, strict=True):
                if before is not None:
                    tensor.data = before
            group.follower = None  # they are a circle, which would hold the weights
        self._groups, self._last = [], None
        if self._pinned is not None:
            self._pinned.release()
            self._pinned = None

    def _evict(self, group: _Group) -> None:
        group.slot = None
        for tensor, host in zip(group.tensors, group.host, strict=True):
            tensor.data = host

    def _fetch(self, group: _Group, *, keep: _Group | None) -> None:
        slot = self._ring[self._next]
        if keep is not None and slot.holds is keep:
            self._next = (self._next + 1) % len(self._ring)
            slot = self._ring[self._next]
        self._next = (self._next + 1) % len(self._ring)
        if slot.holds is not None:
            self._evict(slot.holds)
        if slot.wait_until_read is not None:  # a wrong guess, which readers may still be at
            slot.wait_until_read()
        slot.holds, group.slot = group, slot
        if self._reader is None:
            self._copy(group, slot)
        else:
            where = [file_span(tensor) or tensor.data for tensor in group.tensors]
            parts = list(zip(group.offsets, where, strict=True))
            slot.wait_until_read = self._reader.read(parts, slot.buffer[: group.nbytes], after=slot.used)
        for tensor, offset in zip(group.tensors, group.offsets, strict=True):
            tensor.data = view(slot.buffer, offset, tensor)

    def _copy(self, group: _Group, slot: _Slot) -> None:
        assert group.flat is not None
        with torch.cuda.stream(self._stream) if self._cuda else nullcontext():
            if slot.used is not None:
                self._stream.wait_event(slot.used)
            slot.buffer[: group.nbytes].copy_(group.flat, non_blocking=True)
            if self._cuda:
                slot.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                slot.copied.record(self._stream)

    def _before(self, group: _Group, module: nn.Module, args: Any) -> None:
        if not self._ring:
            raise RuntimeError("a streamed module ran outside its WeightRing: enter the ring first")
        if group.slot is None:
            self._fetch(group, keep=None)
        assert group.slot is not None
        if group.slot.wait_until_read is not None:
            group.slot.copied = group.slot.wait_until_read()
            group.slot.wait_until_read = None
        if group.slot.copied is not None:
            torch.cuda.current_stream(self.device).wait_event(group.slot.copied)
        if self._last is not None and self._last is not group:
            self._last.follower = group
        self._last = group
        ahead = group.follower
        for _ in range(len(self._ring) - 1):
            if ahead is None or ahead is group:
                break
            if ahead.slot is None:
                self._fetch(ahead, keep=group)
            ahead = ahead.follower

    def _after(self, group: _Group, module: nn.Module, args: Any, output: Any) -> None:
        if self._cuda and group.slot is not None:
            group.slot.used = torch.cuda.Event()  # type: ignore[no-untyped-call]
            group.slot.used.record(torch.cuda.current_stream(self.device))
