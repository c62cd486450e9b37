"""Every page in a state worth looking at: how to come there, and that it has come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.browser.conftest import SCREENSHOTS, LivedIn, Visitor, has_status


async def new_video(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open("/")
    await page.get_by_test_id("drop").locator("input").set_input_files([photo, photo])
    await page.get_by_label("One for each picture").check()
    await page.get_by_role("combobox", name="Model").select_option("procedural-typical")
    await page.get_by_text("More settings").click()
    runs = page.get_by_test_id("runs")
    await expect(runs).to_contain_text("in windows of 8 frames: resident on near/cpu")
    await runs.get_by_text("Every size that was tried").click()
    plan = page.get_by_test_id("plan")
    await expect(plan.locator(".refused").filter(has_text="attic/cpu0")).to_be_visible()
    await expect(page.get_by_test_id("inputs").locator("img").last).not_to_have_js_property("naturalWidth", 0)
    return page


async def jobs(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open("/jobs")
    await expect(page.get_by_role("row").filter(has_text=at.running)).to_be_visible()
    return page


async def running_job(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open(f"/jobs/{at.running}")
    await has_status(page, "running")
    await expect(page.get_by_test_id("landed").locator("img")).to_have_count(4)
    await expect(page.get_by_test_id("player-note")).to_contain_text("can be played")
    return page


async def succeeded_job(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open(f"/jobs/{at.succeeded}")
    await has_status(page, "succeeded")
    await page.locator("#seams").scroll_into_view_if_needed()
    await expect(page.locator(".seam-pictures img")).to_have_count(2)
    for picture in await page.locator(".seam-pictures img").all():
        await expect(picture).not_to_have_js_property("naturalWidth", 0)
    await page.get_by_test_id("load-report").click()
    await expect(page.get_by_role("heading", name="Shots")).to_be_visible()
    return page


async def failed_job(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open(f"/jobs/{at.failed}")
    await has_status(page, "failed")
    await expect(page.locator(".note.bad")).to_contain_text("the picture is spoiled")
    return page


async def missing_job(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open("/jobs/job-000000000000")
    await expect(page.get_by_text("there is no job")).to_be_visible()
    return page


async def segment(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open(f"/jobs/{at.failed}")
    row = page.get_by_test_id("segments").get_by_role("row").filter(has_text="failure").first
    await row.get_by_role("button", name="Look").click()
    await expect(page.get_by_role("dialog").get_by_role("table")).to_contain_text("the picture is spoiled")
    return page


async def render_again(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open(f"/jobs/{at.succeeded}")
    await page.get_by_test_id("rerender").click()
    await expect(page.get_by_test_id("confirm-rerender")).to_be_visible()
    return page


async def nodes(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open("/nodes")
    for worker_id, status in (("near/cpu0", "busy"), ("spare/cpu0", "drained"), ("attic/cpu0", "idle")):
        card = page.get_by_role("article", name=f"Worker {worker_id}")
        await expect(card).to_have_attribute("data-status", status)
    await page.get_by_test_id("join-command").click()
    await expect(page.get_by_role("textbox", name="Join command")).to_be_visible()
    return page


async def history(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open("/history")
    await expect(page.get_by_test_id("history").locator("tbody tr")).to_have_count(3)
    return page


async def settings(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open("/settings")
    await expect(page.get_by_test_id("keys").locator("tbody tr")).to_have_count(2)
    await expect(page.locator("#webhooks")).to_contain_text("studio.example")
    await expect(page.get_by_test_id("audit").locator("tbody tr").first).to_be_visible()
    return page


async def new_key(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open("/settings")
    await page.get_by_test_id("new-key").click()
    await expect(page.get_by_test_id("make-key")).to_be_visible()
    return page


async def login(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    await visitor.context.clear_cookies()
    page = await visitor.open("/login")
    await page.get_by_label("Key").fill("wrong")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    return page


async def try_here(visitor: Visitor, at: LivedIn, photo: Path) -> Page:
    page = await visitor.open("/try")
    await page.get_by_test_id("drop").locator("input").set_input_files(photo)
    await page.get_by_test_id("make").click()
    await expect(page.get_by_role("alert")).to_contain_text("farm export-page")
    return page


View = Callable[[Visitor, LivedIn, Path], Awaitable[Page]]
VIEWS: tuple[View, ...] = (
    new_video,
    jobs,
    running_job,
    succeeded_job,
    failed_job,
    missing_job,
    segment,
    render_again,
    nodes,
    history,
    settings,
    new_key,
    login,
    try_here,
)


async def grave_faults(page: Page) -> list[str]:
    """What axe-core finds serious or critical."""
    found = (await Axe().run(page)).response["violations"]
    return [
        f"{fault['impact']}: {fault['id']} at {node['target']}: {node['html'][:120]} {node['failureSummary']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


async def keep_picture(page: Page, view: View, look: str) -> None:
    """For people to look at, whole, under ``out/screenshots``."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = view.__name__.replace("_", "-")
    await page.evaluate("scrollTo(0, 0)")
    await page.screenshot(path=SCREENSHOTS / f"{name}-{look}.png", full_page=True)
