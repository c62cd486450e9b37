"""What ``farm --help`` and a shell's completion tell of the commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from farm.cli.help_groups import GROUPS
from farm.cli.main import app

COMMAND: Any = typer.main.get_command(app)


def commands(command: Any = COMMAND, path: str = "farm") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, f"{path} {name}")


def test_every_command_has_one_place_among_the_uses(capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(COMMAND.commands)
    COMMAND.main(["--help"], prog_name="farm", standalone_mode=False)
    shown = capsys.readouterr().out
    places = [shown.index(f" {title} ") for title in GROUPS]
    assert places == sorted(places)


def test_every_option_that_takes_a_value_tells_what_it_is_without() -> None:
    silent = [
        f"{path} {option.opts[0]}"
        for path, command in commands()
        for option in command.params
        if option.param_type_name == "option" and not option.is_flag and not option.required
        if option.default in (None, "", []) and not isinstance(option.show_default, str)
    ]
    assert silent == []


def test_every_command_tells_programs_too() -> None:
    every = {
        path: {name for option in command.params for name in option.opts} for path, command in commands()
    }
    assert [path for path, options in every.items() if path != "farm" and "--json" not in options] == []


def test_what_stands_in_brackets_is_not_taken_for_a_style(capsys: pytest.CaptureFixture[str]) -> None:
    COMMAND.main(["render", "--help"], prog_name="farm", standalone_mode=False)
    shown = capsys.readouterr().out
    assert "[high=|low=]FILE: a transformer" in shown
    assert "[high=|low=]FILE[:SCALE]" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def completed(line: str) -> str:
        monkeypatch.setenv("_FARM_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        with pytest.raises(SystemExit):
            COMMAND.main([], prog_name="farm")
        return capsys.readouterr().out

    assert {"render", "rerender", "report", "retry"} <= set(_words(completed("farm re")))
    assert {"--preview", "--preset"} <= set(_words(completed("farm render --pre")))
    monkeypatch.setenv("_FARM_COMPLETE", f"source_{shell}")
    with pytest.raises(SystemExit):
        COMMAND.main([], prog_name="farm")
    assert f"_FARM_COMPLETE=complete_{shell}" in capsys.readouterr().out


def _words(told: str) -> list[str]:
    return told.replace('"', " ").replace("\t", " ").replace(":", " ").split()
