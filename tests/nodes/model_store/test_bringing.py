"""Machines that hand a model over: each is a store of its own in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities import model_files
from farm.capabilities.model_files import Manifest, Source
from farm.errors import CannotRun
from nodes.model_store import bringing, manifests, pieces, store
from nodes.model_store.bringing import bring
from nodes.model_store.holdings import Holding, InStore, WholeFolder, recorded
from nodes.model_store.manifests import manifest_of
from nodes.model_store.serving import PieceServer

PIECE = 1000
SECRET = "s" * 64
FILES = {"model_index.json": 20, "unet/weights.safetensors": 12 * PIECE + 7, "vae/empty.txt": 0}
SILENT: tuple[Source, ...] = ()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (model_files, pieces, manifests):
        monkeypatch.setattr(module, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(bringing, "_LOOK_S", 0.01)
    monkeypatch.setattr(bringing, "_NOTHING_S", 0.01)
    monkeypatch.setattr(bringing, "_UNREACHED_S", 0.01)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of the machine that takes."""
    monkeypatch.setenv("REELFARM_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model on the farm's machine."""
    root = tmp_path / "head"
    for name, size in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.urandom(size))
    return root


@pytest.fixture
def manifest(home: Path, folder: Path) -> Manifest:
    return manifest_of("tiny@c0ffee", folder, FILES)


@pytest.fixture
def giving() -> Iterator[Callable[..., Source]]:
    """A machine that gives what this holding has."""
    servers: list[PieceServer] = []

    def start(holding: Holding, of: Manifest, secret: str = SECRET) -> Source:
        server = PieceServer("127.0.0.1", 0, lambda id: holding if id == of.id else None)
        server.know(secret)
        servers.append(server)
        return Source(host=server.host, port=server.port)

    yield start
    for server in servers:
        server.close()


def take(manifest: Manifest, *sources: Source, **options: Any) -> Path:
    return bring(manifest, lambda: sources, lambda: SECRET, **options)


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def test_a_model_comes_whole_from_a_machine_that_has_it(
    home: Path, folder: Path, manifest: Manifest, giving: Callable[..., Source]
) -> None:
    told: list[tuple[int, int]] = []
    came = take(
        manifest,
        giving(WholeFolder(manifest, folder), manifest),
        on_bytes=lambda done, total: told.append((done, total)),
    )
    assert came == home / "tiny@c0ffee"
    assert same(came, folder)
    assert sorted(p.relative_to(came).as_posix() for p in came.rglob("*") if p.is_file()) == sorted(FILES)
    assert told[-1] == (manifest.size_bytes, manifest.size_bytes)
    assert [model.origin for model in store.kept_models()] == ["farm"]
    assert recorded() == [manifest]


class Part(WholeFolder):
    """A machine that has some of the pieces, and counts what it is asked for."""

    def __init__(self, manifest: Manifest, root: Path, numbers: set[int]) -> None:
        super().__init__(manifest, root)
        self._numbers = numbers

    def numbers(self) -> set[int]:
        return self._numbers


def test_machines_that_have_parts_make_a_whole_together(
    home: Path, folder: Path, manifest: Manifest, giving: Callable[..., Source]
) -> None:
    first = giving(Part(manifest, folder, set(range(0, 14, 2))), manifest)
    second = giving(Part(manifest, folder, set(range(1, 14, 2))), manifest)
    assert same(take(manifest, first, second), folder)


def test_what_is_still_coming_is_given_to_others_already(
    home: Path, folder: Path, manifest: Manifest, giving: Callable[..., Source]
) -> None:
    """The store's own view of a model that stopped half way is what its server gives."""
    some = giving(Part(manifest, folder, {0, 3, 5}), manifest)

    def stop_at_three(done: int, total: int) -> None:
        if done >= 20 + 2 * PIECE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(manifest, some, on_bytes=stop_at_three)
    assert set(InStore(manifest).numbers()) == {0, 3, 5}
    assert not (home / "tiny@c0ffee").exists()
    rest = giving(Part(manifest, folder, set(range(14)) - {0, 3, 5}), manifest)
    assert same(take(manifest, rest), folder)  # goes on where it was: nobody gives the three again


