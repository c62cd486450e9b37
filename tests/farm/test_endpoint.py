"""Where the commands of a farm's user find its address and its token, and who else may not."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import farm.endpoint
from farm.endpoint import Endpoint, endpoint_at, read_endpoint, remove_endpoint, write_endpoint
from farm.errors import CannotRun

SOMEBODY = 65534


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def endpoint(listener: socket.socket) -> Endpoint:
    return Endpoint(url=f"http://127.0.0.1:{listener.getsockname()[1]}", token="secret")


def test_word_of_a_farm_is_found_by_its_folder_and_by_its_address(state: Path, endpoint: Endpoint) -> None:
    assert read_endpoint(state) is None
    write_endpoint(state, Endpoint(url="http://127.0.0.1:1", token="earlier"))
    write_endpoint(state, endpoint)
    assert read_endpoint(state) == endpoint
    port = endpoint.url.rpartition(":")[2]
    for address in (endpoint.url, f"{endpoint.url}/", f"http://localhost:{port}", f"HTTP://LOCALHOST:{port}"):
        assert endpoint_at(address) == endpoint
    assert endpoint_at("http://192.0.2.1:8470") is None
    remove_endpoint(state, endpoint)
    assert read_endpoint(state) is None
    assert endpoint_at(endpoint.url) is None
    remove_endpoint(state, endpoint)


def test_it_is_kept_for_its_user_alone(state: Path, endpoint: Endpoint, user_folder: Path) -> None:
    before = os.umask(0)
    try:
        write_endpoint(state, endpoint)
    finally:
        os.umask(before)
    written = [*state.iterdir(), *(user_folder / "reelfarm-farms").iterdir()]
    assert len(written) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    assert stat.S_IMODE((user_folder / "reelfarm-farms").stat().st_mode) == 0o700
    assert "secret" not in repr(endpoint)


def test_a_damaged_endpoint_file_is_said_so(state: Path) -> None:
    (state / "endpoint.json").write_text('{"url": 3')
    with pytest.raises(CannotRun, match=r"endpoint\.json cannot be read"):
        read_endpoint(state)


def test_a_farm_that_ended_without_a_word_is_none(
    state: Path, listener: socket.socket, endpoint: Endpoint
) -> None:
    write_endpoint(state, endpoint)
    listener.close()
    assert read_endpoint(state) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_another_user_who_took_the_address_is_told_nothing(
    state: Path, listener: socket.socket, endpoint: Endpoint
) -> None:
    os.chown(state, SOMEBODY, SOMEBODY)
    write_endpoint(state, endpoint)
    listener.close()
    port = int(endpoint.url.rpartition(":")[2])
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(SOMEBODY)
        with socket.create_server(("127.0.0.1", port)):
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        with pytest.raises(CannotRun, match="a program of another user answers"):
            read_endpoint(state)
        with pytest.raises(CannotRun, match="a program of another user answers"):
            endpoint_at(endpoint.url)
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)


def test_where_listeners_cannot_be_seen_the_file_is_believed(
    state: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(farm.endpoint, "_SOCKETS", tmp_path / "none")
    write_endpoint(state, endpoint)
    assert read_endpoint(state) == endpoint


def test_listening_sockets_of_both_kinds_are_seen() -> None:
    assert sys.platform == "linux"
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        assert farm.endpoint._listening_users(f"http://127.0.0.1:{port}") == {os.geteuid()}
        assert farm.endpoint._listening_users(f"http://[::1]:{port}") == {os.geteuid()}
    assert farm.endpoint._listening_users(f"http://127.0.0.1:{port}") == set()
