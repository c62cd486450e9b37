"""Which connections make room for others, decided on names instead of sockets."""

from __future__ import annotations

import pytest

from dashboard.connections import RESERVED_DESCRIPTORS, Connections, most_connections


@pytest.fixture
def connections() -> Connections[str]:
    """At most five, three of one caller."""
    return Connections(5, 3)


def test_there_is_room_until_there_are_too_many(connections: Connections[str]) -> None:
    assert [connections.enter(f"a{n}", "a") for n in range(3)] == [None] * 3
    assert [connections.enter(f"b{n}", "b") for n in range(2)] == [None] * 2
    assert len(connections) == 5


def test_a_caller_with_too_many_loses_the_one_that_is_silent_for_longest(
    connections: Connections[str],
) -> None:
    for name in ("a0", "a1", "a2"):
        connections.enter(name, "a")
    connections.is_busy("a0")
    assert connections.enter("a3", "a") == "a1"
    connections.leave("a1")
    connections.is_silent("a0")  # answered: it waits again, and for a shorter time than the others
    assert connections.enter("a4", "a") == "a2"


def test_who_has_most_silent_ones_makes_room_for_everybody(connections: Connections[str]) -> None:
    for name in ("a0", "a1", "a2", "b0", "b1"):
        connections.enter(name, name[0])
    assert connections.enter("c0", "c") == "a0"
    connections.leave("a0")
    assert connections.enter("c1", "c", scarce=True) in ("a1", "b0", "c0")


def test_what_is_being_answered_is_never_closed_for_anothers_sake(connections: Connections[str]) -> None:
    for name in ("a0", "a1", "a2"):
        connections.enter(name, "a")
        connections.is_busy(name)
    assert connections.enter("a3", "a") == "a3", "nobody else may go"
    connections.leave("a3")
    for name in ("b0", "b1"):
        connections.enter(name, "b")
        connections.is_busy(name)
    assert connections.enter("c0", "c") == "c0"


def test_whoever_was_closed_is_not_closed_again(connections: Connections[str]) -> None:
    for name in ("a0", "a1", "a2"):
        connections.enter(name, "a")
    closed = []
    for name in ("a3", "a4", "a5"):
        going = connections.enter(name, "a")
        assert going is not None
        connections.leave(going)
        connections.is_silent(going)  # its last byte, read after the decision
        closed.append(going)
    assert closed == ["a0", "a1", "a2"]
    assert len(connections) == 3


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 20_000, 65_536])
def test_a_descriptor_is_left_for_every_file_that_a_connection_may_have_and_for_the_farm(
    descriptors: int,
) -> None:
    most = most_connections(descriptors)
    assert most >= 16
    assert most == 16 or descriptors - 2 * most >= RESERVED_DESCRIPTORS
