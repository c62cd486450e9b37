"""The page that makes a video by itself: as plain files, and on a farm."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from PIL import Image
from playwright.async_api import Browser, BrowserContext, Page, expect

from farm.cli.page_commands import export_page
from nodes.work.inputs import fitted
from tests.browser.conftest import ANY, PATIENCE_MS, LivedIn, Visit

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "tiny_wan"
SAMPLE = ROOT / "dashboard" / "pages" / "static" / "sample.jpg"
#: Of a clip on a busy machine.
LONG_MS = 240_000
PROMPT = "pan “left”, quickly &amp; with parallax"
#: As bytes of latin-1, base64: the quickest way for much from a page.
AS_TEXT = """(made) => {
    const bytes = new Uint8Array(made.buffer, made.byteOffset, made.byteLength);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
}"""


async def made_by(page: Page, module: str, expression: str, argument: Any = None) -> bytes:
    """Bytes that an expression over one of the page's modules (``m``) and an argument (``a``) gives."""
    script = f"""async ([module, a]) => {{
        const m = await import(module);
        return ({AS_TEXT})(await ({expression}));
    }}"""
    address = f"/static/x/js/try/{module}.js"
    return base64.b64decode(await page.evaluate(script, [address, argument]))


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def scripts(lived_in: LivedIn, chromium: Browser) -> AsyncIterator[Page]:
    """The page on a farm, for its modules to be called."""
    context = await chromium.new_context()
    await context.add_cookies([await lived_in.farm.session("the-owners-token")])
    page = await context.new_page()
    await page.goto(f"{lived_in.farm.url}/try")
    yield page
    await context.close()


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
async def test_the_noise_is_the_farms(scripts: Page, seed: int) -> None:
    from nodes.engines.common import causal_indices, frame_noise

    shape = {"channels": 24, "count": 3, "height": 24, "width": 32}
    call = f"m.noise({seed}n, 9, 4, a)"
    made = np.frombuffer(await made_by(scripts, "model", call, shape), np.float32)
    wanted = frame_noise(seed, causal_indices(range(9), 4), (24, 24, 32)).swapaxes(0, 1)
    # Logarithms of two mathematical libraries, in the tails, may differ in their last bit.
    np.testing.assert_allclose(made.reshape(wanted.shape), wanted, rtol=3e-7)


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("the camera pans right", "the camera pans right"),
        ("  pan\n“left”,   fast &amp; far ", 'pan "left", fast & far'),
        ("ﬂy ｏｖｅｒ the café\u0301", "fly over the cafe\u0301".replace("e\u0301", "é\u0301")),
        ("漢字 and 𝔘 unknown▁letters <pad> end</s>", "漢字 and 𝔘 unknown▁letters <pad> end</s>"),
        ("", ""),
        ("zoom in on the harbour at dusk " * 12, ("zoom in on the harbour at dusk " * 12).strip()),
    ],
)
async def test_prompts_are_read_as_by_the_farm(scripts: Page, prompt: str, read: str) -> None:
    from tokenizers import Tokenizer

    from nodes.engines.folders import model_facts
    from nodes.engines.wan.facts import ModelFacts, told_prompt
    from nodes.engines.wan.text import cleaned

    assert cleaned(prompt) == read
    facts = model_facts(MODEL, ModelFacts)
    ids = Tokenizer.from_file(str(MODEL / "tokenizer" / "tokenizer.json")).encode(
        told_prompt(facts, read, 8.0)
    )
    wanted = [*ids.ids[:-1][:127], 1]
    told = {
        "json": json.loads((MODEL / "tokenizer" / "tokenizer.json").read_text()),
        "facts": {"prompt_template": facts.prompt_template, "told_fps": list(facts.told_fps)},
        "prompt": prompt,
    }
    call = "Int32Array.from(new m.Tokenizer(a.json).ids(m.toldPrompt(a.facts, m.cleaned(a.prompt), 8), 128))"
    made = np.frombuffer(await made_by(scripts, "prompt", call, told), np.int32)
    assert made.tolist() == wanted


