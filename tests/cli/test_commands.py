"""Every command explains itself, and what a program reads of one is what it can rely on."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

import dashboard.app
from farm.cli.main import app
from farm.planning.plan import Plan
from farm.version import VERSION
from nodes.engines.table import model_names
from nodes.hosting.doctor import _versions

PHOTO = str(Path(__file__).parents[2] / "examples" / "coffee.jpg")
COMMANDS = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_help_lists_every_command_and_every_command_has_its_own(farm: Any) -> None:
    shown = farm("--help")
    assert shown.status == 0
    assert len(COMMANDS) == 29
    with ThreadPoolExecutor(2) as pool:
        helps = dict(zip(COMMANDS, pool.map(lambda name: farm(name, "--help"), COMMANDS), strict=True))
    for name, told in helps.items():
        assert f" {name} " in shown.out
        assert (told.status, told.err) == (0, "")
        assert f"farm {name}" in told.out


def test_a_bare_farm_shows_its_help_and_complains_of_nothing(farm: Any) -> None:
    shown = farm()
    assert (shown.status, shown.err) == (2, "")
    assert "render" in shown.out


def test_the_command_the_doctor_and_the_api_tell_one_version(farm: Any) -> None:
    told = farm("--version")
    assert (told.status, told.err, told.out) == (0, "", f"farm {VERSION}\n")
    assert next(f.text for f in _versions()).startswith(f"{VERSION}, ")
    assert dashboard.app.VERSION is VERSION


def test_an_unknown_command_is_refused_in_one_line(farm: Any) -> None:
    outcome = farm("rendr")
    assert "No such command 'rendr'" in outcome.error()
    assert outcome.status == 2


def test_a_plan_as_json_is_a_plan(farm: Any) -> None:
    told = farm("plan", PHOTO, "--json", "--frames", "40", "--fps", "30000/1001", "--size", "256x128")
    assert (told.status, told.err) == (0, "")
    made = Plan.model_validate_json(told.out)
    assert (made.num_frames, made.width, made.height, str(made.fps)) == (40, 256, 128, "30000/1001")
    assert made.final_segments[-1].end == 40
    assert not (told.folder / "state").exists(), "a plan is made nowhere"


def test_words_alone_are_planned_by_a_model_that_makes_videos_of_them(farm: Any) -> None:
    told = farm("plan", "--prompt", "a ship sails", "--model", "instant", "--workers", "4GiB", "--json")
    made = Plan.model_validate_json(told.out)
    assert (made.shots[0].media, made.shots[0].prompt) == (None, "a ship sails")
    refused = farm("plan", "--prompt", "a ship sails", "--model", "procedural", "--workers", "4GiB")
    assert refused.status == 3
    assert "procedural makes no video of words alone" in " ".join(refused.err.split())


def test_a_frame_rate_files_cannot_say_is_rounded_and_said(farm: Any) -> None:
    made = Plan.model_validate_json(farm("plan", PHOTO, "--json", "--fps", "23.976023976").out)
    assert str(made.fps) == "24000/1001"
    assert "fps 24000/1001 chosen as the nearest to 2997002997/125000000" in made.notes


@pytest.mark.torch
def test_models_doctor_and_jobs_tell_an_empty_farm_as_json(farm: Any) -> None:
    assert [model["model"] for model in json.loads(farm("models", "--json").out)] == model_names()
    assert json.loads(farm("jobs", "--json").out) == []
    examined = farm("doctor", "--json", "--workers", "1GiB")
    findings = json.loads(examined.out)
    assert {"subject", "ok", "text"} == set(findings[0])
    assert examined.status == (0 if all(finding["ok"] for finding in findings) else 3)


def test_models_tell_what_the_named_workers_can_run_of_them(farm: Any) -> None:
    told = farm("models", "tiny_wan", "procedural", "--json", "--workers", "0.9GiB")
    found = {model["model"]: model["runnable"] for model in json.loads(told.out)}
    assert list(found) == ["tiny_wan", "procedural"]
    assert found["procedural"]["largest"]["holder"]["rung"] == "resident"
    assert found["tiny_wan"]["next_larger"]["lack"]["needs_bytes"] > 0.9 * 2**30
    shown = farm("models", "tiny_wan", "--workers", "0.9GiB").out
    assert len(shown.splitlines()) >= 2 + len(found["tiny_wan"]["settings"])
    elsewhere = farm("models", "--workers", "1GiB", "--farm", "127.0.0.1:9")
    assert "--farm is another" in elsewhere.error()


@pytest.mark.torch
def test_the_doctor_ends_with_status_3_where_a_worker_holds_nothing(farm: Any) -> None:
    examined = farm("doctor", "--json", "--workers", "1GiB,10MiB")
    assert examined.status == 3
    wrong = {f["subject"].split("/")[-1]: f["text"] for f in json.loads(examined.out) if not f["ok"]}
    assert wrong["cpu1"] == "CPU, 0.01 GiB: holds no window of any model"
    assert "cpu0" not in wrong


@pytest.mark.torch
def test_what_the_doctor_finds_is_a_line_each_that_can_be_pasted(farm: Any) -> None:
    lines = farm("doctor", "--join", "127.0.0.1:9").out.splitlines()
    firewalld = next(line for line in lines if "firewall-cmd" in line)
    assert firewalld.startswith("PROBLEM")
    assert firewalld.endswith("sudo firewall-cmd --reload")


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", PHOTO),
        ("watch", "job-000000000000"),
        ("nodes",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_a_farm_that_is_up_says_how_to_start_one(farm: Any, arguments: tuple[str, ...]) -> None:
    outcome = farm(*arguments)
    up = f"`farm up --state {outcome.folder / 'state'}`"
    assert outcome.error() == f"no farm is up here; start one with {up}, or name one with --farm"
    assert outcome.status == 3


def test_a_farm_that_does_not_answer_is_named(farm: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # never listens
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        outcome = farm("jobs", "--farm", url)
        assert outcome.error() == f"no farm answers at {url}; start one with `farm up`"
        assert outcome.status == 3
        outcome = farm("join", url, "--token", "x", "--workers", "1GiB")
        assert outcome.error().startswith(f"no farm answers at {url}; start one with `farm up")
        assert outcome.status == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("jobs", "--farm", "nowhere"), "url is 'nowhere', expected one such as http://"),
        (("join", "nowhere", "--token", "x"), "address is 'nowhere', expected HOST:PORT as a farm prints"),
        (("join", "host:99999", "--token", "x"), "expected HOST:PORT as a farm prints it"),
        (("join", "host:1", "--token", "x", "--price-per-hour", "nan"), "price_per_hour is nan, expected 0"),
        (("join", "host:1", "--token", "x", "--token-file", "y"), "two ways to say one thing; give one"),
        (("join", "host:1", "--token-file", "nowhere"), "nowhere cannot be read ([Errno 2] No such file or"),
        (("join", "host:1", "--token-file", "/dev/null"), "/dev/null is empty; it should hold a token"),
        (("up", "--pages", "farm.lan"), "pages is 'farm.lan', expected a URL without a path, such as"),
        (("up", "--node-key", "key"), "--node-key is for a farm that others reach; start it with --listen"),
        (("leave",), "this machine is in no farm; `farm join` adds it to one"),
        (("up", "--port", "99999"), "port is 99999, expected 1 to 65535"),
        (("up", "--cluster", "nowhere.yaml"), "nowhere.yaml cannot be read (No such file or directory)"),
        (("up", "--workers", "many"), "workers is 'many', expected an amount such as 12GiB"),
        (("submit", PHOTO, "-o", "v.mp4"), "--output goes with --watch; without it, `farm watch --state"),
    ],
    ids=lambda value: " ".join(Path(part).name for part in value) if isinstance(value, tuple) else "",
)
def test_what_names_no_farm_or_no_machine_is_refused(
    farm: Any, arguments: tuple[str, ...], says: str
) -> None:
    outcome = farm(*arguments)
    assert says in outcome.error()
    assert outcome.status == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder another user's")
@pytest.mark.parametrize(
    "command", [("up",), ("jobs",), ("render", PHOTO, "--workers", "1GiB"), ("join", "h:1")]
)
def test_a_state_folder_below_one_that_is_closed_to_the_user_is_one_line(
    farm: Any, command: tuple[str, ...], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, 65534, 65534)
    outcome = farm(*command, "--state", str(closed / "state"), ordinary=True)
    assert str(closed) in outcome.error()
    assert outcome.status in (2, 3)


def test_a_port_in_use_is_refused_before_anything_is_started(farm: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = farm("up", "--port", str(port))
    assert outcome.error() == (
        f"127.0.0.1:{port} cannot be listened on (Address already in use); choose another --port or --listen"
    )
    assert outcome.status == 3


@pytest.mark.parametrize("command", ["report", "retry"])
def test_a_job_is_looked_for_in_the_journal_before_anything_is_started(farm: Any, command: str) -> None:
    outcome = farm(command, "job-000000000000")
    assert outcome.error() == f"there is no farm in {outcome.folder / 'state'}; name its folder with --state"
    assert outcome.status == 2
    assert not (outcome.folder / "state").exists()
    (outcome.folder / "state").mkdir()
    sqlite3.connect(outcome.folder / "state" / "journal.sqlite").close()
    outcome = farm(command, "job-000000000000")
    jobs = f"`farm jobs --state {outcome.folder / 'state'}`"
    assert outcome.error() == f"there is no job job-000000000000; {jobs} lists them"
    assert outcome.status == 2


@pytest.mark.parametrize(
    "command", [("jobs",), ("report", "job-000000000000"), ("retry", "job-000000000000")]
)
def test_a_journal_that_is_none_is_named(farm: Any, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.sqlite").write_bytes(b"once upon a time " * 100)
    outcome = farm(*command)
    assert "journal.sqlite cannot be opened (file is not a database)" in outcome.error()
    assert outcome.status == 3


def test_an_animation_is_a_video_with_clip(farm: Any, tmp_path: Path) -> None:
    first, *others = (Image.new("RGB", (64, 64), (level,) * 3) for level in (20, 90, 160))
    path = tmp_path / "a.gif"
    first.save(path, save_all=True, append_images=others, duration=100)
    asked = ("plan", str(path), "--json", "--model", "procedural", "--size", "64x64")
    still, moving = (Plan.model_validate_json(farm(*asked, *more).out) for more in ((), ("--clip",)))
    assert still.shots[0].media.kind == "image"
    assert "the first is taken (with --clip" in still.notes[0]
    assert (moving.shots[0].media.kind, moving.num_frames, moving.fps) == ("video", 3, 10)
