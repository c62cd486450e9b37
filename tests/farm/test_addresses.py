"""Hosts, ports and URLs as text, IPv4, IPv6 and names alike."""

from __future__ import annotations

import pytest

from farm.addresses import host_port, is_loopback, resolved, split_host_port, url_of
from farm.errors import CannotRun

WRITTEN = [
    ("192.168.1.10", 8470, "192.168.1.10:8470"),
    ("fd00::5", 8470, "[fd00::5]:8470"),
    ("::1", 80, "[::1]:80"),
    ("attic.lan", 8470, "attic.lan:8470"),
]


@pytest.mark.parametrize(("host", "port", "text"), WRITTEN)
def test_an_address_beside_a_port_is_written_and_read_back(host: str, port: int, text: str) -> None:
    assert host_port(host, port) == text
    assert url_of(host, port) == f"http://{text}"
    assert split_host_port(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "attic", "attic:", ":8470", "fd00::5", "a/b:1", "me@attic:1", "a:b", "a:99999"]
)
def test_what_is_no_host_with_a_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        split_host_port(text)


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.10", False),
        ("fd00::5", False),
        ("attic.lan", False),
    ],
)
def test_loopback_is_told_from_every_other_address(listen: str, loopback: bool) -> None:
    assert is_loopback(listen) is loopback


def test_a_name_becomes_an_address_and_an_address_is_itself() -> None:
    assert resolved("localhost") in ("127.0.0.1", "::1")
    assert resolved("10.0.0.5") == "10.0.0.5"
    assert resolved("fd00::5") == "fd00::5"
    with pytest.raises(CannotRun, match="is not known here"):
        resolved("nobody.invalid")
    with pytest.raises(CannotRun, match="one cable alone"):
        resolved("fe80::1")
