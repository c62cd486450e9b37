"""Keys and sessions: what is kept of them, when they end, and that they outlive a restart."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard.access.decisions import GRANTS, OWNER
from dashboard.access.keys import Keys
from dashboard.access.sessions import EXPIRY_S, MAX_PER_KEY, Sessions
from dashboard.doors_store import STORE_NAME, open_store
from farm.errors import CannotRun, NotFound

DAY_S = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    store = open_store(tmp_path / STORE_NAME)
    yield store
    store.close()


@pytest.fixture
def keys(store: sqlite3.Connection, clock: Clock) -> Keys:
    return Keys(store, "the-owners-token", clock)


@pytest.fixture
def sessions(store: sqlite3.Connection, keys: Keys, clock: Clock) -> Sessions:
    return Sessions(store, keys, clock)


def kept(tmp_path: Path) -> bytes:
    """Every byte of the store's files."""
    return b"".join(path.read_bytes() for path in tmp_path.glob(f"{STORE_NAME}*"))


def test_a_key_is_found_by_its_text_and_by_nothing_else(keys: Keys) -> None:
    key, text = keys.create("somebody", ["submit"], None)
    other = keys.create("other", ["read"], None)[1]
    assert text.startswith(f"rf_{key.id}_")
    assert text != other
    found = keys.find(text)
    assert found is not None
    assert (found.id, found.name, found.scopes) == (key.id, "somebody", GRANTS["submit"])
    for wrong in (
        "",
        key.id,
        text[:-1],
        text + "x",
        text.swapcase(),
        f"rf_{key.id}_",
        f"rf_{key.id}_{other[12:]}",
        f"rf_00000000_{text[12:]}",
        text + "\n",
        "rf_" + "a" * 100_000,
        "\ud800",
    ):
        assert keys.find(wrong) is None, wrong


def test_the_owner_is_found_by_the_token_of_the_state_folder(keys: Keys) -> None:
    assert keys.find("the-owners-token") == OWNER
    assert keys.find("the-owners-toke") is None
    assert keys.find("") is None


def test_several_scopes_allow_what_each_of_them_does(keys: Keys) -> None:
    found = keys.find(keys.create("machine", ["node", "read", "node"], None)[1])
    assert found is not None
    assert found.scopes == {"node", "read"}
    assert keys.all()[0].scopes == ("read", "node")


def test_neither_a_key_nor_a_cookie_is_kept(keys: Keys, sessions: Sessions, tmp_path: Path) -> None:
    key, text = keys.create("somebody", ["read"], None)
    cookie = sessions.start(key.id)
    keys.find(text)
    assert key.digest in kept(tmp_path)
    for secret in (text, text[12:], cookie, "the-owners-token"):
        assert secret.encode() not in kept(tmp_path)
        assert secret not in repr((vars(keys), vars(sessions)))


