"""The farm goes away and comes back while people look at it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import ANY, StartFarm, Visit, has_status, is_live, plays

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_open_pages_go_on_without_a_reload_when_the_farm_was_killed(
    start_farm: StartFarm, visit: Visit, photo: Path
) -> None:
    farm = await start_farm()
    visitor = await visit(farm, refusals=ANY)
    job_id = await farm.submit(photo)
    form, job, nodes, jobs = [
        await visitor.open(path) for path in ("/", f"/jobs/{job_id}", "/nodes", "/jobs")
    ]
    pages: list[Page] = [form, job, nodes, jobs]
    await form.get_by_test_id("drop").locator("input").set_input_files(photo)
    await form.get_by_role("textbox", name="Prompt").fill("half of a sentence")
    await expect(form.get_by_test_id("plan")).to_be_visible()
    farm.tell("let 2")
    await expect(job.locator(".progress-head")).to_contain_text("2 of 5 segments, 2 running")
    for page in pages:
        await is_live(page)
        await page.evaluate("window.marked = true")

    await farm.kill()
    for page in pages:
        await expect(page.get_by_test_id("live-status")).to_have_text("Reconnecting…")
    await form.get_by_role("textbox", name="Prompt").fill("half of a sentence, and the other half")
    await expect(form.get_by_role("alert")).to_contain_text("cannot be reached")

    await farm.start()
    for page in pages:
        await is_live(page)
        assert await page.evaluate("window.marked")
    await expect(form.get_by_role("textbox", name="Prompt")).to_have_value(
        "half of a sentence, and the other half"
    )
    await expect(form.get_by_test_id("inputs")).to_contain_text("harbour.png")
    await expect(form.get_by_test_id("plan")).to_be_visible()
    await expect(nodes.get_by_test_id("worker")).to_have_count(2)
    await expect(job.locator(".progress-head")).to_contain_text("2 of 5 segments, 2 running")

    farm.tell("let 1")
    await expect(job.locator(".progress-head")).to_contain_text("3 of 5 segments")
    await expect(jobs.get_by_role("row").filter(has_text=job_id)).to_contain_text("3 of 5")
    farm.tell("let all")
    await has_status(job, "succeeded")
    await plays(job.get_by_test_id("player"))
    await expect(jobs.get_by_role("row").filter(has_text=job_id)).to_have_attribute(
        "data-status", "succeeded"
    )
    await form.get_by_test_id("render").click()
    await form.wait_for_url("**/jobs/job-*")
    for page in (job, nodes, jobs):
        assert await page.evaluate("window.marked")