@pytest.mark.parametrize("size", [(128, 128), (192, 128), (256, 384), (720, 480)])
async def test_a_photo_is_fitted_as_by_the_farm(scripts: Page, size: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 255, (333, 500, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1.5)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    sent = {"bytes": list(file.getvalue()), "width": size[0], "height": size[1]}
    call = "m.fitted(await m.decoded(new Blob([Uint8Array.from(a.bytes)])), a.width, a.height)"
    made = np.frombuffer(await made_by(scripts, "picture", call, sent), np.uint8).reshape(*size[::-1], 4)
    wanted = fitted(image, *size, "crop")
    assert np.abs(made[..., :3].astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("length", [0, 55, 56, 64, 1000])
async def test_a_hash_without_the_browsers_own_is_the_same(scripts: Page, length: int) -> None:
    content = bytes(i * 7 % 256 for i in range(length))
    call = "new TextEncoder().encode(m.sha256(Uint8Array.from(a)))"
    assert (await made_by(scripts, "sha256", call, list(content))).decode() == hashlib.sha256(
        content
    ).hexdigest()


@pytest.mark.parametrize("kind", ["webm", "webp"])
async def test_a_clip_is_a_file_that_others_play(scripts: Page, kind: str) -> None:
    """Nine frames that become brighter; without an encoder of videos it is an animated WebP."""
    call = """(async () => {
        if (a === "webp") delete globalThis.VideoEncoder;
        const frames = new Uint8ClampedArray(9 * 64 * 48 * 4);
        const size = 64 * 48 * 4;
        frames.forEach((_, i) => { frames[i] = i % 4 === 3 ? 255 : 20 + 20 * Math.floor(i / size); });
        const { blob, suffix } = await m.packed(frames, 64, 48, 8);
        if (suffix !== a) throw new Error(suffix);
        return new Uint8Array(await blob.arrayBuffer());
    })()"""
    content = await made_by(scripts, "video", call, kind)
    if kind == "webm":
        with av.open(io.BytesIO(content)) as file:
            frames = [(float(f.time), f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]
        assert [at for at, _ in frames] == pytest.approx([i / 8 for i in range(9)], abs=2e-3)
        pictures = [picture for _, picture in frames]
    else:
        with Image.open(io.BytesIO(content)) as image:
            assert image.n_frames == 9
            pictures = []
            for number in range(9):
                image.seek(number)
                pictures.append(np.asarray(image.convert("RGB")))
                assert image.info["duration"] == 125
    for number, picture in enumerate(pictures):
        assert picture.shape == (48, 64, 3)
        assert abs(float(picture.mean()) - (20 + 20 * number)) < 6


async def test_a_farm_that_has_not_built_the_model_says_how(lived_in: LivedIn, visit: Visit) -> None:
    page = await (await visit(lived_in.farm, refusals=ANY)).open("/try")
    await page.get_by_test_id("sample").click()
    await page.get_by_test_id("make").click()
    await expect(page.get_by_role("alert")).to_contain_text("farm export-page")
    assert await page.evaluate("crossOriginIsolated")


async def test_photo_prompt_and_seed_are_handed_to_the_farm(lived_in: LivedIn, visit: Visit) -> None:
    page = await (await visit(lived_in.farm, refusals=ANY)).open("/try")
    await page.get_by_test_id("sample").click()
    await page.get_by_label("Prompt").fill("tilt up slowly")
    await page.get_by_label("Seed").fill("77")
    await page.get_by_test_id("hand-over").click()
    await expect(page.get_by_role("heading", name="New video")).to_be_visible()
    await expect(page.get_by_label("Prompt")).to_have_value("tilt up slowly")
    await expect(page.get_by_test_id("inputs")).to_contain_text("coffee.jpg")
    await page.get_by_text("More settings").click()
    await expect(page.get_by_label("Seed")).to_have_value("77")


class Site:
    """A server of plain files, and what was asked of it."""

    def __init__(self, folder: Path, headers: dict[str, str]) -> None:
        self.asked: list[str] = []
        #: Names whose content is spoilt on its way.
        self.spoilt: list[str] = []
        site = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                if any(name in self.path for name in site.spoilt):
                    content = bytearray((folder / self.path.lstrip("/")).read_bytes())
                    content[len(content) // 2] ^= 1
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                else:
                    super().do_GET()

            def end_headers(self) -> None:
                for name, value in headers.items():
                    self.send_header(name, value)
                super().end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def exported() -> Path:
    """The page, written once for all runs."""
    state, folder = ROOT / "out", ROOT / "out" / "try-page"
    export_page(folder, state, as_json=True)
    return folder


@pytest.fixture
def site(exported: Path) -> Iterator[Site]:
    isolated = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    found = Site(exported, isolated)
    yield found
    found.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """Whose page throws nothing, breaks no policy and asks one server alone."""
    context = await chromium.new_context(reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    origins: set[str] = set()
    await context.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error(`forbidden: ${e.blockedURI}`))"
    )
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("console", lambda said: said.type == "error" and faults.append(said.text))
    context.on("request", lambda request: origins.add(re.sub(r"^blob:", "", request.url).split("/")[2]))
    yield context
    await context.close()
    assert faults == []
    assert len(origins) == 1


async def makes(page: Page, **wish: str) -> None:
    """Take the sample photo, wish, and wait for the clip."""
    if await page.get_by_test_id("sample").count():
        await page.get_by_test_id("sample").click()
    await page.get_by_label("Size").select_option("128x128")
    for name, value in wish.items():
        field = page.get_by_label(name)
        await (field.select_option(value) if name == "Length" else field.fill(value))
    await page.get_by_test_id("make").click()
    await expect(page.get_by_test_id("clip")).to_be_visible(timeout=LONG_MS)
    await expect(page.get_by_test_id("done")).to_be_visible(timeout=LONG_MS)


def of_the_farm(frames: int, seed: int) -> NDArray[np.uint8]:
    """The farm's own frames of the same wish."""
    from farm.capabilities.worker import GIB, Worker
    from farm.planning.render_task import RenderTask
    from nodes.engines import RenderInputs, create_engine

    worker = Worker(id="a/0", node="a", kind="cpu", device_name="CPU", vram_bytes=2 * GIB)
    engine = create_engine("tiny_wan", worker, cpu_threads=1)
    engine.load("resident")
    task = RenderTask(
        model="tiny_wan",
        prompt=PROMPT,
        frame_indices=tuple(range(frames)),
        shot_start=0,
        shot_end=frames,
        height=128,
        width=128,
        fps=8,
        num_inference_steps=4,
        guidance_scale=1.0,
        seed=seed,
    )
    photo = fitted(np.asarray(Image.open(SAMPLE).convert("RGB")), 128, 128, "crop")
    return engine.render(task, RenderInputs(image=photo), lambda *_: None).frames


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_page_of_plain_files_makes_the_farms_own_clip(site: Site, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(site.url)
    await page.evaluate(
        """() => {
            const put = CanvasRenderingContext2D.prototype.putImageData;
            window.frames_ = new Map();
            CanvasRenderingContext2D.prototype.putImageData = function (image, ...rest) {
                const { data } = image;
                if (data.byteOffset) window.frames_.set(data.byteOffset / data.length, data);
                return put.call(this, image, ...rest);
            };
        }"""
    )
    await makes(page, Prompt=PROMPT, Seed="12345678901234567890", Length="9")
    await expect(page.get_by_test_id("done")).to_contain_text("threads")
    await page.wait_for_function("() => window.frames_.size === 8")  # all but the first
    sorted_ = "[...window.frames_].sort((a, b) => a[0] - b[0])"
    made = await page.evaluate(f"{sorted_}.map(([, data]) => ({AS_TEXT})(data))")
    pixels = [np.frombuffer(base64.b64decode(each), np.uint8) for each in made]
    frames = np.stack(pixels).reshape(-1, 128, 128, 4)
    wanted = of_the_farm(9, 12345678901234567890)[1:].astype(float)
    error = float(np.mean((frames[..., :3] - wanted) ** 2))
    assert 10 * math.log10(255**2 / max(error, 1e-9)) >= 38

    async with page.expect_download() as download:
        await page.get_by_test_id("download").click()
    assert (await download.value).suggested_filename == "reelfarm-12345678901234567890.webm"

    # A second visit fetches nothing large.
    site.asked.clear()
    again = await visitor.new_page()
    await again.goto(site.url)
    await makes(again, Length="9")
    assert {path for path in site.asked if path.startswith("/files/")} == {"/files/manifest.json"}


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_one_thread_is_told_and_a_cancelled_clip_is_made_anew(
    exported: Path, visitor: BrowserContext
) -> None:
    site = Site(exported, {})
    try:
        page = await visitor.new_page()
        await page.goto(site.url)
        await page.get_by_test_id("sample").click()
        await page.get_by_label("Size").select_option("128x128")
        await page.get_by_test_id("make").click()
        await page.get_by_test_id("cancel").click()
        await expect(page.get_by_test_id("cancel")).to_have_count(0)
        await makes(page, Length="9")
        await expect(page.get_by_test_id("one-thread")).to_contain_text("one thread")
    finally:
        site.close()


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_file_that_comes_damaged_is_fetched_again_and_then_named(
    site: Site, visitor: BrowserContext
) -> None:
    site.spoilt = ["encoder-"]
    page = await visitor.new_page()
    await page.goto(site.url)
    await page.get_by_test_id("sample").click()
    await page.get_by_test_id("make").click()
    await expect(page.get_by_role("alert")).to_contain_text("came damaged twice", timeout=LONG_MS)
    assert sum("encoder-" in path for path in site.asked) >= 2
    site.spoilt = []
    await makes(page, Length="9")
