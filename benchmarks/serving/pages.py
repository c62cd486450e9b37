"""How soon the pages of a large farm show what they are for, and how soon an event is seen on them.

    python benchmarks/serving/pages.py [--times 5] [--events 200] [--nicegui FOLDER] [--out ...json]

The farm has 200 jobs, 64 workers, and 5,000 segments in one of the jobs. All of it was recorded as events
through ``Ledger``, with plans of the real planner, and a process of its own replays it and serves it with
the real app. Debian's Chromium opens every page with a cold cache. Measured: the first contentful paint; when
the content is there (the rows of jobs, the timeline drawn, the workers listed); what came over the wire;
what a page that stays open costs the server. Then the server records what workers do, and the pages are
watched: latency is from ``Ledger.record`` to the frame after the change of the document, on one clock.

The named alternative, in the same run: the same list of jobs as a table of a NiceGUI 3.18.0 page. It is no
dependency of the farm: without it (``pip install --target FOLDER nicegui==3.18.0``) its figures are null.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.serving.large_farm import (  # noqa: E402
    EVENTS_PER_SECOND,
    JOBS,
    LONG_JOB,
    SEGMENTS,
    SEGMENTS_DONE,
    TOKEN,
    WORKERS,
    record_history,
)

OPEN_PAGES = 20
NICEGUI = Path.home() / ".cache/reelfarm-benchmarks/nicegui-3.18.0"
#: Page -> (address, JavaScript that is true when its content is there).
PAGES = {
    "new video": ("/", "document.querySelectorAll('[data-testid=choices-size] input').length > 3"),
    "jobs": ("/jobs", "document.querySelectorAll('[data-testid=jobs] tbody tr').length === 50"),
    "job": (
        f"/jobs/{LONG_JOB}",
        "(c => c && document.querySelectorAll('[data-testid=segments] tbody tr').length === 25"
        " && c.getContext('2d').getImageData(c.width / 2, 0, 1, c.height).data.some((v) => v))"
        "(document.querySelector('[data-testid=timeline] canvas'))",
    ),
    "nodes": ("/nodes", f"document.querySelectorAll('[data-testid=worker]').length === {WORKERS}"),
    "history": ("/history", "document.querySelectorAll('[data-testid=history] tbody tr').length === 25"),
    "settings": ("/settings", "document.querySelectorAll('#keys, #webhooks, #audit').length === 3"),
    "login": ("/login", "document.querySelector('#key') !== null"),
}
NICEGUI_CONTENT = "document.querySelectorAll('tbody tr').length >= 50"


class Server:
    """A program that serves, in a process that can be killed and started again on the same port."""

    def __init__(self, program: str, data: Path, python_path: list[Path]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, str(Path(__file__).with_name(program)), str(self.port), str(data)]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, python_path))}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.PIPE)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=10).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit("a server ended while it came up") from None
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def resident_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def record(self, segments: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{segments}\n".encode())
        self.process.stdin.flush()


@contextmanager
def serving(program: str, data: Path, python_path: list[Path]) -> Iterator[Server]:
    server = Server(program, data, python_path)
    try:
        yield server
    finally:
        server.kill()


#: First time each text was seen in the document, and when that was painted; milliseconds since the epoch.
WATCH = """([selector, pattern]) => {
    window.seen = {};
    const look = () => {
        for (const element of document.querySelectorAll(selector)) {
            const text = new RegExp(pattern).exec(element.textContent)?.[1];
            if (text && !(text in window.seen)) {
                window.seen[text] = Infinity;
                requestAnimationFrame(() => {
                    window.seen[text] = performance.timeOrigin + performance.now();
                });
            }
        }
    };
    look();
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


class Visitor:
    """Opens pages with a cold cache, logged in where that is wanted."""

    def __init__(self, browser: Any, server: Server, cookie: dict[str, str] | None) -> None:
        self._browser, self._server, self._cookie = browser, server, cookie

    @contextmanager
    def page(self, *, logged_in: bool = True) -> Iterator[Any]:
        context = self._browser.new_context(viewport={"width": 1280, "height": 800})
        if self._cookie and logged_in:
            context.add_cookies([self._cookie])
        yield context.new_page()
        context.close()

    def timed(self, path: str, content: str) -> dict[str, float]:
        """Seconds until the first paint and until the content is there, and bytes on the wire."""
        with self.page(logged_in=path != "/login") as page:
            received = [0.0]
            wire = page.context.new_cdp_session(page)
            wire.send("Network.enable")
            wire.on("Network.loadingFinished", lambda e: received.append(e["encodedDataLength"]))
            page.goto(self._server.url + path, wait_until="commit")
            # Asked in every frame, so it is painted with the next.
            at_ms = page.wait_for_function(f"() => ({content}) && performance.now()").json_value()
            paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            first_ms = page.wait_for_function(f"() => {paint}").json_value()
            page.wait_for_load_state("load")
            return {"first_s": first_ms / 1000, "content_s": at_ms / 1000, "received": sum(received)}

    def times(self, path: str, content: str, times: int) -> dict[str, float]:
        runs = [self.timed(path, content) for _ in range(times)]
        first, shown = [r["first_s"] for r in runs], [r["content_s"] for r in runs]
        return {
            "first_contentful_paint_median_s": round(statistics.median(first), 3),
            "first_contentful_paint_worst_s": round(max(first), 3),
            "content_median_s": round(statistics.median(shown), 3),
            "content_worst_s": round(max(shown), 3),
            "received_kib": round(statistics.median(r["received"] for r in runs) / 1024, 1),
        }

    def cost_of_open_pages(self, path: str, content: str) -> float:
        """MiB of the server's memory for each page that stays open, of people with a browser each."""
        self.timed(path, content)
        before = self._server.resident_bytes()
        with ExitStack() as stack:
            for _ in range(OPEN_PAGES):
                page = stack.enter_context(self.page())
                page.goto(self._server.url + path)
                page.wait_for_function(f"() => {content}")
            return round((self._server.resident_bytes() - before) / OPEN_PAGES / 2**20, 3)

    def survives_restart(self, path: str, content: str, back: str) -> bool:
        """Whether the window is the same one after the server was killed and started again.

        Args:
            back: JavaScript that is true when the page has noticed that the server is there again.
        """
        with self.page() as page:
            page.goto(self._server.url + path)
            page.wait_for_function(f"() => {content}")
            page.evaluate("window.marked = true")
            self._server.kill()
            page.wait_for_timeout(2000)  # it notices
            self._server.start()
            page.wait_for_function(f"() => !window.marked || ({back})", timeout=60_000)
            return bool(page.evaluate("window.marked === true"))

    def seen(
        self,
        path: str,
        content: str,
        selector: str,
        pattern: str,
        segments: int,
        recorded: Callable[[], int],
    ) -> dict[str, float]:
        """When each text that ``pattern`` finds was first painted, while so many segments are recorded."""
        with self.page() as page:
            page.goto(self._server.url + path)
            page.wait_for_function(f"() => {content}")
            live = "document.querySelector('[data-testid=live-status]').dataset.status === 'live'"
            page.wait_for_function(f"() => {live}")
            page.evaluate(WATCH, [selector, pattern])
            self._server.record(segments)
            while recorded() < segments:
                page.wait_for_timeout(100)
            page.wait_for_timeout(2000)
            found: dict[str, float] = page.evaluate("window.seen")
            return found


def quantiles(latencies: list[float]) -> dict[str, float]:
    return {
        "events": len(latencies),
        "p50_ms": round(1000 * float(np.percentile(latencies, 50)), 1),
        "p95_ms": round(1000 * float(np.percentile(latencies, 95)), 1),
        "worst_ms": round(1000 * max(latencies), 1),
    }


def latencies(visitor: Visitor, journal: Path, segments: int) -> dict[str, Any]:
    """From the record of an event to its first painted frame, on three pages."""
    result = {}
    assigned = "SELECT count(*) FROM events WHERE seq > ? AND type = 'task_assigned'"
    for name, selector, pattern in (
        ("job", ".progress-head", r"([\d,]+) of 5,000 segments"),
        ("jobs", "[data-testid=jobs] tbody tr:first-child", r"([\d,]+) of 5,000"),
        ("nodes", ".worker-work .task", r"(s0-\d+)"),
    ):
        with sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True) as db:
            newest, done = db.execute(
                "SELECT max(seq), count(*) FILTER (WHERE type = 'attempt_succeeded' AND job_id = ?)"
                " FROM events",
                (LONG_JOB,),
            ).fetchone()
            seen = visitor.seen(
                *PAGES[name],
                selector,
                pattern,
                segments,
                lambda db=db, newest=newest: db.execute(assigned, (newest,)).fetchone()[0],
            )
            rows = db.execute(
                "SELECT type, at, json_extract(body, '$.task_id') FROM events WHERE seq > ? AND type IN"
                " ('attempt_succeeded', 'task_assigned') ORDER BY seq",
                (newest,),
            ).fetchall()
        if name == "nodes":
            # A segment whose place was taken again before the page was painted is never seen.
            found = [
                seen[task] / 1000 - at for kind, at, task in rows if kind == "task_assigned" and task in seen
            ]
        else:
            counts = sorted((int(text.replace(",", "")), at_ms / 1000) for text, at_ms in seen.items())
            ended = [at for kind, at, _ in rows if kind == "attempt_succeeded"]
            found = [
                next(shown for count, shown in counts if count >= done + number) - at
                for number, at in enumerate(ended, 1)
            ]
        result[name] = quantiles(found)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--nicegui", type=Path, default=NICEGUI)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/pages.json")
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("needs the command chromium (Debian: apt install chromium)")
    load = [round(os.getloadavg()[0], 2)]
    with tempfile.TemporaryDirectory(prefix="pages-") as folder, sync_playwright() as playwright:
        state = Path(folder)
        record_history(state)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with serving("large_farm.py", state, [ROOT]) as server:
            visitor = Visitor(browser, server, session_of(server))
            pages = {name: visitor.times(*page, given.times) for name, page in PAGES.items()}
            open_page_mib = visitor.cost_of_open_pages(*PAGES["jobs"])
            seen = latencies(visitor, state / "journal.sqlite", given.events)
            live = "document.querySelector('[data-testid=live-status]').dataset.status === 'live'"
            survives = visitor.survives_restart(*PAGES["jobs"], live)
            jobs = state / "jobs.json"
            jobs.write_text(json.dumps(all_jobs(server)))
        alternative: dict[str, Any] = dict.fromkeys(("page", "server_mib_per_open_page", "survives_restart"))
        if (given.nicegui / "nicegui").is_dir():
            with serving("nicegui_jobs.py", jobs, [given.nicegui]) as server:
                visitor = Visitor(browser, server, None)
                table = ("/", NICEGUI_CONTENT)
                alternative = {
                    "page": visitor.times(*table, given.times),
                    "server_mib_per_open_page": visitor.cost_of_open_pages(*table),
                    "survives_restart": visitor.survives_restart(*table, "false"),
                }
        else:
            print(
                f"NiceGUI is not in {given.nicegui}, its figures stay empty; to have them:\n"
                f"  pip install --target {given.nicegui} nicegui==3.18.0",
                file=sys.stderr,
            )
        browser.close()
    result = {
        "jobs": JOBS,
        "workers": WORKERS,
        "segments_of_one_job": SEGMENTS,
        "segments_done_of_it": SEGMENTS_DONE,
        "times_each": given.times,
        "pages": pages,
        "slowest_content_s": max(page["content_worst_s"] for page in pages.values()),
        "event_to_painted": seen,
        "segments_per_second": EVENTS_PER_SECOND,
        "server_mib_per_open_page": open_page_mib,
        "survives_restart": survives,
        "nicegui": alternative,
        "cores_of_the_machine": os.cpu_count(),
        "load_of_the_machine": [*load, round(os.getloadavg()[0], 2)],
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    json.dump(result, sys.stdout, indent=2)
    print()


def session_of(server: Server) -> dict[str, str]:
    """The cookie of a login."""
    request = urllib.request.Request(
        f"{server.url}/api/v1/session",
        data=json.dumps({"key": TOKEN}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        name, _, value = answer.headers["Set-Cookie"].partition(";")[0].partition("=")
    return {"name": name, "value": value, "url": server.url}


def all_jobs(server: Server) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{server.url}/api/v1/jobs?limit=200", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request) as answer:
        data: list[dict[str, Any]] = json.load(answer)["data"]
    return data


if __name__ == "__main__":
    main()
