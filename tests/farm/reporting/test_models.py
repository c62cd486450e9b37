"""What people read of models."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from farm.capabilities import EngineSpec
from farm.errors import NotFound
from farm.reporting.console import print_models
from farm.reporting.models import machines_with_models, model_reports, report_json, runnable_lines
from farm.scheduling.runnable import Runnable
from farm.state.profiles import Profiles
from farm.state.workers import WorkerState

HERE = {"model": "synthetic", "engine": "synthetic", "takes": ["image"], "source": "built in", "here": True}
ELSEWHERE = {**HERE, "model": "far", "source": "somebody/far at 0123", "here": False}


def _spec_of(make: Any) -> Any:
    def spec_of(model: str) -> EngineSpec:
        if model not in ("synthetic", "/models/mine"):
            raise NotFound(f"model {model} is none of synthetic", param="model")
        spec: EngineSpec = make.spec(model=model, disk_bytes=3_000_000_000)
        return spec

    return spec_of


def _reports(make: Any, **asked: Any) -> Any:
    workers = [make.worker("a/0", 2.2), make.worker("b/0", 2.5)]
    return model_reports([HERE, ELSEWHERE], _spec_of(make), workers, Profiles(), **asked)


def test_a_model_runs_somewhere_or_says_what_is_lacking_in_80_columns(make: Any) -> None:
    text = StringIO()
    print_models(_reports(make), every=False, console=Console(file=text, width=80))
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert " ".join(shown.split()) == (
        "synthetic (synthetic, built in, 3.00 GB on disk) takes image, text, video "
        "576x576 in windows of 8: stream on b/0, 2.27 GiB and 3.00 GiB of its machine's memory; 13 s for a "
        "second of video (predicted) "
        "not 720x720 in windows of 8: b/0 has 2.50 GiB, the smallest rung (stream) needs 2.98 GiB (0.48 GiB "
        "more) "
        "far (synthetic, somebody/far at 0123) takes image its files are not on this disk; the first job "
        "with it fetches them"
    )


def test_a_model_that_is_named_shows_every_setting(make: Any) -> None:
    (report,) = _reports(make, names=["synthetic"])
    assert len(runnable_lines(report, every=True)) == len(report["runnable"].settings) > 4


def test_a_model_whose_files_are_elsewhere_is_not_read(make: Any) -> None:
    def unread(model: str) -> EngineSpec:
        raise AssertionError(f"{model} would be fetched")

    (report,) = model_reports([ELSEWHERE], unread, [], Profiles())
    assert report["runnable"] is None
    assert report["disk_bytes"] is None


def test_what_of_it_would_run_is_told_by_its_shapes(make: Any) -> None:
    def unread(model: str) -> EngineSpec:
        raise AssertionError(f"{model} would be fetched")

    shape = make.spec(model="far", disk_bytes=3_000_000_000)
    found = model_reports([ELSEWHERE], unread, [make.worker("a/0", 8)], Profiles(), shape_of=lambda _: shape)
    text = StringIO()
    print_models(found, every=False, console=Console(file=text, width=200))
    shown = " ".join(text.getvalue().split())
    assert shown.startswith("far (synthetic, somebody/far at 0123, about 3 GB to fetch) takes")
    assert (
        "its files are not on this disk; the first job with it fetches them; by its published shapes:"
        in shown
    )
    assert "on a/0" in shown
    assert report_json(found[0])["here"] is False


def test_folders_of_jobs_are_told_where_they_can_be_read(make: Any) -> None:
    found = _reports(make, folders=["/models/gone", "/models/mine", "synthetic"])
    assert [report["model"] for report in found] == ["synthetic", "far", "/models/mine"]
    assert (found[-1]["engine"], found[-1]["source"]) == ("synthetic", "a folder")


def test_what_cannot_be_read_says_why_where_it_is_asked_for(make: Any) -> None:
    (report,) = _reports(make, names=["/models/gone"])
    assert runnable_lines(report) == ["model /models/gone is none of synthetic"]


def test_programs_get_the_same_as_plain_values(make: Any) -> None:
    report = _reports(make)[0]
    plain = report_json(report)
    assert Runnable.model_validate(plain["runnable"]) == report["runnable"]
    assert report_json(_reports(make)[1])["runnable"] is None


def test_a_licence_is_named_and_how_to_accept_one_that_restricts_use(make: Any) -> None:
    free = {"name": "Apache License 2.0", "url": "https://a", "restricts_use": False}
    strict = {"name": "Strict License", "url": "https://s", "restricts_use": True}
    known = [{**HERE, "licence": free}, {**ELSEWHERE, "licence": strict}]
    found = model_reports(known, _spec_of(make), [], Profiles())
    assert [report_json(report)["licence"] for report in found] == [free, strict]
    text = StringIO()
    print_models(found, every=False, console=Console(file=text, width=200))
    lines = [line.strip() for line in text.getvalue().splitlines() if "weights" in line]
    assert lines == [
        "weights: Apache License 2.0",
        "weights: Strict License, to be accepted once: `farm models accept far`",
    ]


def test_a_model_says_which_machines_have_it_on_their_disk(make: Any) -> None:
    here = [
        WorkerState(make.worker(worker_id, 8)) for worker_id in ("attic/0", "attic/1", "cellar/0", "den/0")
    ]
    for worker, models in zip(here, ({"far": 9, "synthetic": 0}, {"far": 9}, {"far": 9}, None), strict=True):
        worker.models = models
    held_by = machines_with_models(here)
    assert held_by == {"far": {"attic", "cellar"}}, "what comes with the farm is everywhere"
    own, far = _reports(make, held_by=held_by)
    assert (own["held_by"], far["held_by"]) == ([], ["attic", "cellar"])
    text = StringIO()
    print_models([far], every=False, console=Console(file=text, width=80))
    assert "on the disk of attic, cellar" in text.getvalue()
