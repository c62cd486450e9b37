"""The recipe of the image and the compose files agree, and what they start are commands of the farm."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from farm.cli.main import app
from farm.machines import HeadMachine

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
WITH_CARDS: dict[str, Any] = yaml.safe_load((ROOT / "compose.cuda.yaml").read_text())
GUIDE = (ROOT / "docs" / "container.md").read_text()
COMMAND: Any = typer.main.get_command(app)
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: What stands before the arguments of ``farm`` where a line starts it in a container.
_STARTS = re.compile(r"(?:\breelfarm(?::\w+)?|\bexec (?:head|node-\d) farm) (?P<arguments>[a-z].*)")


def instruction(name: str) -> list[str]:
    """What follows that word of the recipe, each time; lines that go on joined."""
    text = re.sub(r"\\\n\s*", "", RECIPE)
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def takes(arguments: list[str]) -> None:
    """Fails unless the command takes them."""
    command = COMMAND.commands[arguments[0]]
    with command.make_context("", list(arguments[1:])):
        pass


def test_the_image_starts_a_head_whose_port_and_volumes_compose_uses() -> None:
    entry_point, command = json.loads(*instruction("ENTRYPOINT")), json.loads(*instruction("CMD"))
    assert entry_point[-1] == "farm"
    takes(command)
    exposed = instruction("EXPOSE")
    assert exposed == [str(HeadMachine().port)]
    assert [port.rpartition(":")[2] for port in COMPOSE["services"]["head"]["ports"]] == exposed
    volumes = set(json.loads(*instruction("VOLUME")))
    for name, service in COMPOSE["services"].items():
        mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in service["volumes"]}
        assert volumes < set(mounted.values()), name
        assert set(mounted) <= set(COMPOSE["volumes"])
        assert mounted["models"] == "/models"


def test_state_and_models_lie_in_the_volumes() -> None:
    places = dict(re.findall(r"(\w+)=(/\S+)", " ".join(instruction("ENV"))))
    volumes = json.loads(*instruction("VOLUME"))
    named = {name: path for name, path in places.items() if name != "PATH"}
    assert set(named) >= {"HOME", "REELFARM_STATE", "REELFARM_MODELS", "REELFARM_WEIGHTS", "HF_HOME"}
    assert [name for name, path in named.items() if not path.startswith(tuple(volumes))] == []


def test_the_arguments_that_compose_builds_with_are_those_of_the_recipe() -> None:
    declared = {argument.partition("=")[0] for argument in instruction("ARG")}
    assert declared == {"BASE", "TORCH", "UID", "GID"}
    for service in COMPOSE["services"].values():
        assert set(service["build"]["args"]) == declared
        assert (ROOT / service["build"]["dockerfile"]).is_file()
    for service in WITH_CARDS["services"].values():
        assert service["build"]["args"] == {"TORCH": "cuda"}


@pytest.mark.parametrize("name", ["head", "node-1", "node-2"])
def test_what_a_service_starts_is_a_command_of_the_farm(name: str) -> None:
    service = COMPOSE["services"][name]
    arguments = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", each) for each in service["command"]]
    takes(arguments)
    takes(service["healthcheck"]["test"][2:])
    if name != "head":
        assert arguments[1] == "head:{}".format(*instruction("EXPOSE"))
        takes(WITH_CARDS["services"][name]["command"])
        # Both read and write one file.
        key = arguments[arguments.index("--token-file") + 1]
        head = COMPOSE["services"]["head"]
        assert head["command"][head["command"].index("--node-key") + 1] == key


def test_the_health_check_of_the_image_is_that_of_compose() -> None:
    (said,) = instruction("HEALTHCHECK")
    options, _, command = said.partition(" CMD ")
    asked = {name.replace("-", "_"): value for name, value in re.findall(r"--([\w-]+)=(\S+)", options)}
    for service in COMPOSE["services"].values():
        assert service["healthcheck"] == {**asked, "test": ["CMD", *json.loads(command)]}


def test_containers_have_no_rights_and_a_root_that_stays_as_it_is() -> None:
    assert instruction("USER") == ["${UID}:${GID}"]
    for service in COMPOSE["services"].values():
        assert service["read_only"]
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    (port,) = COMPOSE["services"]["head"]["ports"]
    assert port.startswith("${FARM_PUBLISH:-127.0.0.1}:")


def test_each_node_has_a_card_of_its_own() -> None:
    cards = [
        service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for service in WITH_CARDS["services"].values()
        if "deploy" in service
    ]
    assert cards == [["0"], ["1"]]
    assert set(WITH_CARDS["services"]) == set(COMPOSE["services"])


def test_the_image_is_made_of_the_farm_s_packages_and_nothing_else() -> None:
    copied = {name for line in instruction("COPY") if "--from" not in line for name in line.split()[:-1]}
    packages = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()} - {
        "benchmarks",
        "tests",
    }
    assert copied == packages | {"models", "constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied


def test_what_the_guide_starts_in_containers_are_commands_of_the_farm() -> None:
    blocks = "".join(_BLOCK.findall(GUIDE)).replace("\\\n", " ")
    started = [found["arguments"] for line in blocks.splitlines() if (found := _STARTS.search(line))]
    assert len(started) > 5
    for arguments in started:
        takes(shlex.split(arguments.replace("...", "x"), comments=True))