def test_a_piece_that_a_power_cut_left_damaged_is_taken_again(
    home: Path, folder: Path, manifest: Manifest, giving: Callable[..., Source]
) -> None:
    source = giving(WholeFolder(manifest, folder), manifest)

    def stop_half_way(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(manifest, giving(Part(manifest, folder, set(range(8))), manifest), on_bytes=stop_half_way)
    part = home / ".coming" / "tiny@c0ffee" / "unet" / "weights.safetensors.pieces"
    with part.open("r+b") as file:
        file.seek(2 * PIECE)
        file.write(bytes(PIECE))
    assert same(take(manifest, source), folder)


def test_a_machine_that_gives_other_bytes_is_not_asked_any_more(
    home: Path, folder: Path, tmp_path: Path, manifest: Manifest, giving: Callable[..., Source]
) -> None:
    liar = tmp_path / "liar"
    for name, size in FILES.items():
        (liar / name).parent.mkdir(parents=True, exist_ok=True)
        (liar / name).write_bytes(bytes(size))
    wrong = giving(WholeFolder(manifest, liar), manifest)
    assert same(take(manifest, wrong, giving(WholeFolder(manifest, folder), manifest)), folder)


def test_a_machine_that_goes_away_costs_nothing_but_its_speed(
    home: Path, folder: Path, manifest: Manifest, giving: Callable[..., Source]
) -> None:
    gone = PieceServer("127.0.0.1", 0, lambda _: None)
    gone.close()
    source = giving(WholeFolder(manifest, folder), manifest)
    assert same(take(manifest, Source(host="127.0.0.1", port=gone.port), source), folder)


def test_whoever_does_not_know_the_secret_gets_nothing(
    home: Path,
    folder: Path,
    manifest: Manifest,
    giving: Callable[..., Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bringing, "GIVE_UP_S", 0.2)
    other = giving(WholeFolder(manifest, folder), manifest, secret="another")
    with pytest.raises(CannotRun, match="no machine of the farm has given a piece of it"):
        take(manifest, other)


def test_a_machine_that_is_removed_is_let_go_when_the_secret_changes(
    home: Path, folder: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing, "GIVE_UP_S", 0.2)
    server = PieceServer("127.0.0.1", 0, lambda _: WholeFolder(manifest, folder))
    server.know(SECRET)
    server.know("the next one")
    with pytest.raises(CannotRun):
        take(manifest, Source(host=server.host, port=server.port))
    server.close()


def test_no_byte_comes_where_there_is_no_room(
    home: Path, folder: Path, manifest: Manifest, giving: Callable[..., Source]
) -> None:
    asked: list[int] = []

    def refuse(wanted_bytes: int) -> None:
        asked.append(wanted_bytes)
        raise CannotRun("no room")

    with pytest.raises(CannotRun, match="no room"):
        take(manifest, giving(WholeFolder(manifest, folder), manifest), make_room=refuse)
    assert asked == [manifest.size_bytes]
    assert store.kept("tiny@c0ffee") is None


def test_two_processes_that_want_the_same_model_take_it_once(
    home: Path,
    folder: Path,
    manifest: Manifest,
    giving: Callable[..., Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "_TURN_INTERVAL_S", 0.01)
    holding = WholeFolder(manifest, folder)
    given: list[str] = []
    find = holding.file_of
    monkeypatch.setattr(holding, "file_of", lambda piece: given.append(piece.path) or find(piece))
    source = giving(holding, manifest)
    both = [threading.Thread(target=take, args=(manifest, source)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert same(home / "tiny@c0ffee", folder)
    assert len(given) == len(holding.pieces)


def test_a_manifest_is_made_once_and_again_where_a_file_was_touched(
    home: Path, folder: Path, manifest: Manifest
) -> None:
    read: list[int] = []
    assert manifest_of("tiny@c0ffee", folder, FILES, read.append) == manifest
    assert read == []
    (folder / "model_index.json").write_bytes(b"another" * 3)
    changed = manifest_of("tiny@c0ffee", folder, FILES, read.append)
    assert read == [21]
    assert changed.id != manifest.id
