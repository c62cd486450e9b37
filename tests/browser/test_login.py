"""Who may see the pages, and what a key may do there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.conftest import ANY, OWNER, StartFarm, Visit, has_status

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_a_stranger_logs_in_comes_where_they_wanted_to_and_logs_out(
    start_farm: StartFarm, visit: Visit
) -> None:
    farm = await start_farm()
    visitor = await visit(farm, refusals=ANY, key=None)
    page = await visitor.open("/jobs?status=failed")
    await page.wait_for_url(re.compile(r"/login\?next="))
    key, enter = page.get_by_label("Key"), page.get_by_role("button", name="Log in")
    await expect(key).to_be_focused()
    await key.fill("not-the-owners-token")
    await enter.click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(key).to_have_attribute("aria-invalid", "true")

    await key.fill(OWNER)
    await key.press("Enter")
    await page.wait_for_url(re.compile(r"/jobs\?status=failed$"))
    await expect(page.get_by_label("Failed")).to_be_checked()
    (cookie,) = await visitor.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")

    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url("**/login")
    await page.goto(f"{farm.url}/nodes")
    await page.wait_for_url(re.compile(r"/login\?next="))


async def test_a_login_link_lets_a_browser_in_and_is_not_to_be_seen_afterwards(
    start_farm: StartFarm, visit: Visit
) -> None:
    farm = await start_farm()
    link = (await farm.http.post("/login-links")).json()["path"]
    page = await (await visit(farm, key=None)).open(link)
    await expect(page.get_by_role("heading", name="New video")).to_be_visible()
    await page.go_back()
    assert "key=" not in page.url
    used = await (await visit(farm, refusals=ANY, key=None)).open(link)
    await expect(used.get_by_role("alert")).to_contain_text("`farm login` prints a new link")
    assert "key=" not in used.url


async def test_nobody_is_led_to_another_site_after_logging_in(start_farm: StartFarm, visit: Visit) -> None:
    farm = await start_farm()
    for wanted in ("https://elsewhere.example/", "//elsewhere.example/", "javascript:alert(1)"):
        page = await (await visit(farm, refusals=ANY, key=None)).open(f"/login?next={wanted}")
        await page.get_by_label("Key").fill(OWNER)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(re.compile(rf"{re.escape(farm.url)}/(?!login).*"))
        await expect(page.get_by_role("heading", name="New video")).to_be_visible()


async def test_a_key_that_may_only_read_sees_all_and_starts_nothing(
    start_farm: StartFarm, visit: Visit, photo: Path
) -> None:
    farm = await start_farm()
    job_id = await farm.submit(photo)
    visitor = await visit(farm, key=await farm.key("read"))
    page = await visitor.open("/")
    await expect(page.get_by_text("Your key may look but not submit.")).to_be_visible()
    await expect(page.get_by_test_id("render")).to_be_disabled()
    await expect(page.get_by_test_id("quick-preview")).to_be_disabled()
    job = await visitor.open(f"/jobs/{job_id}")
    await has_status(job, "running")
    await expect(job.get_by_test_id("cancel")).to_have_count(0)
    await expect(job.get_by_test_id("rerender")).to_have_count(0)
    nodes = await visitor.open("/nodes")
    await expect(nodes.get_by_test_id("worker")).to_have_count(2)
    await expect(nodes.get_by_test_id("drain")).to_have_count(0)
    await expect(nodes.get_by_text("A key of an admin makes the join command")).to_be_visible()
    settings = await visitor.open("/settings")
    await expect(settings.get_by_text("are for admins")).to_be_visible()


async def test_an_admin_makes_a_key_that_works_until_it_is_revoked(
    start_farm: StartFarm, visit: Visit
) -> None:
    farm = await start_farm()
    admin = await visit(farm)
    page = await admin.open("/settings")
    await page.get_by_test_id("new-key").click()
    await page.get_by_role("dialog").get_by_label("Name").fill("night renders")
    await page.get_by_test_id("make-key").click()
    key = await page.get_by_role("textbox", name="The key").inner_text()
    await page.get_by_role("button", name="I have it").click()
    row = page.get_by_test_id("keys").get_by_role("row").filter(has_text="night renders")
    await expect(row).to_contain_text("works")

    guest = await visit(farm, refusals=ANY, key=key)
    seen = await guest.open("/jobs")
    await expect(seen.get_by_text("No video has been asked for yet.")).to_be_visible()
    await row.get_by_role("button", name="Revoke night renders").click()
    await page.get_by_test_id("confirm").click()
    await expect(row).to_contain_text("revoked")
    await seen.reload()
    await seen.wait_for_url(re.compile(r"/login\?next="))
    audit = page.get_by_test_id("audit")
    await page.get_by_role("button", name="Read again").click()
    await expect(audit.get_by_role("row").filter(has_text="DELETE /api/v1/keys/")).to_have_count(1)


async def test_an_admin_drains_a_worker_and_takes_it_back(start_farm: StartFarm, visit: Visit) -> None:
    farm = await start_farm()
    admin = await visit(farm)
    page = await admin.open("/nodes")
    card = page.get_by_role("article", name="Worker near/cpu1")
    await card.get_by_role("button", name="Drain near/cpu1").click()
    await expect(card).to_have_attribute("data-status", "drained")
    await card.get_by_role("button", name="Enable near/cpu1").click()
    await expect(card).to_have_attribute("data-status", "idle")
    await page.get_by_test_id("join-command").click()
    await expect(page.get_by_role("textbox", name="Join command")).to_contain_text("farm join 127.0.0.1:")