def test_the_store_is_its_owners_alone(store: sqlite3.Connection, keys: Keys, tmp_path: Path) -> None:
    keys.create("somebody", ["read"], None)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {STORE_NAME, f"{STORE_NAME}-wal", f"{STORE_NAME}-shm"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_store_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    path.touch(mode=0o644)
    open_store(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_store_is_said_so(tmp_path: Path) -> None:
    (tmp_path / STORE_NAME).write_bytes(b"something else" * 100)
    with pytest.raises(CannotRun, match=r"doors\.sqlite cannot be opened"):
        open_store(tmp_path / STORE_NAME)


def test_a_key_ends_when_it_expires(keys: Keys, clock: Clock) -> None:
    key, text = keys.create("guest", ["read"], 30 * DAY_S)
    assert key.expires_at == clock.now + 30 * DAY_S
    clock.now += 30 * DAY_S - 1
    assert keys.find(text) is not None
    clock.now += 1
    assert keys.find(text) is None
    assert keys.principal(key.id) is None


def test_a_revoked_key_is_over_at_once_and_once(keys: Keys) -> None:
    key, text = keys.create("guest", ["admin"], None)
    keys.revoke(key.id)
    assert keys.find(text) is None
    assert keys.principal(key.id) is None
    assert keys.all()[0].revoked_at is not None
    for unknown in (key.id, "00000000", "owner", ""):
        with pytest.raises(NotFound):
            keys.revoke(unknown)


def test_keys_and_sessions_outlive_a_restart_and_so_does_their_end(
    keys: Keys, sessions: Sessions, tmp_path: Path, clock: Clock
) -> None:
    lasting, text = keys.create("lasting", ["submit"], DAY_S)
    revoked, revoked_text = keys.create("revoked", ["read"], None)
    cookie, left = sessions.start(lasting.id), sessions.start(lasting.id)
    keys.revoke(revoked.id)
    sessions.end(left)
    again = open_store(tmp_path / STORE_NAME)
    keys_again = Keys(again, "the-owners-token", clock)
    sessions_again = Sessions(again, keys_again, clock)
    assert keys_again.find(text) == keys.find(text) == sessions_again.find(cookie) is not None
    assert keys_again.find(revoked_text) is None
    assert sessions_again.find(left) is None
    assert [key.id for key in keys_again.all()] == [key.id for key in keys.all()]
    clock.now += DAY_S
    assert keys_again.find(text) is None
    again.close()


def test_the_use_of_a_key_is_written_once_a_minute(
    keys: Keys, store: sqlite3.Connection, clock: Clock
) -> None:
    key, text = keys.create("busy", ["read"], None)
    written = []
    store.set_trace_callback(written.append)
    for _ in range(50):
        keys.find(text)
    assert len(written) == 1
    assert keys.all()[0].last_used_at == clock.now
    clock.now += 59
    keys.find(text)
    assert len(written) == 1
    clock.now += 1
    keys.principal(key.id)
    assert len(written) == 2
    assert store.execute("SELECT last_used_at FROM keys").fetchone() == (clock.now,)


def test_a_full_disk_stops_nobody_and_what_is_revoked_is_over_all_the_same(
    keys: Keys, store: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    key, text = keys.create("somebody", ["read"], None)
    store.execute("PRAGMA query_only = ON")
    assert keys.find(text) is not None
    assert f"the use of key {key.id} is not kept" in caplog.text
    assert text not in caplog.text
    with pytest.raises(CannotRun, match="cannot be written"):
        keys.create("other", ["read"], None)
    assert len(keys.all()) == 1
    with pytest.raises(CannotRun):
        keys.revoke(key.id)
    assert keys.find(text) is None


def test_a_session_ends_by_itself_after_two_weeks(keys: Keys, sessions: Sessions, clock: Clock) -> None:
    cookie = sessions.start(OWNER.id)
    clock.now += EXPIRY_S - 1
    assert sessions.find(cookie) == OWNER
    clock.now += 1
    assert sessions.find(cookie) is None


@pytest.mark.parametrize("end", ["revoke", "expire"])
def test_a_session_ends_with_its_key(end: str, keys: Keys, sessions: Sessions, clock: Clock) -> None:
    key, _ = keys.create("somebody", ["read"], DAY_S)
    cookie, others = sessions.start(key.id), sessions.start(OWNER.id)
    found = sessions.find(cookie)
    assert found is not None
    assert found.id == key.id
    if end == "revoke":
        keys.revoke(key.id)
    else:
        clock.now += DAY_S
    assert sessions.find(cookie) is None
    assert sessions.find(others) == OWNER


def test_another_owners_token_ends_the_owners_sessions(
    sessions: Sessions, store: sqlite3.Connection, clock: Clock
) -> None:
    cookie = sessions.start(OWNER.id)
    assert Sessions(store, Keys(store, "the-owners-token", clock), clock).find(cookie) == OWNER
    assert Sessions(store, Keys(store, "a-new-token", clock), clock).find(cookie) is None


def test_who_logs_out_is_out_and_nobody_else(sessions: Sessions) -> None:
    cookie, other = sessions.start(OWNER.id), sessions.start(OWNER.id)
    assert cookie != other
    sessions.end("never given out")
    sessions.end(cookie)
    sessions.end(cookie)
    assert sessions.find(cookie) is None
    assert sessions.find(other) == OWNER


def test_sessions_do_not_pile_up(
    keys: Keys, sessions: Sessions, store: sqlite3.Connection, clock: Clock
) -> None:
    def count() -> Any:
        return store.execute("SELECT COUNT(*) FROM sessions").fetchone()[0]

    guest, _ = keys.create("guest", ["read"], DAY_S)
    guests = sessions.start(guest.id)
    cookies = []
    for _ in range(MAX_PER_KEY + 10):
        clock.now += 1
        cookies.append(sessions.start(OWNER.id))
    assert count() == MAX_PER_KEY + 1
    assert [sessions.find(cookie) is not None for cookie in cookies] == [False] * 10 + [True] * MAX_PER_KEY
    assert sessions.find(guests) is not None
    clock.now += EXPIRY_S
    sessions.start(OWNER.id)
    assert count() == 1
