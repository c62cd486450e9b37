"""From a photo to a video, as a person sees it happen."""

from __future__ import annotations

import re
import wave
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import Page, expect

from tests.browser.conftest import ANY, StartFarm, Visit, drop, has_status, is_live, plays, shows

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def fill_in_small(page: Page) -> None:
    """A video of 24 frames in 5 segments."""
    await page.get_by_role("combobox", name="Model").select_option("procedural")
    await page.get_by_label("Length, seconds").fill("3")
    await page.get_by_label("Frames a second", exact=True).fill("8")
    await page.get_by_label("314 × 208").check()


async def test_a_dropped_photo_becomes_a_video_under_ones_eyes(
    start_farm: StartFarm, visit: Visit, photo: Path
) -> None:
    farm = await start_farm()
    page = await (await visit(farm)).open("/")
    render = page.get_by_test_id("render")
    await expect(render).to_be_disabled()

    await drop(page, photo)
    await expect(page.get_by_test_id("inputs")).to_contain_text("picture, 192 × 128")
    await fill_in_small(page)
    await page.get_by_label("Prompt").fill("the camera slowly pans right")
    plan = page.get_by_test_id("plan")
    await expect(page.get_by_test_id("plan-time")).to_have_text(re.compile(r"\d s$"))
    await expect(plan).to_contain_text("24 frames")
    await expect(plan.locator("dt:text-is('Cost') + dd")).to_have_text(re.compile(r"0\.00\d"))
    await expect(plan.locator("dt:text-is('Energy') + dd")).to_have_text("unknown")
    await expect(plan.get_by_role("listitem").filter(has_text="near/cpu1")).to_be_visible()

    await render.click()
    await page.wait_for_url("**/jobs/job-*")
    job_id = page.url.rpartition("/")[2]
    await is_live(page)
    progress = page.locator(".progress-head")
    await expect(progress).to_contain_text("0 of 5 segments")
    landed = page.get_by_test_id("landed").get_by_role("listitem")
    farm.tell("let 1")
    await expect(progress).to_contain_text("1 of 5 segments")
    await expect(landed).to_have_count(1)
    await expect(landed.first.locator("img")).to_have_js_property("naturalWidth", 314)
    farm.tell("let 3")
    await expect(progress).to_contain_text("4 of 5 segments")
    await expect(landed).to_have_count(4)

    video = page.get_by_test_id("player")
    await expect(page.get_by_test_id("player-note")).to_contain_text("can be played")
    await shows(video, "blob:")
    await plays(video)
    await has_status(page, "running")

    farm.tell("let all")
    await has_status(page, "succeeded")
    await expect(page.get_by_test_id("player-note")).to_contain_text("The finished video")
    await shows(video, f"/jobs/{job_id}/artifacts/video.mp4")
    await plays(video)
    assert await video.evaluate("v => v.duration") == pytest.approx(3, abs=0.01)
    async with page.expect_download() as downloading:
        await page.get_by_test_id("downloads").get_by_role("link", name="Video", exact=True).click()
    downloaded = await (await downloading.value).path()
    assert downloaded.read_bytes() == (farm.state / "jobs" / job_id / "video.mp4").read_bytes()


async def test_a_worker_dies_while_one_watches_and_the_video_is_made_all_the_same(
    start_farm: StartFarm, visit: Visit, photo: Path
) -> None:
    farm = await start_farm()
    visitor = await visit(farm)
    job_id = await farm.submit(photo)
    page, nodes = await visitor.open(f"/jobs/{job_id}"), await visitor.open("/nodes")
    await expect(nodes.get_by_test_id("worker")).to_have_count(2)
    await is_live(page)
    farm.tell("let 1")
    await expect(page.locator(".progress-head")).to_contain_text("1 of 5 segments, 2 running")

    farm.tell("kill near/cpu1")
    segments = page.get_by_test_id("segments")
    await expect(segments.get_by_role("row").filter(has_text="1 failure")).to_have_count(1)
    await expect(page.locator(".progress-head")).to_contain_text("1 of 5 segments, 1 running")
    await expect(nodes.get_by_test_id("worker")).to_have_count(1)

    farm.tell("let all")
    await has_status(page, "succeeded")
    await expect(segments.get_by_role("row").filter(has_text="1 failure")).to_contain_text("near/cpu0")
    await page.get_by_test_id("load-report").click()
    died = (
        page.get_by_role("row").filter(has_text="near/cpu1").filter(has=page.locator("[data-label=Failures]"))
    )
    await expect(died.locator("[data-label=Failures]")).to_have_text("1")


