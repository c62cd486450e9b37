"""Which addresses others are told, and under which names browsers may come."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun, InvalidInput
from farm.machines.cluster_file import read_cluster_file
from nodes.machine.addresses import allowed_hosts, how_to_join, own_addresses, reachable_address

OWN = ["192.168.1.10", "10.0.0.4", "fd00::5"]


def test_others_are_told_an_address_they_can_reach() -> None:
    assert reachable_address("192.168.1.10", []) == "192.168.1.10"
    assert reachable_address("0.0.0.0", OWN) == "192.168.1.10"
    assert reachable_address("::", OWN) == "fd00::5"
    with pytest.raises(CannotRun, match="no network address"):
        reachable_address("0.0.0.0", ["fd00::5"])


@pytest.mark.parametrize(
    ("listen", "given", "expected"),
    [
        ("127.0.0.1", [], []),
        ("127.0.0.1", ["Farm.Example.org "], ["farm.example.org"]),
        ("192.168.1.10", [], ["192.168.1.10", "attic.lan", "attic", "attic.local"]),
        ("0.0.0.0", ["attic"], [*OWN, "attic.lan", "attic", "attic.local"]),
    ],
)
def test_browsers_may_use_this_machines_names_and_those_that_were_given(
    listen: str, given: list[str], expected: list[str]
) -> None:
    assert allowed_hosts(listen, OWN, "Attic.lan", given) == expected


@pytest.mark.parametrize("host", ["https://farm.lan", "farm.lan:8470", "", "*.lan", "a b", "-farm"])
def test_what_is_no_host_name_is_refused_with_an_example(host: str) -> None:
    with pytest.raises(InvalidInput, match=r"such as farm\.example\.org") as caught:
        allowed_hosts("127.0.0.1", OWN, "attic", [host])
    assert repr(host) in str(caught.value)


def test_a_name_that_is_none_stops_the_farm_before_anything_is_started(
    tmp_path: Path, warm_farm: Callable[..., Any]
) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("head: {allowed_hosts: [farm.lan], workers: [1GiB]}")
    assert read_cluster_file(cluster).head.allowed_hosts == ("farm.lan",)
    state = tmp_path / "state"
    up = ["up", "--cluster", str(cluster), "--allow-host", "http://farm.lan", "--state", str(state)]
    done = warm_farm(*up, folder=tmp_path, environment=dict(os.environ), timeout_s=120)
    assert done.status == 2, done.err
    assert done.err == (
        "error: allowed host is 'http://farm.lan', expected a host's name or address alone, "
        "such as farm.example.org\n"
    )
    assert not (state / "head.json").exists()


def test_the_greeting_says_how_another_machine_joins() -> None:
    def refuse() -> str:
        raise AssertionError("a token was made that nobody can use")

    assert how_to_join("http://192.168.1.10:8470", OWN, lambda: "once") == (
        "add a machine: farm join 192.168.1.10:8470 --token once"
    )
    assert how_to_join("http://[fd00::5]:8470", OWN, lambda: "once") == (
        "add a machine: farm join [fd00::5]:8470 --token once"
    )
    advice = "for other machines to join, start it with `farm up --listen "
    assert how_to_join("http://127.0.0.1:8470", OWN, refuse) == f"{advice}192.168.1.10`"
    assert how_to_join("http://[::1]:8933", OWN, refuse) == f"{advice}192.168.1.10 --port 8933`"
    assert how_to_join("http://localhost:8470", [], refuse) == f"{advice}ADDRESS`"


def test_this_machines_own_addresses_are_real_and_none_is_loopback() -> None:
    found = own_addresses()
    assert len(found) == len(set(found))
    assert not any(ipaddress.ip_address(address).is_loopback for address in found)
