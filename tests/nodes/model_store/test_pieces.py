from __future__ import annotations

import random
from pathlib import Path

import pytest

from farm.capabilities.model_files import PIECE_BYTES, Manifest, ModelFile
from farm.errors import CannotRun
from nodes.model_store.peer_messages import bits_of, numbers_of
from nodes.model_store.pieces import next_piece, pieces_of, to_drop
from nodes.model_store.store import Kept, Origin

HASH = "0" * 64


@pytest.mark.parametrize(
    ("wanted", "has", "served", "given"),
    [
        ({0, 1, 2}, {0, 1, 2}, [0, 0, 0], 0),
        ({0, 1, 2}, {0, 1, 2}, [1, 0, 0], 1),
        ({0, 2}, {0, 1, 2}, [1, 0, 1], 0),
        ({1, 2}, {0, 2}, [0, 0, 9], 2),
        ({1}, {0, 2}, [0, 0, 0], None),
        (set(), {0, 1, 2}, [0, 0, 0], None),
    ],
)
def test_of_what_is_wanted_and_here_the_piece_is_given_that_was_given_least_often(
    wanted: set[int], has: set[int], served: list[int], given: int | None
) -> None:
    assert next_piece(sorted(wanted), has, served) == given


def test_a_single_source_gives_every_piece_once_before_it_gives_one_twice() -> None:
    """Four machines that begin together get different pieces of it, and the rest from each other."""
    rng = random.Random(3)
    served, missing = [0] * 40, [set(range(40)) for _ in range(4)]
    for _ in range(40):
        taker = rng.choice(missing)
        number = next_piece(sorted(taker), range(40), served)
        assert number is not None
        served[number] += 1
        taker.discard(number)
    assert served == [1] * 40


def test_pieces_cover_every_file_from_its_first_byte_to_its_last() -> None:
    manifest = Manifest(
        key="m",
        files=(
            ModelFile(path="a.json", size_bytes=10, pieces=(HASH,)),
            ModelFile(path="empty.txt", size_bytes=0, pieces=()),
            ModelFile(path="unet/b.safetensors", size_bytes=2 * PIECE_BYTES + 1, pieces=(HASH,) * 3),
        ),
    )
    assert [(p.path, p.offset, p.size_bytes) for p in pieces_of(manifest)] == [
        ("a.json", 0, 10),
        ("unet/b.safetensors", 0, PIECE_BYTES),
        ("unet/b.safetensors", PIECE_BYTES, PIECE_BYTES),
        ("unet/b.safetensors", 2 * PIECE_BYTES, 1),
    ]


@pytest.mark.parametrize("numbers", [set(), {0}, {7, 8}, set(range(1000)), {15_000}])
def test_a_set_of_pieces_survives_its_way_as_bits(numbers: set[int]) -> None:
    assert numbers_of(bits_of(numbers)) == sorted(numbers)


def kept(key: str, gigabytes: int, used_at: float, origin: Origin = "farm") -> Kept:
    return Kept(key, Path(key), gigabytes * 10**9, origin, used_at)


KEPT = (kept("new", 4, 30), kept("old", 4, 10), kept("older", 2, 5), kept("mine", 8, 1, "added"))


@pytest.mark.parametrize(
    ("wanted", "quota", "free", "in_use", "dropped"),
    [
        (4, None, 10, (), []),
        (4, 30, 10, (), []),
        (4, 20, 100, (), ["older"]),
        (4, 18, 100, (), ["older", "old"]),
        (4, 18, 100, ("older",), ["old"]),
        (5, 18, 100, ("older",), ["old", "new"]),
        # The disk is full before the quota is.
        (4, 30, 2, (), ["older"]),
    ],
)
def test_what_was_not_loaded_for_longest_goes_first_and_only_as_much_as_must(
    wanted: int, quota: int | None, free: int, in_use: tuple[str, ...], dropped: list[str]
) -> None:
    going = to_drop(
        KEPT,
        wanted * 10**9,
        quota_bytes=None if quota is None else quota * 10**9,
        free_bytes=free * 10**9,
        in_use=in_use,
    )
    assert [model.key for model in going] == dropped


@pytest.mark.parametrize(("quota", "free"), [(None, 3), (11, 100), (100, -7)])
def test_where_nothing_that_may_go_makes_room_nothing_goes(quota: int | None, free: int) -> None:
    quota_bytes = None if quota is None else quota * 10**9
    with pytest.raises(CannotRun, match="have no room"):
        to_drop(KEPT, 4 * 10**9, quota_bytes=quota_bytes, free_bytes=free * 10**9)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", ".ssh/key", "a/.hidden", "a\\b"])
def test_a_manifest_names_no_file_outside_of_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match=r"is no path|is hidden"):
        ModelFile(path=path, size_bytes=1, pieces=(HASH,))


@pytest.mark.parametrize("key", ["", ".coming", "a/b", "..", "a\\b", "a\nb"])
def test_a_manifest_is_kept_under_a_name_alone(key: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        Manifest(key=key, files=())