async def test_a_segment_is_rendered_again_while_the_old_video_still_plays(
    start_farm: StartFarm, visit: Visit, photo: Path
) -> None:
    farm = await start_farm()
    farm.tell("let all")
    job_id = await farm.submit(photo)
    await farm.until(job_id, "succeeded")
    farm.tell("hold")
    page = await (await visit(farm)).open(f"/jobs/{job_id}")
    await has_status(page, "succeeded")
    await page.get_by_role("button", name="Look at s0-2").last.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("heading")).to_have_text("Segment s0-2")
    await expect(dialog.locator("img")).to_have_js_property("naturalWidth", 96)
    await dialog.get_by_role("button", name="Render again…").click()
    # Those that no other segment shows.
    await expect(dialog.get_by_label("First frame")).to_have_value("13")
    await expect(dialog.get_by_label("Last frame")).to_have_value("14")
    await dialog.get_by_test_id("confirm-rerender").click()
    await expect(dialog).to_contain_text("1 segment will be rendered again: s0-2.")
    await dialog.get_by_role("button", name="Good").click()

    await has_status(page, "running")
    await expect(page.get_by_test_id("player-note")).to_contain_text("The video as it was before")
    await plays(page.get_by_test_id("player"))
    farm.tell("let all")
    await has_status(page, "succeeded")
    row = page.get_by_test_id("segments").get_by_role("row").filter(has_text="s0-2")
    await expect(row.locator("[data-label=Take]")).to_have_text("2")
    await plays(page.get_by_test_id("player"))


async def test_a_job_is_cancelled_goes_on_and_is_deleted(
    start_farm: StartFarm, visit: Visit, photo: Path
) -> None:
    farm = await start_farm()
    page = await (await visit(farm)).open(f"/jobs/{await farm.submit(photo)}")
    await has_status(page, "running")
    await page.get_by_test_id("cancel").click()
    await page.get_by_role("button", name="Keep as it is").click()
    await page.get_by_test_id("cancel").click()
    await page.get_by_test_id("confirm").click()
    await has_status(page, "cancelled")
    farm.tell("let all")
    await page.get_by_test_id("retry").click()
    await has_status(page, "succeeded")
    await shows(page.get_by_test_id("player"), "/artifacts/video.mp4")
    await plays(page.get_by_test_id("player"))  # else the browser asks for the file after it has gone
    await page.get_by_test_id("delete").click()
    await page.get_by_test_id("confirm").click()
    await page.wait_for_url("**/jobs")
    await expect(page.get_by_text("No video has been asked for yet.")).to_be_visible()


async def test_a_machine_is_removed_and_a_job_that_waits_can_be_retried(
    start_farm: StartFarm, visit: Visit, photo: Path
) -> None:
    farm = await start_farm(workers={"small/cpu0": 0.001})
    assert (await farm.http.post("/join", json={"node": "attic"})).is_success
    farm.tell("add attic/cpu0")
    visitor = await visit(farm)
    nodes = await visitor.open("/nodes")
    await expect(nodes.get_by_test_id("worker")).to_have_count(2)
    job_id = await farm.submit(photo)
    page = await visitor.open(f"/jobs/{job_id}")
    await expect(page.locator(".progress-head")).to_contain_text("1 running")
    await expect(page.get_by_test_id("retry")).to_have_count(0)

    await nodes.get_by_test_id("remove-node").click()  # the farm's own machine has no such button
    await nodes.get_by_test_id("confirm").click()
    await expect(nodes.get_by_test_id("worker")).to_have_count(1)
    await page.get_by_test_id("retry").click()
    await expect(page.get_by_test_id("retry")).to_be_visible()  # nobody can hold it still
    farm.tell("let all")
    farm.tell("add near/cpu0")
    await has_status(page, "succeeded")


