"""Chromium, and farms in processes of their own for it to look at."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    async_playwright,
    expect,
)

ROOT = Path(__file__).parents[2]
OWNER = "the-owners-token"
SCREENSHOTS = ROOT / "out" / "screenshots"
#: The machine may be busy with other tests.
PATIENCE_MS = 20_000
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
#: A job that a segment's pace can be watched at: 24 frames in 5 segments.
SMALL = {
    "model": "procedural",
    "num_frames": 24,
    "fps": "8",
    "width": 96,
    "height": 64,
    "prompts": ["a walk"],
}

#: A join is looked at as soon as it is accepted, and the joined frames are written a moment later. The video
#: so far goes when the whole one is there, a moment before pages hear of it.
NOT_JOINED_YET = r"404 .*(/seams/[^/]+/picture\?which=after|/artifacts/so-far\.mp4)$"
ANY = ""

expect.set_options(timeout=PATIENCE_MS)


class FarmProcess:
    """A farm and its HTTP API; ``farm_process.py`` says what it can be told."""

    def __init__(self, state: Path, workers: dict[str, float]) -> None:
        self.state = state
        self._settings = json.dumps({"workers": workers, "access": OWNER})
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        headers = {"Authorization": f"Bearer {OWNER}"}
        self.http = httpx2.AsyncClient(base_url=f"{self.url}/api/v1", headers=headers, timeout=30)
        self._sessions: dict[str, dict[str, str]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._unheard = 0

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("farm_process.py")),
            str(self._port),
            str(self.state),
            self._settings,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        self._unheard = 0
        while not await self._answers():
            assert self._process.returncode is None, "the farm ended while it came up"
            await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        try:
            return (await self.http.get("/health")).status_code == 200
        except httpx2.TransportError:
            return False

    def tell(self, order: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())
        self._unheard += 1

    async def heard(self) -> None:
        """Wait until it has done all that it was told, which takes another way than what it is asked."""
        assert self._process is not None
        assert self._process.stdout is not None
        while self._unheard and (line := await self._process.stdout.readline()):
            self._unheard -= line == b"heard\n"

    async def kill(self) -> None:
        """At once, as a power cut does."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        await self.http.aclose()
        if self._process is not None and self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 10)
            except TimeoutError:
                await self.kill()

    async def submit(self, photo: Path, **options: Any) -> str:
        """The id of a job like ``SMALL``, which begins after all that was told before."""
        await self.heard()
        answer = await self.http.post(
            "/jobs",
            data={"request": json.dumps({**SMALL, **options})},
            files=[("inputs", (photo.name, photo.read_bytes()))],
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def until(self, job_id: str, status: str) -> None:
        """Follow a job's events until it has ended, and so."""
        async with self.http.stream("GET", f"/jobs/{job_id}/events", timeout=60) as events:
            async for _ in events.aiter_bytes():
                pass
        job = (await self.http.get(f"/jobs/{job_id}")).json()
        assert job["status"] == status, job["reason"]

    async def key(self, *scopes: str) -> str:
        """A fresh key."""
        made = await self.http.post("/keys", json={"name": " ".join(scopes), "scopes": list(scopes)})
        return str(made.json()["key"])

    async def session(self, key: str) -> dict[str, str]:
        """The cookie that the login page gets for a key."""
        if key not in self._sessions:
            async with httpx2.AsyncClient(base_url=self.url) as http:
                answer = await http.post("/api/v1/session", json={"key": key})
            assert answer.is_success, answer.text
            ((name, value),) = answer.cookies.items()
            self._sessions[key] = {"name": name, "value": value, "url": self.url}
        return self._sessions[key]


StartFarm = Callable[..., Awaitable[FarmProcess]]


@dataclass(frozen=True)
class LivedIn:
    """A farm and the ids of some of its jobs."""

    farm: FarmProcess
    succeeded: str
    failed: str
    running: str


@pytest_asyncio.fixture(loop_scope="session")
async def start_farm(tmp_path: Path) -> AsyncIterator[StartFarm]:
    """Starts a farm of these workers (id -> GiB), whose owner's token is ``OWNER``; it ends with the test."""
    async with AsyncExitStack() as stack:

        async def start(workers: dict[str, float] | None = None) -> FarmProcess:
            state = tmp_path / f"state-{len(list(tmp_path.iterdir()))}"
            state.mkdir()
            farm = FarmProcess(state, workers or {"near/cpu0": 4.0, "near/cpu1": 4.0})
            stack.push_async_callback(farm.close)
            await farm.start()
            return farm

        yield start


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def lived_in(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> AsyncIterator[LivedIn]:
    """A farm behind a login where everything that a page can show has happened."""
    workers = {"near/cpu0": 4.0, "near/cpu1": 4.0, "attic/cpu0": 0.1, "spare/cpu0": 4.0}
    farm = FarmProcess(tmp_path_factory.mktemp("lived-in"), workers)
    try:
        await farm.start()
        yield LivedIn(farm, *(await live_in(farm, photo)))
    finally:
        await farm.close()


async def live_in(farm: FarmProcess, photo: Path) -> tuple[str, str, str]:
    """Jobs that ended in every way and one that runs; keys, a webhook, a drained worker, a refused login."""
    farm.tell("let all")
    await farm.http.post("/nodes/spare/workers/cpu0/drain")
    succeeded = await farm.submit(photo, model="procedural-hard", prompts=["a storm over the quay"])
    await farm.until(succeeded, "succeeded")
    farm.tell("spoil")
    failed = await farm.submit(photo, prompts=["what cannot be drawn"])
    await farm.until(failed, "failed")
    farm.tell("mend")
    farm.tell("hold")
    cancelled = await farm.submit(photo, prompts=["nobody wants this any more"])
    await farm.http.post(f"/jobs/{cancelled}/cancel")
    running = await farm.submit(photo, model="procedural-typical", num_frames=44, prompts=["a walk " * 12])
    await farm.http.get("/jobs", headers={"Authorization": "Bearer not-the-owners-token"})
    for scope in ("read", "submit"):
        await farm.key(scope)
    (newest, *_) = (await farm.http.get("/keys")).json()["data"]
    await farm.http.delete(f"/keys/{newest['id']}")
    await farm.http.post(
        "/webhooks", json={"url": "https://studio.example/reelfarm", "events": ["job_published"]}
    )
    farm.tell("let 4")
    async with farm.http.stream("GET", f"/jobs/{running}/events", timeout=60) as events:
        done = 0
        async for line in events.aiter_lines():
            done += line == "event: attempt_succeeded"
            if done == 4:
                break
    return succeeded, failed, running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """One browser for all; every test has a context of its own."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs the command chromium (Debian: apt install chromium)")
    async with async_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = await playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        await browser.close()


class Visitor:
    """A browser context that is watched.

    Whatever a page does, it asks its own farm alone, breaks no rule of its content security policy and
    throws nothing. What a request was refused with is an error too, unless the test expects it.
    """

    def __init__(self, farm: FarmProcess, context: BrowserContext) -> None:
        self.farm = farm
        self.context = context
        self.faults: list[str] = []
        self.refusals: list[str] = []
        context.on("request", lambda request: self._asked(request.url))
        context.on("weberror", lambda error: self.faults.append(f"thrown: {error.error}"))
        context.on("console", lambda message: self._said(message))

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.farm.url}/", f"blob:{self.farm.url}/", "data:")):
            self.faults.append(f"asked elsewhere: {url}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.text.startswith("Failed to load resource"):
            self.refusals.append(f"{message.text}: {message.location['url']}")
        elif message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    async def open(self, path: str) -> Page:
        page = await self.context.new_page()
        await page.goto(f"{self.farm.url}{path}")
        return page


Visit = Callable[..., Awaitable[Visitor]]


@pytest_asyncio.fixture(loop_scope="session")
async def visit(chromium: Browser) -> AsyncIterator[Visit]:
    """A visitor of a farm, on a desktop unless ``PHONE`` is given; at the end nothing may have gone wrong.

    ``refusals``: a pattern of what may be refused. ``key``: what they have logged in with; None: nothing.
    """
    visitors: list[tuple[Visitor, str]] = []

    async def start(
        farm: FarmProcess, *, refusals: str = NOT_JOINED_YET, key: str | None = OWNER, **context: Any
    ) -> Visitor:
        opened = await chromium.new_context(**{**DESKTOP, "reduced_motion": "reduce", **context})
        opened.set_default_timeout(PATIENCE_MS)
        await opened.add_init_script(
            "addEventListener('securitypolicyviolation', ({violatedDirective, blockedURI}) =>"
            " console.error(`forbidden: ${violatedDirective} ${blockedURI}`))"
        )
        if key is not None:
            await opened.add_cookies([await farm.session(key)])
        visitors.append((Visitor(farm, opened), refusals))
        return visitors[-1][0]

    yield start
    for visitor, _ in visitors:
        await visitor.context.close()
    for visitor, expected in visitors:
        assert visitor.faults == []
        assert [refused for refused in visitor.refusals if not re.search(expected, refused)] == []


async def is_live(page: Page) -> None:
    await expect(page.get_by_test_id("live-status")).to_have_text("Live")


async def has_status(page: Page, status: str) -> None:
    """The job page says so."""
    await expect(page.locator(".progress-head .badge")).to_have_attribute("data-status", status)


async def shows(video: Locator, address: str) -> None:
    """The video is the one whose address holds this; a page says what it shows a moment before."""
    handle = await video.element_handle()
    await video.page.wait_for_function("([v, a]) => v.currentSrc.includes(a)", arg=[handle, address])


async def plays(video: Locator) -> None:
    """The video runs, by its own clock."""
    before = await video.evaluate(
        """async (v) => {
            v.loop = true;
            if (v.currentTime > 1) v.currentTime = 0;
            for (;;) {
                try {
                    await v.play();
                    return v.currentTime;
                } catch (error) {
                    if (error.name !== "AbortError") throw error;  // the page has put a new video there
                }
            }
        }"""
    )
    handle = await video.element_handle()
    await video.page.wait_for_function("([v, t]) => v.currentTime > t + 0.2", arg=[handle, before])


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """192 x 128 of smooth texture, as a person would have it: a file."""
    noise = np.random.default_rng(4).integers(0, 255, (8, 12, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("photos") / "harbour.png"
    cv2.imwrite(str(path), cv2.resize(noise, (192, 128), interpolation=cv2.INTER_CUBIC))
    return path


async def drop(page: Page, photo: Path) -> None:
    """Let a file fall onto the page."""
    content = list(photo.read_bytes())
    dropped = await page.evaluate_handle(
        """([bytes, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            return transfer;
        }""",
        [content, photo.name],
    )
    for event in ("dragover", "drop"):
        await page.dispatch_event("[data-testid=drop]", event, {"dataTransfer": dropped})
