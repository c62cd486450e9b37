"""What Prometheus is told, and that the Grafana dashboard asks for nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from farm.state.events import AttemptFailed, ResultRefused
from farm.state.workers import Telemetry

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana" / "reelfarm.json"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def asked(farm: Any) -> Samples:
    """(name, sorted labels) -> value."""
    answer = await farm.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples that carry these labels."""
    return sum(v for (n, found), v in samples.items() if n == name and labels.items() <= dict(found).items())


@pytest.fixture
async def counting(start_farm: Callable[..., Awaitable[Any]]) -> AsyncIterator[Any]:
    """A farm whose server has begun."""
    farm = await start_farm()
    async with farm.app.router.lifespan_context(farm.app):
        await asyncio.sleep(0)
        yield farm


async def test_a_job_is_counted_from_its_start_to_its_end(counting: Any, photo: Path) -> None:
    farm = counting
    assert total(await asked(farm), "reelfarm_jobs", status="succeeded") == 0
    await farm.until_ended((await farm.submit(photo)).json()["id"])
    samples = await asked(farm)
    assert total(samples, "reelfarm_jobs", status="succeeded") == 1
    assert total(samples, "reelfarm_jobs") == 1
    assert total(samples, "reelfarm_segments_total", outcome="succeeded", model="procedural") == 5
    assert total(samples, "reelfarm_segment_seconds_count", model="procedural") == 5
    assert total(samples, "reelfarm_segment_seconds_sum") > 0
    assert total(samples, "reelfarm_queue_wait_seconds_count") == 5
    assert total(samples, "reelfarm_seam_score_count", measure="mae_ratio") == 4
    assert total(samples, "reelfarm_last_event") == farm.coordinator.ledger.last_seq


async def test_failures_and_refusals_are_counted_by_kind(counting: Any, photo: Path) -> None:
    farm = counting
    job_id = (await farm.submit(photo)).json()["id"]
    await farm.until_ended(job_id)
    task = next(iter(farm.coordinator.ledger.job(job_id).tasks.values()))
    metrics = {"job_id": job_id, "task_id": task.id, "attempt_id": task.attempts[0].id}
    note = farm.app.state.metrics.note
    note(1.0, AttemptFailed(**metrics, kind="oom", message=""))
    note(1.0, AttemptFailed(**metrics, kind="cancelled", message=""))
    note(1.0, ResultRefused(**metrics, reason="late"))
    samples = await asked(farm)
    assert total(samples, "reelfarm_attempt_failures_total", kind="oom") == 1
    assert total(samples, "reelfarm_attempt_failures_total") == 1
    assert total(samples, "reelfarm_segments_total", outcome="withdrawn") == 1
    assert total(samples, "reelfarm_segments_total", outcome="failed") == 1
    assert total(samples, "reelfarm_results_refused_total") == 1


async def test_a_job_that_is_taken_up_again_has_not_waited_since_its_end(counting: Any, photo: Path) -> None:
    farm = counting
    job_id = await farm.finished_job(photo)
    ledger = farm.coordinator.ledger
    later = ledger.clock() + 5000.0
    ledger.clock = lambda: later
    farm.coordinator.rerender(job_id, 0, 5)
    await farm.until(lambda: ledger.job(job_id).status == "succeeded")
    await asyncio.sleep(0)
    samples = await asked(farm)
    assert total(samples, "reelfarm_queue_wait_seconds_count") == 6
    assert total(samples, "reelfarm_queue_wait_seconds_sum") < 1000


async def test_what_a_worker_does_not_know_is_absent_not_zero(farm: Any) -> None:
    worker = farm.coordinator.ledger.state.workers["near/cpu0"]
    known = Telemetry(
        worker_id="near/cpu0",
        vram_used_bytes=None,
        vram_total_bytes=None,
        load=0.5,
        temperature_c=None,
        power_w=None,
        memory_used_bytes=123,
    )
    worker.telemetry = known
    samples = await asked(farm)
    own = {"worker": "near/cpu0", "kind": "cpu"}
    assert total(samples, "reelfarm_worker_load_ratio", **own) == 0.5
    assert total(samples, "reelfarm_worker_memory_used_bytes", **own) == 123
    assert total(samples, "reelfarm_worker_vram_bytes", **own) == worker.worker.vram_bytes
    assert not any(name == "reelfarm_worker_temperature_celsius" for name, _ in samples)
    worker.telemetry = replace(known, temperature_c=61.0)
    assert total(await asked(farm), "reelfarm_worker_temperature_celsius", **own) == 61


async def test_requests_are_counted_by_route_whatever_the_address(farm: Any) -> None:
    for number in range(3):
        assert (await farm.http.get(f"/api/v1/jobs/job-{number:012x}")).status_code == 404
    await farm.http.get("/api/v1/nowhere/at/all")
    await farm.http.request("BREW", "/api/v1/health")
    samples = await asked(farm)
    counted = {"method": "GET", "route": "/api/v1/jobs/{job_id}", "status": "404"}
    assert total(samples, "reelfarm_http_requests_total", **counted) == 3
    assert total(samples, "reelfarm_http_requests_total", method="other") == 1
    assert {dict(labels)["route"] for name, labels in samples if name == "reelfarm_http_requests_total"} <= {
        "/api/v1/jobs/{job_id}",
        "/api/v1/health",
        "/metrics",
        "none",
    }


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/v1/jobs/job-1", "/api/v1/jobs/{job_id}"),
        ("/v1/videos/video_1", "/v1/videos/{video_id}"),
        ("/jobs/job-1", "/jobs/{job_id}"),
        ("/metrics", "/metrics"),
        ("/", "/"),
        ("/static/1/js/a.js", "/static/{asked_version}/{name:path}"),
        ("/anything/they/like", "none"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_route_is_named_whole_and_never_by_what_was_asked(
    shared_farm: Any, path: str, route: str
) -> None:
    before = total(await asked(shared_farm), "reelfarm_http_requests_total", route=route)
    await shared_farm.http.get(path)
    after = total(await asked(shared_farm), "reelfarm_http_requests_total", route=route)
    assert after == before + (2 if route == "/metrics" else 1)


def expressions(node: Any) -> list[str]:
    """Every PromQL expression of a dashboard, variables' queries included."""
    if isinstance(node, dict):
        own = [v for k, v in node.items() if k in ("expr", "query", "definition") and isinstance(v, str)]
        return own + [found for value in node.values() for found in expressions(value)]
    if isinstance(node, list):
        return [found for value in node for found in expressions(value)]
    return []


async def test_the_grafana_dashboard_asks_for_metrics_that_exist(farm: Any) -> None:
    text = (await farm.http.get("/metrics")).text
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    known = set(kinds)
    for name, kind in kinds.items():
        if kind == "histogram":
            known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    dashboard = json.loads(GRAFANA.read_text())
    named = {name for found in expressions(dashboard) for name in re.findall(r"\breelfarm_\w+", found)}
    assert len(named) >= 15
    assert named <= known


def test_the_panels_of_the_grafana_dashboard_do_not_overlap() -> None:
    dashboard = json.loads(GRAFANA.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
