"""A job that waits for its user: its keyframes on its page, made again, replaced, and the video rendered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.conftest import ANY, SCREENSHOTS, FarmProcess, Visit, has_status
from tests.browser.views import grave_faults

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

WIDE = {"viewport": {"width": 1400, "height": 900}}
NARROW = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def farm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FarmProcess]:
    """One for both tests."""
    started = FarmProcess(tmp_path_factory.mktemp("review"), {"near/cpu0": 4.0})
    try:
        await started.start()
        started.tell("let all")
        yield started
    finally:
        await started.close()


async def test_keyframes_are_looked_at_and_changed_before_the_video_is_rendered(
    farm: FarmProcess, visit: Visit, photo: Path
) -> None:
    job_id = await farm.submit(photo, model="tiny_wan", mode="infill", num_frames=40, review=True)
    page = await (await visit(farm, **WIDE)).open(f"/jobs/{job_id}")
    await has_status(page, "waiting")
    items = page.get_by_test_id("keyframes").get_by_role("listitem")
    await expect(page.get_by_test_id("waiting")).to_contain_text("Its keyframes wait for you")
    await expect(items.first).to_contain_text("seed 0")
    for number in range(await items.count()):
        await expect(items.nth(number).locator("img")).not_to_have_js_property("naturalWidth", 0)

    # With the keyboard alone, and nothing is taken back by closing the dialog.
    again = items.first.get_by_role("button", name="Make keyframe 1 again")
    await again.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("made again: they come of the same draft")
    await expect(dialog.get_by_label("Seed")).to_be_focused()
    await page.keyboard.type("7")
    await page.get_by_test_id("confirm-remake").focus()
    await page.keyboard.press("Enter")
    await expect(items.first).to_contain_text("seed 7")
    await has_status(page, "waiting")

    await items.nth(1).get_by_label("Replace keyframe 2 with a picture").set_input_files(photo)
    await expect(items.nth(1)).to_contain_text("your picture")
    await expect(page.get_by_role("status").filter(has_text="Keyframe 2 is harbour.png now")).to_be_visible()
    await items.nth(1).get_by_role("button", name="Take the picture of keyframe 2 back").click()
    await expect(items.nth(1)).to_contain_text("seed 7")
    await items.nth(1).get_by_label("Replace keyframe 2 with a picture").set_input_files(photo)
    await expect(items.nth(1)).to_contain_text("your picture")
    assert await grave_faults(page) == []
    await kept(page, "review-desktop")
    await looks_right_on_a_phone(farm, visit, job_id)

    await page.get_by_test_id("approve").click()
    await has_status(page, "succeeded")
    await expect(page.get_by_test_id("keyframes")).to_have_count(0)


async def looks_right_on_a_phone(farm: FarmProcess, visit: Visit, job_id: str) -> None:
    page = await (await visit(farm, **NARROW)).open(f"/jobs/{job_id}")
    await expect(page.get_by_test_id("keyframes").locator("img").first).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    assert await grave_faults(page) == []
    await kept(page, "review-phone")


async def kept(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True, animations="disabled")


async def test_pictures_have_prompts_between_them(farm: FarmProcess, visit: Visit, photo: Path) -> None:
    page = await (await visit(farm, refusals=ANY, **WIDE)).open("/")
    await page.get_by_test_id("drop").locator("input").set_input_files([photo, photo, photo])
    await page.get_by_role("combobox", name="Model").select_option("tiny_wan")
    await page.get_by_test_id("choices-mode").get_by_role("radio", name="infill").check()
    await page.get_by_label("One between each two").check()
    inputs = page.get_by_test_id("inputs")
    await inputs.get_by_label("Prompt between pictures 1 and 2").fill("pan left")
    await inputs.get_by_label("Prompt between pictures 2 and 3").fill("zoom in")
    await expect(inputs.get_by_role("textbox")).to_have_count(2)
    await expect(page.get_by_test_id("plan")).to_contain_text("frames")
    await page.get_by_label("Wait for me after the keyframes").check()
    await expect(page.get_by_role("alert")).to_contain_text("the 3 pictures given are the keyframes")
    await page.locator("[name=seconds]").fill("12")
    await expect(page.get_by_test_id("plan")).to_contain_text("no window is rendered before you approve")
