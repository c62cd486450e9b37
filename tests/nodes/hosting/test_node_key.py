"""The key that a farm keeps in a file for machines that are started beside it."""

from __future__ import annotations

import re
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard.access.keys import Keys
from dashboard.doors_store import STORE_NAME, open_store
from farm.errors import CannotRun, InvalidInput
from farm.machines.cluster_file import ClusterFile
from nodes.hosting.keep_up import _keep_node_key, keep_up


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    store = open_store(tmp_path / STORE_NAME)
    yield store
    store.close()


@pytest.fixture
def keys(store: sqlite3.Connection) -> Keys:
    return Keys(store, "of the owner")


def scopes(keys: Keys, path: Path) -> Any:
    found = keys.find(path.read_text())
    return None if found is None else set(found.scopes)


def test_it_lets_machines_in_and_nothing_else_and_is_its_user_s_alone(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "key"
    _keep_node_key(path, keys)
    assert scopes(keys, path) == {"node"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_stays_over_a_restart_and_is_made_anew_once_it_opens_nothing(
    store: sqlite3.Connection, keys: Keys, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    _keep_node_key(path, keys)
    first = path.read_text()
    again = Keys(store, "of the owner")
    _keep_node_key(path, again)
    assert path.read_text() == first
    (key,) = re.findall(r"rf_([0-9a-f]{8})_", first)
    again.revoke(key)
    _keep_node_key(path, again)
    assert path.read_text() != first
    assert scopes(again, path) == {"node"}
    path.write_text("what somebody typed")
    _keep_node_key(path, again)
    assert scopes(again, path) == {"node"}


def test_a_file_that_cannot_be_written_is_named(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"nowhere/key \(.*No such file.*\); choose another file"):
        _keep_node_key(tmp_path / "nowhere" / "key", keys)


async def test_a_farm_that_nobody_else_reaches_needs_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--node-key is for a farm that others reach"):
        await keep_up(ClusterFile(), [], tmp_path, None, None, node_key=tmp_path / "key")  # type: ignore[arg-type]
    assert not (tmp_path / "key").exists()
