"""How long does a video in a browser tab take, and what does it cost the visitor?

    python benchmarks/serving/try_page.py [--times 3] [--size 128x128] [--frames 17] [--out ...json]

The page as ``farm export-page`` writes it, from a server of plain files in this process, in Debian's
headless Chromium: with the headers that isolate it (threads) and without (one thread). A visitor takes the
sample photo and presses the button at once, so that what the model's loading takes is waited for; a second
video needs none. Measured: from the click until the clip plays, by the page's own clock, with the files in
the browser's cache; processor time of the browser meanwhile, which says what the machine would do if it had
nothing else to do; bytes of the first visit; the longest time that the page did not draw; the most memory
of the tab (unique set size of its process); PSNR to the frames of the farm's engine. The named alternative
is that engine on one core, in processor time.

Times on the clock are worth something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from farm.capabilities.worker import GIB, Worker  # noqa: E402
from farm.cli.page_commands import export_page  # noqa: E402
from farm.planning.render_task import RenderTask  # noqa: E402
from nodes.engines.engine import RenderInputs  # noqa: E402
from nodes.engines.table import create_engine  # noqa: E402
from nodes.work.inputs import fitted  # noqa: E402

SAMPLE = ROOT / "dashboard" / "pages" / "static" / "sample.jpg"
PROMPT = "the camera slowly zooms in"
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
MEMORY_EVERY_S = 0.05
PATIENCE_MS = 600_000
WATCH = """() => {
    window.longest = 0;
    let before = performance.now();
    const look = () => {
        const now = performance.now();
        window.longest = Math.max(window.longest, now - before);
        before = now;
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
    document.addEventListener("click", ({ target }) => {
        if (!target.closest("[data-testid=make]")) return;
        Object.assign(window, { clicked: performance.now(), played: undefined, longest: 0 });
        window.old = window.last;
        window.shown.clear();
    }, true);
    const put = CanvasRenderingContext2D.prototype.putImageData;
    window.shown = new Map();
    CanvasRenderingContext2D.prototype.putImageData = function (image, ...rest) {
        const { data } = image;
        if (data.buffer.byteLength > data.length && data.buffer !== window.old) { // one of the new clip
            window.last = data.buffer;
            window.played ??= performance.now();
            window.shown.set(data.byteOffset / data.length, data);
        }
        return put.call(this, image, ...rest);
    };
}"""
FRAMES = """() => [...window.shown].sort((a, b) => a[0] - b[0]).map(([, data]) => {
    let text = "";
    for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
    return btoa(text);
})"""


class Site:
    """The folder behind a server that counts the bytes it sends."""

    def __init__(self, folder: Path, headers: dict[str, str]) -> None:
        self.sent_bytes = 0
        site = self

        class Handler(SimpleHTTPRequestHandler):
            def end_headers(self) -> None:
                for name, value in headers.items():
                    self.send_header(name, value)
                super().end_headers()

            def copyfile(self, source: Any, outputfile: Any) -> None:
                site.sent_bytes += os.fstat(source.fileno()).st_size
                super().copyfile(source, outputfile)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"


class Used:
    """What the processes below this one use: the largest memory of one, and processor time of all."""

    def __init__(self) -> None:
        self.most_bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._end.wait(MEMORY_EVERY_S):
            for process in self._tabs():
                try:
                    self.most_bytes = max(self.most_bytes, process.memory_full_info().uss)
                except psutil.Error:
                    continue

    @staticmethod
    def _tabs() -> list[psutil.Process]:
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if "--type=renderer" in process.cmdline():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._tabs())

    def __enter__(self) -> Used:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


@contextmanager
def browser_page(folder: Path) -> Iterator[Any]:
    """A Chromium that keeps what it fetches, as a visitor's does."""
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("needs the command chromium (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(folder), executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield context
        context.close()


def clip(page: Page, used: Used, size: str, frames: int, *, fresh: bool) -> dict[str, float]:
    """Click and wait until it plays."""
    if fresh:
        page.get_by_test_id("sample").click()
        page.get_by_label("Size").select_option(size)
        page.get_by_label("Length").select_option(str(frames))
        page.get_by_label("Prompt").fill(PROMPT)
    cpu_s = used.cpu_s()
    page.get_by_test_id("make").click()
    page.wait_for_function("() => window.played !== undefined", timeout=PATIENCE_MS)
    return {
        "click_to_playing_s": round(page.evaluate("(window.played - window.clicked) / 1000"), 2),
        "cpu_s": round(used.cpu_s() - cpu_s, 2),
        "longest_not_drawn_ms": round(page.evaluate("window.longest")),
    }


def measure(folder: Path, headers: dict[str, str], size: str, frames: int, times: int) -> dict[str, Any]:
    """Visits of one browser: the first fetches, the others have the files."""
    site = Site(folder, headers)
    visits, found = [], {}
    with tempfile.TemporaryDirectory() as profile, browser_page(Path(profile)) as context, Used() as used:
        for number in range(times + 1):
            page = context.new_page()
            page.goto(site.url)
            page.evaluate(WATCH)
            first = clip(page, used, size, frames, fresh=True)
            if number == 0:
                found["first_visit_bytes"] = site.sent_bytes
            else:
                ready = clip(page, used, size, frames, fresh=False)
                visits.append(first | {"model_ready": ready})
            page.wait_for_function(f"() => window.shown.size === {frames}", timeout=PATIENCE_MS)
            made = page.evaluate(FRAMES)
            found["threads"] = page.get_by_test_id("done").inner_text()
            page.close()
        found["most_memory_mb"] = round(used.most_bytes / 1e6)
    pixels = np.stack([np.frombuffer(base64.b64decode(each), np.uint8) for each in made])
    width, height = map(int, size.split("x"))
    best = min(visits, key=lambda visit: visit["click_to_playing_s"])
    found |= {"best": best, "visits": visits}
    return {**found, "frames": pixels.reshape(-1, height, width, 4)[..., :3]}


def of_the_farm(size: str, frames: int) -> tuple[NDArray[np.uint8], float]:
    """The farm's frames, and seconds of processor time of the second time they were made."""
    width, height = map(int, size.split("x"))
    worker = Worker(id="a/0", node="a", kind="cpu", device_name="CPU", vram_bytes=2 * GIB)
    engine = create_engine("tiny_wan", worker, cpu_threads=1)
    engine.load("resident")
    photo = fitted(np.asarray(Image.open(SAMPLE).convert("RGB")), width, height, "crop")
    task = RenderTask(
        model="tiny_wan",
        prompt=PROMPT,
        frame_indices=tuple(range(frames)),
        shot_start=0,
        shot_end=frames,
        height=height,
        width=width,
        fps=8,
        num_inference_steps=4,
        guidance_scale=1.0,
        seed=0,
    )
    for _ in range(2):
        began = time.process_time()
        made = engine.render(task, RenderInputs(image=photo), lambda *_: None).frames
    return made, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "try_page.json")
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    folder = ROOT / "out" / "try-page"
    export_page(folder, ROOT / "out", as_json=True)
    wanted, farm_cpu_s = of_the_farm(arguments.size, arguments.frames)
    ways = {}
    for way, headers in (("isolated", ISOLATED), ("not isolated", {})):
        row = measure(folder, headers, arguments.size, arguments.frames, arguments.times)
        made = row.pop("frames").astype(float)
        error = float(np.mean((made - wanted) ** 2))
        row["psnr_to_the_farm_db"] = round(10 * np.log10(255**2 / max(error, 1e-9)), 1)
        ways[way] = row
        best, ready = row["best"], row["best"]["model_ready"]
        print(
            f"{way:14}{best['click_to_playing_s']:6.2f} s from click to playing ({best['cpu_s']:.1f} of "
            f"processors); with the model ready {ready['click_to_playing_s']:.2f} ({ready['cpu_s']:.1f}); "
            f"{row['first_visit_bytes'] / 1e6:.1f} MB the first time; {row['most_memory_mb']} MB of memory; "
            f"{row['psnr_to_the_farm_db']} dB; not drawn for {best['longest_not_drawn_ms']} ms at most. "
            f"{row['threads']}"
        )
    print(f"{'the engine':14}{farm_cpu_s:7.2f} s of one core")
    made_by = {"command": "python benchmarks/serving/try_page.py", "cores": os.cpu_count()}
    result = {
        "made": {**made_by, "load_average_before": load},
        "clip": {"size": arguments.size, "frames": arguments.frames},
        "ways": ways,
        "engine_cpu_s": round(farm_cpu_s, 2),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
