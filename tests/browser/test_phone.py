"""Every page on a phone, 360 pixels wide."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import ANY, PHONE, LivedIn, Visit
from tests.browser.views import VIEWS, View, grave_faults, keep_picture

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

#: What reaches beyond the right edge and does not scroll by itself.
TOO_WIDE = """() => {
    const kept = ["auto", "scroll", "hidden", "clip"];
    const scrolls = (e) => e && (kept.includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
    const wide = [...document.querySelectorAll("body *")].filter((e) =>
        e.getBoundingClientRect().right > 360.5 && !scrolls(e.parentElement));
    const { scrollWidth } = document.documentElement;
    if (scrollWidth <= 360) return [];
    return [`the page is ${scrollWidth} wide`, ...wide.map((e) => e.outerHTML.slice(0, 120))];
}"""


@pytest.mark.parametrize("view", VIEWS)
async def test_a_page_fits_a_phone(lived_in: LivedIn, visit: Visit, photo: Path, view: View) -> None:
    visitor = await visit(lived_in.farm, refusals=ANY, color_scheme="light", **PHONE)
    page = await view(visitor, lived_in, photo)
    assert await page.evaluate(TOO_WIDE) == []
    assert await grave_faults(page) == []
    await keep_picture(page, view, "phone")
