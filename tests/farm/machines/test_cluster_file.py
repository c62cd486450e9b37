from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farm.errors import InvalidInput
from farm.machines.cluster_file import ClusterFile, read_cluster_file

SHIPPED = Path(__file__).parents[3] / "cluster.yaml"

Read = Callable[[str], ClusterFile]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def parse(text: str) -> ClusterFile:
        (tmp_path / "cluster.yaml").write_text(text)
        return read_cluster_file(tmp_path / "cluster.yaml")

    return parse


def test_the_shipped_file_says_what_holds_without_one() -> None:
    assert read_cluster_file(SHIPPED) == ClusterFile()


def test_an_empty_file_is_the_default_farm(read: Read) -> None:
    assert read("# nothing\n") == ClusterFile()


def test_a_whole_file_is_understood(read: Read) -> None:
    cluster = read(
        """
head: {listen: 10.0.0.1, port: 9000, workers: none, price_per_hour: 0.05}
machines:
  - {name: attic, address: attic.lan, ssh_user: me, ssh_port: 2222, ssh_key: ~/.ssh/farm, vram_limit: 11GiB}
  - {name: cellar, address: 10.0.0.3, workers: [12GiB, 8GiB], price_per_hour: 0}
"""
    )
    assert (cluster.head.listen, cluster.head.port, cluster.head.workers) == ("10.0.0.1", 9000, "none")
    attic, cellar = cluster.machines
    assert (attic.ssh_user, attic.ssh_port, attic.workers, attic.vram_limit) == ("me", 2222, "auto", "11GiB")
    assert (cellar.workers, cellar.price_per_hour, cellar.farm) == (["12GiB", "8GiB"], 0, "farm")


MACHINE = "machines: [{name: a, address: b, "


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("head: [", "is no YAML: line 1, column 8 cannot be read"),
        ("a\tb: {", "is no YAML"),
        ("just text", "it: expected names with values"),
        ("heads: {}", "heads: is not known here"),
        ("head: {port: many}", "head.port: expected a whole number"),
        ("head: {workers: [12]}", "head.workers"),
        ("head: {workers: [lots]}", "workers is 'lots', expected an amount such as 12GiB"),
        ("head: {vram_limit: ''}", "vram-limit is '', expected an amount"),
        ("head: {price_per_hour: -1}", "price_per_hour is -1.0, expected 0 or more"),
        (
            "head: {pages: farm.lan}",
            "pages is 'farm.lan', expected a URL without a path, such as https://farm",
        ),
        ("head: {pages: 'http://a/farm'}", "pages is 'http://a/farm', expected a URL without a path"),
        ("head: {pages: 'http://a:x'}", "pages is 'http://a:x', expected a URL without a path"),
        ("head: {price_per_hour: .nan}", "price_per_hour is nan, expected 0 or more"),
        ("head: {price_per_hour: .inf}", "price_per_hour is inf, expected 0 or more"),
        ("machines: [{name: a}]", "machines.0.address: is missing"),
        (MACHINE + "colour: red}]", "machines.0.colour: is not known here"),
        (MACHINE + "ssh_port: 0}]", "ssh_port of a is 0, expected 1 to 65535"),
        (MACHINE + "vram_limit: 0GiB}]", "vram-limit is '0GiB', expected more than 0"),
        ("machines: [{name: ../x, address: b}]", "machine name is '../x', expected small letters, digits"),
        ("machines: [{name: Attic, address: b}]", "machine name is 'Attic', expected small letters, digits"),
        ("machines: [{name: a, address: ''}]", "address of a is '', expected a host's name or IP"),
        ("machines: [{name: a, address: -oProxyCommand=x}]", "address of a is '-oProxyCommand=x', expected"),
        (MACHINE + "ssh_user: -oProxyCommand=x}]", "address of a is '-oProxyCommand=x', expected"),
        ("machines: [{name: a, address: b}, {name: a, address: c}]", "machine a is described twice"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_entry_in_one_line(
    read: Read, tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(text)
    assert refused.value.message.startswith(str(tmp_path / "cluster.yaml"))
    assert says in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.param == "cluster"


@pytest.mark.parametrize(
    ("path", "reason"), [("missing.yaml", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=f"cannot be read .{reason}"):
        read_cluster_file(tmp_path / path)


def test_bytes_that_are_no_text_are_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_bytes(b"\xff\xfe\x00head")
    with pytest.raises(InvalidInput, match="is no YAML"):
        read_cluster_file(tmp_path / "cluster.yaml")
