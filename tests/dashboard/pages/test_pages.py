"""The shells of the pages and the files they load. What they do in a browser is tested in tests/browser."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from posixpath import dirname, join, normpath

import httpx2
import pytest

from dashboard.pages.routes import PAGES, modules, static_files
from tests.dashboard.conftest import Farm

ADDRESSES = [page.path.replace("{job_id}", "job-00000000beef") for page in PAGES]


class Elements(HTMLParser):
    """Every start tag of a page with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def links(self) -> list[str]:
        named = (a.get("href") or a.get("src") for tag, a in self.found if tag in ("link", "script"))
        return [address for address in named if address]


async def page(farm: Farm, address: str) -> httpx2.Response:
    return await farm.http.get(address, headers={"Accept": "text/html"})


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_page_loads_nothing_from_elsewhere_and_has_nothing_inline(
    shared_farm: Farm, address: str
) -> None:
    answer = await page(shared_farm, address)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    elements = Elements(answer.text)
    assert all(link.startswith("/") for link in elements.links())
    for tag, attributes in elements.found:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not any(name == "style" or name.startswith("on") for name in attributes)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_foot_of_a_page_tells_the_version_that_the_api_tells(shared_farm: Farm) -> None:
    told = (await shared_farm.get("health")).json()["version"]
    assert f'<footer class="foot">Reelfarm {told}</footer>' in (await page(shared_farm, "/jobs")).text


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("address", ADDRESSES)
async def test_everything_that_a_page_names_is_served(shared_farm: Farm, address: str) -> None:
    links = Elements((await page(shared_farm, address)).text).links()
    static = [link for link in links if link.startswith("/static/")]
    assert len(static) > 5
    for link in static:
        assert (await shared_farm.http.get(link)).status_code == 200, link


@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_asks_for_its_first_data_in_the_shell(shared_farm: Farm) -> None:
    links = Elements((await page(shared_farm, "/jobs/job-00000000beef")).text).links()
    assert "/api/v1/jobs/job-00000000beef/timeline" in links


@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_with_a_query_of_its_own_asks_for_no_other_data(shared_farm: Farm) -> None:
    links = Elements((await page(shared_farm, "/jobs?status=failed")).text).links()
    assert not [link for link in links if link.startswith("/api/")]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_id_in_the_address_cannot_leave_its_attribute(shared_farm: Farm) -> None:
    text = (await page(shared_farm, '/jobs/"><script>alert(1)')).text
    assert "<script>alert" not in text


@pytest.mark.asyncio(loop_scope="module")
async def test_the_current_page_is_marked_in_the_navigation(shared_farm: Farm) -> None:
    elements = Elements((await page(shared_farm, "/nodes")).text)
    current = [a["href"] for tag, a in elements.found if tag == "a" and a.get("aria-current") == "page"]
    assert current == ["/nodes"]


@pytest.mark.asyncio(loop_scope="module")
async def test_files_of_this_version_are_kept_for_good_and_others_are_not(shared_farm: Farm) -> None:
    link = next(x for x in Elements((await page(shared_farm, "/")).text).links() if x.endswith("base.css"))
    assert "immutable" in (await shared_farm.http.get(link)).headers["cache-control"]
    old = await shared_farm.http.get("/static/000000000000/css/base.css")
    assert old.status_code == 200
    assert old.headers["cache-control"] == "no-cache"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_file_that_is_there_already_is_not_sent_again(shared_farm: Farm) -> None:
    link = "/static/000000000000/js/api.js"
    tag = (await shared_farm.http.get(link)).headers["etag"]
    again = await shared_farm.http.get(link, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.asyncio(loop_scope="module")
async def test_files_are_compressed_for_those_who_take_it(shared_farm: Farm) -> None:
    link = "/static/000000000000/js/parts.js"
    plain = await shared_farm.http.get(link, headers={"Accept-Encoding": "identity"})
    async with shared_farm.http.stream("GET", link, headers={"Accept-Encoding": "gzip"}) as small:
        sent = b"".join([part async for part in small.aiter_raw()])
    assert small.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(sent) == plain.content
    assert len(sent) < len(plain.content)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["nothing.js", "../pages.py", "..%2Fpages.py", "vendor/README", ""])
async def test_what_is_no_static_file_is_not_served(shared_farm: Farm, name: str) -> None:
    answer = await shared_farm.http.get(f"/static/000000000000/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_every_module_imports_only_what_is_there() -> None:
    files = static_files()
    imported = re.compile(r'^(?:import|export)\b[^;]*?\bfrom "([^"]+)"', re.MULTILINE)
    for name, file in files.items():
        if not name.startswith("js/"):
            continue
        for target in imported.findall(file.content.decode()):
            assert target.startswith("."), f"{name} imports {target}"
            assert normpath(join(dirname(name), target)) in files, f"{name} imports {target}"


def test_a_page_names_all_modules_that_its_own_one_imports() -> None:
    found = modules(static_files(), "js/pages/job.js")
    assert {"js/job/model.js", "js/live.js", "js/api.js", "vendor/preact.js", "vendor/hooks.js"} <= set(found)
    assert len(found) == len(set(found))


def test_each_file_says_what_it_is_and_stays_short() -> None:
    for name, file in static_files().items():
        if name.startswith("js/"):
            lines = file.content.decode().splitlines()
            assert lines[0].startswith("//"), name
            assert len(lines) <= 400, name