async def test_what_no_worker_can_hold_is_disabled_with_the_reason_until_one_joins_that_can(
    start_farm: StartFarm, visit: Visit, photo: Path
) -> None:
    farm = await start_farm(workers={"small/cpu0": 0.2})
    # A plan of what nobody can hold may be asked for, and is refused.
    page = await (await visit(farm, refusals=r"422 .*/plans\?brief=true$")).open("/")
    await page.get_by_test_id("drop").locator("input").set_input_files(photo)
    await fill_in_small(page)
    too_large = page.get_by_test_id("choices-size").get_by_role("radio", name="1620 × 1080")
    await expect(too_large).to_be_disabled()
    await expect(too_large).to_have_accessible_description(re.compile("small/cpu0.*GiB"))
    await expect(page.get_by_label("314 × 208")).to_be_enabled()
    farm.tell("add near/cpu0")
    await expect(too_large).to_be_enabled()
    await expect(too_large).to_have_accessible_description("")


async def test_a_video_can_be_asked_for_with_the_keyboard_alone(
    start_farm: StartFarm, visit: Visit, photo: Path
) -> None:
    farm = await start_farm()
    page = await (await visit(farm)).open("/")
    await expect(page.get_by_test_id("choices-size")).to_be_visible()

    async def tab_to(what: str) -> None:
        for _ in range(60):
            await page.keyboard.press("Tab")
            if await page.evaluate("what => document.activeElement.matches(what)", what):
                break
        else:
            pytest.fail(f"the Tab key never comes to {what}")
        ring = page.locator(":focus, :has(> :focus)").filter(visible=True).last
        assert await ring.evaluate(
            "e => [e, e.parentElement].some((x) => getComputedStyle(x).outlineStyle !== 'none')"
        ), f"{what} does not show that it has the focus"

    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    # A browser's own window for files is no part of the page. Playwright does not wait until Chromium
    # has been told to keep that window shut, so it is told some keys before the one that opens it.
    async with page.expect_file_chooser() as choosing:
        await tab_to("input[type=file]")
        await page.keyboard.press("Enter")
    await (await choosing.value).set_files(photo)
    await expect(page.get_by_test_id("inputs")).to_contain_text("192 × 128")
    await tab_to("textarea")
    await page.keyboard.type("a walk along the quay")
    await tab_to("[name=seconds]")
    await page.keyboard.type("2")
    await expect(page.get_by_test_id("plan")).to_contain_text("2.0 s, ")
    await tab_to("[data-testid=render]")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/jobs/job-*")
    await expect(page.get_by_role("heading", level=1)).to_have_text("a walk along the quay")


async def test_pictures_with_a_prompt_each_make_a_storyboard(
    start_farm: StartFarm, visit: Visit, photo: Path, tmp_path: Path
) -> None:
    farm = await start_farm()
    farm.tell("let all")
    page = await (await visit(farm)).open("/")
    second = tmp_path / "square.png"
    second.write_bytes(photo.read_bytes())
    await page.get_by_test_id("drop").locator("input").set_input_files([photo, second])
    await fill_in_small(page)
    await page.get_by_label("One for each picture").check()
    inputs = page.get_by_test_id("inputs")
    await inputs.get_by_label("Prompt of picture 1").fill("the harbour")
    await inputs.get_by_label("Prompt of picture 2").fill("the square")
    await inputs.get_by_role("button", name="Move picture 2 up").click()
    await expect(inputs.get_by_role("listitem").first).to_contain_text("square.png")
    await expect(page.get_by_test_id("plan")).to_contain_text("24 frames")
    await page.get_by_test_id("render").click()
    await page.wait_for_url("**/jobs/job-*")
    await expect(page.get_by_role("heading", level=1)).to_have_text("the square")
    await has_status(page, "succeeded")
    await page.get_by_test_id("load-report").click()
    await expect(page.locator(".shots li")).to_contain_text(["the square", "the harbour"])


