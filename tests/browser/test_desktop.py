"""Every page on a desktop, light and dark: what people who cannot see it well meet there."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.conftest import ANY, LivedIn, Visit
from tests.browser.views import VIEWS, View, grave_faults, jobs, keep_picture

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

INK = "getComputedStyle(document.body).color"


@pytest.mark.parametrize("view", VIEWS)
async def test_axe_finds_nothing_serious_in_either_theme(
    lived_in: LivedIn, visit: Visit, photo: Path, view: View
) -> None:
    visitor = await visit(lived_in.farm, refusals=ANY, color_scheme="light")
    page = await view(visitor, lived_in, photo)
    assert await grave_faults(page) == []
    await keep_picture(page, view, "desktop")
    light = await page.evaluate(INK)
    await page.emulate_media(color_scheme="dark")
    assert await page.evaluate(INK) != light
    assert await grave_faults(page) == []
    await keep_picture(page, view, "dark")


async def test_the_theme_can_be_chosen_and_stays_chosen(lived_in: LivedIn, visit: Visit, photo: Path) -> None:
    visitor = await visit(lived_in.farm, color_scheme="light")
    page = await jobs(visitor, lived_in, photo)
    light = await page.evaluate(INK)
    for wanted in ("light", "dark"):
        await page.get_by_role("button", name=f"Change to {wanted}").click()
    assert await page.evaluate(INK) != light
    dark = await page.evaluate(INK)
    other = await visitor.open("/history")
    assert await other.evaluate(INK) == dark
    await other.get_by_role("button", name="Change to system").click()
    assert await other.evaluate(INK) == light
    await expect(other.get_by_role("button", name="Change to light")).to_be_visible()


async def test_a_licence_that_restricts_use_is_accepted_where_its_model_is_chosen(
    lived_in: LivedIn, visit: Visit, photo: Path
) -> None:
    page = await (await visit(lived_in.farm)).open("/")
    await page.get_by_test_id("drop").locator("input").set_input_files(photo)
    await page.get_by_role("combobox", name="Model").select_option("ltx-video-0.9.8-13b-distilled")
    await expect(page.get_by_text("has to be accepted first")).to_be_visible()
    await expect(page.get_by_test_id("render")).to_be_disabled()
    await page.get_by_test_id("accept-licence").click()
    await expect(page.get_by_text("accepted for this farm")).to_be_visible()
    await expect(page.get_by_text("Render fetches them first")).to_be_visible()
    await expect(page.get_by_test_id("render")).to_be_enabled()


async def test_mask_and_references_are_asked_for_where_the_model_takes_them(
    lived_in: LivedIn, visit: Visit, photo: Path
) -> None:
    page = await (await visit(lived_in.farm)).open("/")
    await page.get_by_role("combobox", name="Model").select_option("procedural")
    await page.get_by_test_id("drop").locator("input").set_input_files(photo)
    await expect(page.get_by_test_id("render")).to_be_enabled()
    references, mask = page.get_by_test_id("references"), page.get_by_test_id("mask")
    await expect(references).to_have_count(0)
    await page.get_by_role("combobox", name="Model").select_option("wan2.1-vace-1.3b")
    await expect(mask).to_have_count(0)  # which says where a video changes
    await page.get_by_label("Choose references").set_input_files([photo, photo])
    await expect(references.get_by_text("To be seen in the video.")).to_have_count(2)
    await references.get_by_role("button", name="Remove").first.click()
    await expect(references.get_by_text("To be seen in the video.")).to_have_count(1)
    await page.reload()
    await expect(references.get_by_text("To be seen in the video.")).to_have_count(1)
    await page.get_by_role("combobox", name="Model").select_option("procedural")
    await expect(page.get_by_test_id("render")).to_be_enabled()


async def test_a_script_from_elsewhere_or_inside_the_page_does_not_run(
    lived_in: LivedIn, visit: Visit
) -> None:
    visitor = await visit(lived_in.farm, refusals=ANY, key=None)
    page = await visitor.open("/login")
    await expect(page.get_by_label("Key")).to_be_visible()
    await page.evaluate(
        """() => new Promise((refused) => {
            let left = 2;
            addEventListener("securitypolicyviolation", () => { left -= 1; if (left === 0) refused(); });
            const own = {textContent: "window.slipped = true"};
            for (const about of [own, {src: "https://elsewhere.example/a.js"}]) {
                document.body.append(Object.assign(document.createElement("script"), about));
            }
        })"""
    )
    assert await page.evaluate("window.slipped") is None
    assert len([fault for fault in visitor.faults if "forbidden: script-src" in fault]) == 2
    visitor.faults.clear()


async def test_a_seam_that_is_decided_is_told_so_at_once_and_its_picture_is_asked_for_when_it_is_there(
    lived_in: LivedIn, visit: Visit, photo: Path
) -> None:
    page = await jobs(await visit(lived_in.farm), lived_in, photo)
    told = await page.evaluate(
        """async () => {
            const base = document.querySelector("script[type=module]").src.replace(/js\\/pages.*/, "js/job/");
            const { JobModel } = await import(`${base}model.js`);
            const { isJoined } = await import(`${base}seams.js`);
            const two = (a, b) => [a, b];
            const model = new JobModel("job-1", {workers: [], attempts: {segment: []}, segments: {
                id: two("s0-0", "s0-1"), level: two("final", "final"), start: two(0, 5), head: two(0, 3)}});
            const say = (type, data) => model.apply({type, data: {task_id: "s0-1", ...data}});
            const seam = () => ({...model.seams.get("s0-1")});
            say("seam_measured", {take: 0, passed: false, report: {failed_gates: ["mae"]}});
            const measured = seam();
            say("seam_measured", {take: 1, passed: false, report: {failed_gates: ["mae", "lab_step"]}});
            say("seam_accepted", {take: 0});
            const kept = seam();
            say("seam_measured", {take: 2, passed: true, report: {}});
            say("seam_accepted", {take: 2});
            const running = {finished_at: null};
            return {decisions: [measured, kept, seam()].map(({decision}) => decision),
                gates: kept.failed_gates,
                asked: [isJoined(running, 0, 3), isJoined(running, 0, 9), isJoined({finished_at: 1}, 0, 1)]};
        }"""
    )
    assert told["decisions"] == [
        "not decided yet",
        "kept with failed gates after 2 takes: mae",
        "gates passed",
    ]
    assert told["gates"] == ["mae"]
    assert told["asked"] == [False, True, True]