async def test_the_framing_of_a_picture_of_another_shape_is_shown_and_a_sound_goes_with_it(
    start_farm: StartFarm, visit: Visit, photo: Path, tmp_path: Path
) -> None:
    farm = await start_farm()
    page = await (await visit(farm)).open("/")
    tall, song = tmp_path / "tall.png", tmp_path / "song.wav"
    with Image.open(photo) as wide:
        wide.crop((0, 0, 64, 128)).save(tall)
    with wave.open(str(song), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(2 * 8000 * 5))
    await page.get_by_test_id("drop").locator("input").set_input_files([photo, tall])
    await fill_in_small(page)
    framings = page.get_by_test_id("framings").locator("figure").filter(has_text="Picture 2")
    await expect(framings).to_have_text("Picture 2 loses 67%, half of it each above and below.")
    await expect(framings.locator("img")).not_to_have_js_property("naturalWidth", 0)
    frame, picture = [await framings.locator(at).bounding_box() for at in (".frame", "img")]
    assert frame is not None and picture is not None  # noqa: PT018
    assert frame["width"] / frame["height"] == pytest.approx(314 / 208, abs=0.03)
    assert picture["width"] == pytest.approx(frame["width"], abs=1)
    assert picture["height"] == pytest.approx(3.02 * frame["height"], rel=0.02)
    await page.get_by_label("Pad", exact=True).check()
    await expect(framings).to_contain_text("Picture 2 has black bars left and right, 67% of the frame.")

    sound, facts = page.get_by_test_id("sound"), page.get_by_test_id("plan")
    await expect(sound).to_contain_text("None: the video is silent.")
    await expect(facts.locator("dt:text-is('Sound') + dd")).to_have_text("none")
    await page.get_by_label("Choose a sound").set_input_files(song)
    await expect(sound).to_contain_text("pcm_s16le, 5.0 s")
    await expect(facts.locator("dt:text-is('Sound') + dd")).to_have_text("aac, encoded anew")
    await expect(facts).to_contain_text("the sound is cut at the video's end, after 3.0 of its 5.0 s")

    await page.get_by_test_id("render").click()
    await page.wait_for_url("**/jobs/job-*")
    await is_live(page)
    farm.tell("let 3")
    video = page.get_by_test_id("player")
    await expect(page.get_by_test_id("player-note")).to_contain_text("can be played")
    await shows(video, "blob:")
    await plays(video)  # while it grows, with its sound
    farm.tell("let all")
    await has_status(page, "succeeded")
    made = farm.state / "jobs" / page.url.rpartition("/")[2] / "video.mp4"
    assert b"mp4a" in made.read_bytes()


async def test_a_file_that_is_no_picture_is_refused_in_its_own_row(
    start_farm: StartFarm, visit: Visit, tmp_path: Path
) -> None:
    farm = await start_farm()
    page = await (await visit(farm, refusals=ANY)).open("/")
    letter = tmp_path / "letter.png"
    letter.write_text("Dear farm, " * 20)
    await page.get_by_test_id("drop").locator("input").set_input_files(letter)
    await expect(page.get_by_test_id("inputs").get_by_role("alert")).to_contain_text("letter.png")
    await expect(page.get_by_test_id("render")).to_be_disabled()


async def test_of_many_machines_as_many_are_painted_as_are_looked_at(
    start_farm: StartFarm, visit: Visit
) -> None:
    farm = await start_farm(workers={})
    for number in range(60):  # beside its own
        farm.tell(f"add m{number}/cpu0")
    nodes = await (await visit(farm)).open("/nodes")
    await expect(nodes.get_by_label("Totals")).to_contain_text("Machines61")
    await expect(nodes.get_by_test_id("node")).to_have_count(60)
    await nodes.get_by_test_id("more-nodes").click()
    await expect(nodes.get_by_test_id("node")).to_have_count(61)
    await expect(nodes.get_by_test_id("more-nodes")).to_have_count(0)
