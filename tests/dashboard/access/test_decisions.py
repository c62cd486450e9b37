"""What may be asked, by whom, from which page, how often: every decision as a table of values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dashboard.access.decisions import (
    GRANTS,
    OWNER,
    SCOPES,
    Asked,
    Principal,
    asked,
    foreign,
    login_address,
    need,
    refusal,
)
from dashboard.access.limits import (
    MAX_BUCKETS,
    MAX_JSON_BYTES,
    MAX_JSON_WITH_INPUTS_BYTES,
    Bucket,
    Buckets,
    Limits,
    Rate,
    body_cap,
    caller,
    rate_class,
    take,
)

JOBS = "/api/v1/jobs"
HERE = "http://127.0.0.1:8700"


def request(method: str = "GET", path: str = JOBS, **headers: str) -> Asked:
    """A request as it arrives: ``sec_fetch_site="..."`` is a header."""
    given = {"host": "127.0.0.1:8700", **headers}
    return asked(
        {
            "method": method,
            "path": path,
            "query_string": b"",
            "scheme": "http",
            "client": ("192.0.2.7", 4711),
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items()],
        }
    )


def holder(*scopes: Any) -> Principal:
    return Principal("3f9a1c07", "somebody", frozenset(s for scope in scopes for s in GRANTS[scope]))


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/api/v1/health", "open"),
        ("POST", "/api/v1/join", "open"),
        ("POST", "/api/v1/leave", "open"),
        ("POST", "/api/v1/session", "open"),
        ("GET", "/login", "open"),
        ("GET", "/static/0123456789ab/js/api.js", "open"),
        ("GET", "/", "read"),
        ("GET", "/jobs/job-0123456789ab", "read"),
        ("GET", JOBS, "read"),
        ("HEAD", JOBS + "/job-0123456789ab/artifacts/video.mp4", "read"),
        ("OPTIONS", JOBS, "read"),
        ("GET", "/api/v1/openapi.json", "read"),
        ("GET", "/metrics", "read"),
        ("GET", "/v1/videos/video_0123456789ab/content", "read"),
        ("POST", JOBS, "submit"),
        ("POST", "/api/v1/plans", "submit"),
        ("POST", "/api/v1/uploads", "submit"),
        ("DELETE", JOBS + "/job-0123456789ab", "submit"),
        ("PUT", JOBS, "submit"),
        ("POST", "/v1/videos/edits", "submit"),
        ("POST", "/api/v1/join-tokens", "node"),
        ("POST", "/api/v1/nodes/attic/drain", "admin"),
        ("POST", "/api/v1/nodes/attic/workers/cpu0/enable", "admin"),
        ("GET", "/api/v1/keys", "admin"),
        ("DELETE", "/api/v1/keys/3f9a1c07", "admin"),
        ("GET", "/api/v1/webhooks", "admin"),
        ("POST", "/api/v1/login-links", "admin"),
        ("GET", "/api/v1/audit", "admin"),
        ("BREW", "/api/v1/models", "admin"),
        # There is no such address.
        ("GET", "/api/v1", None),
        ("GET", "/api/v1/nothing", None),
        ("GET", "/api/v2/jobs", None),
        ("GET", "/v1", None),
        ("GET", "/v1/chat/completions", None),
        ("GET", "/nothing", None),
        ("GET", "/API/V1/jobs", None),
        ("GET", "/api/v1/jobsx", None),
        ("GET", "", None),
        ("GET", "*", None),
        # What a router, a proxy or a file system may take for another address is none either.
        ("GET", "//api/v1/jobs", None),
        ("GET", "/api//v1/jobs", None),
        ("GET", "/api/v1/jobs//", None),
        ("GET", "/static/../api/v1/jobs", None),
        ("GET", "/static/./x", None),
        ("GET", "/static/..", None),
        ("GET", "/static/x/..\\y", None),
        ("POST", "/api/v1/health/../keys", None),
        ("GET", "/login\x00", None),
        ("GET", "/static/a\nb", None),
    ],
)
def test_what_an_address_wants(method: str, path: str, wanted: str | None) -> None:
    assert need(method, path) == wanted


@pytest.mark.parametrize(
    ("scope", "may"),
    [
        ("read", {"read"}),
        ("submit", {"read", "submit"}),
        ("node", {"node"}),
        ("admin", {"read", "submit", "node", "admin"}),
    ],
)
def test_what_a_scope_lets_its_holder_do(scope: str, may: set[str]) -> None:
    addresses = {
        "read": request("GET", JOBS),
        "submit": request("POST", JOBS),
        "node": request("POST", "/api/v1/join-tokens"),
        "admin": request("POST", "/api/v1/keys"),
    }
    for wanted, wish in addresses.items():
        error = refusal(wish, holder(scope))
        assert (error is None) == (wanted in may), wanted
        if error is not None:
            assert (error.http_status, error.code) == (403, "forbidden")
            assert f"the scope {wanted};" in error.message
    assert set(addresses) == set(SCOPES)


def test_nobody_is_asked_for_a_key_and_an_address_that_is_none_is_said_so_to_all() -> None:
    error = refusal(request(), None)
    assert error is not None
    assert (error.http_status, error.code) == (401, "not_allowed")
    assert refusal(request("POST", "/api/v1/session"), None) is None
    for principal in (None, OWNER):
        error = refusal(request("GET", "/static/../api/v1/jobs"), principal)
        assert error is not None
        assert error.http_status == 404


ALLOWED = frozenset({"farm.example"})
KEY = {"authorization": "Bearer rf_3f9a1c07_x"}
COOKIE = {"cookie": "a=b; reelfarm_session=s"}


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8700", True),
        ("LOCALHOST:1", True),
        ("[::1]", True),
        ("[::1]:8700", True),
        ("farm.example", True),
        ("FARM.example:443", True),
        # Not a name: nothing to rebind.
        ("10.0.0.5", True),
        ("[fd00::5]:8700", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.farm.example", False),
        ("farm.example.evil", False),
        ("localhost.", False),
        ("evil.example@127.0.0.1", False),
        ("a@b@c", False),
        ("[", False),
        ("127.0.0.1:8700:1", False),
        ("127.0.0.1, evil.example", False),
        ("", False),
    ],
)
def test_a_rebound_name_is_refused(host: str, may: bool) -> None:
    for headers in ({}, COOKIE):
        assert (foreign(request(**{**headers, "host": host}), ALLOWED) is None) == may
    # A key is nothing that a page has.
    assert foreign(request(**{**KEY, "host": host}), ALLOWED) is None


def test_a_host_that_is_missing_or_there_twice_is_refused() -> None:
    for hosts in ([], ["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "evil.example"]):
        wish = asked(
            {
                "method": "GET",
                "path": JOBS,
                "query_string": b"",
                "scheme": "http",
                "headers": [(b"host", host.encode()) for host in hosts],
            }
        )
        error = foreign(wish, ALLOWED)
        assert error is not None
        assert error.param == "host"


@pytest.mark.parametrize(
    ("headers", "by_cookie", "by_key", "anonymous"),
    [
        ({}, False, True, True),
        ({"origin": HERE}, True, True, True),
        ({"origin": HERE.upper()}, True, True, True),
        ({"sec_fetch_site": "same-origin"}, True, True, True),
        ({"sec_fetch_site": "none"}, False, True, True),
        ({"origin": HERE, "sec_fetch_site": "same-origin"}, True, True, True),
        # TLS ends at a proxy before the farm.
        ({"origin": "https://127.0.0.1:8700", "sec_fetch_site": "same-origin"}, True, True, True),
        ({"origin": "https://127.0.0.1:8700"}, False, False, False),
        ({"origin": "null"}, False, False, False),
        ({"origin": ""}, False, False, False),
        ({"origin": "https://evil.example"}, False, False, False),
        ({"origin": "http://127.0.0.1:3000"}, False, False, False),
        ({"origin": "http://localhost:8700"}, False, False, False),
        ({"origin": "http://127.0.0.1:8700.evil.example"}, False, False, False),
        ({"origin": "https://evil.example", "sec_fetch_site": "same-origin"}, False, False, False),
        ({"origin": HERE, "sec_fetch_site": "cross-site"}, False, False, False),
        ({"origin": HERE, "sec_fetch_site": "same-site"}, False, False, False),
        ({"sec_fetch_site": "cross-site"}, False, False, False),
    ],
)
def test_from_which_page_something_may_be_changed(
    headers: dict[str, str], by_cookie: bool, by_key: bool, anonymous: bool
) -> None:
    may = {
        "cookie": foreign(request("POST", **headers, **COOKIE), ()) is None,
        "key": foreign(request("POST", **headers, **KEY), ()) is None,
        "anonymous": foreign(request("POST", **headers), ()) is None,
    }
    assert may == {"cookie": by_cookie, "key": by_key, "anonymous": anonymous}


def test_a_page_that_is_opened_from_elsewhere_opens_but_a_foreign_script_reads_nothing() -> None:
    link = {"sec_fetch_site": "cross-site", **COOKIE}
    assert foreign(request("GET", "/jobs", **link), ()) is None
    assert foreign(request("GET", JOBS, origin="https://evil.example", **COOKIE), ()) is not None


def test_what_a_proxy_may_have_said_is_not_believed() -> None:
    wish = request(
        "POST",
        x_forwarded_for="10.0.0.1",
        x_forwarded_host="farm.example",
        x_forwarded_proto="https",
        forwarded="for=10.0.0.1;host=farm.example;proto=https",
    )
    assert wish == request("POST")
    assert (wish.address, wish.scheme) == ("192.0.2.7", "http")


@pytest.mark.parametrize(
    ("header", "bearer"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Bearer", ""),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
    ],
)
def test_what_counts_as_a_key_in_a_header(header: str, bearer: str | None) -> None:
    assert request(authorization=header).bearer == bearer


def test_two_keys_or_origins_in_one_request_are_none() -> None:
    scope = {"method": "GET", "path": JOBS, "query_string": b"", "scheme": "http"}
    doubled = [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")]
    assert asked({**scope, "headers": doubled}).bearer == ""
    assert asked({**scope, "headers": [(b"origin", HERE.encode())] * 2}).origin == "null"
    assert asked({**scope, "headers": [(b"sec-fetch-site", b"same-origin")] * 2}).fetch_site == "cross-site"


@pytest.mark.parametrize(
    ("path", "query", "to"),
    [
        ("/", "", "/login"),
        ("/jobs", "", "/login?next=/jobs"),
        ("/history", "q=a b&order=asc", "/login?next=/history%3Fq%3Da%20b%26order%3Dasc"),
        ("/jobs/ü?#", "", "/login?next=/jobs/%25C3%25BC%253F%2523"),
        ("/login", "", "/login?next=/login"),
        ("//evil.example", "", None),
        ("/nothing", "", None),
        (JOBS, "", None),
        ("/v1/videos", "", None),
        ("/metrics", "", None),
    ],
)
def test_where_a_browser_without_a_session_is_sent(path: str, query: str, to: str | None) -> None:
    wish = replace(request("GET", path, accept="text/html,*/*"), query=query)
    assert login_address(wish) == to
    assert login_address(replace(wish, accept="*/*")) is None
    assert login_address(replace(wish, method="POST")) is None


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("GET", JOBS, "read"),
        ("GET", "/static/0123/app.js", None),
        ("POST", JOBS, "submit"),
        ("POST", "/api/v1/uploads", "submit"),
        ("POST", "/v1/videos", "submit"),
        ("GET", "/v1/models", "read"),
        ("POST", "/v1/videos/video_0123456789ab/remix", "submit"),
        ("DELETE", "/v1/videos/video_0123456789ab", "change"),
        ("POST", "/api/v1/plans", "change"),
        ("POST", JOBS + "/job-0123456789ab/cancel", "change"),
        ("PUT", JOBS + "/job-0123456789ab/keyframes/1/picture", "submit"),
        ("DELETE", JOBS + "/job-0123456789ab/keyframes/1/picture", "change"),
        ("POST", "/api/v1/session", "login"),
        ("DELETE", "/api/v1/session", "change"),
    ],
)
def test_which_limit_a_request_counts_against(method: str, path: str, what: str | None) -> None:
    assert rate_class(method, path) == what


@pytest.mark.parametrize(
    ("bucket", "now", "cost", "after", "wait_s"),
    [
        (None, 100.0, 1.0, Bucket(4.0, 100.0), 0.0),
        (Bucket(4.0, 100.0), 100.0, 4.0, Bucket(0.0, 100.0), 0.0),
        (Bucket(0.0, 100.0), 100.0, 1.0, Bucket(0.0, 100.0), 0.5),
        (Bucket(0.0, 100.0), 100.25, 1.0, Bucket(0.5, 100.25), 0.25),
        (Bucket(0.0, 100.0), 100.5, 1.0, Bucket(0.0, 100.5), 0.0),
        (Bucket(0.0, 100.0), 1000.0, 1.0, Bucket(4.0, 1000.0), 0.0),
    ],
)
def test_a_bucket_of_five_that_fills_at_two_a_second(
    bucket: Bucket | None, now: float, cost: float, after: Bucket, wait_s: float
) -> None:
    assert take(bucket, Rate(2, 5), now, cost) == (after, wait_s)


def test_callers_and_kinds_of_requests_have_buckets_of_their_own() -> None:
    buckets = Buckets(Limits(login=Rate(1, 2), read=Rate(1, 1)))
    assert [buckets.wait_s("a", "login", 0.0) for _ in range(3)] == [0, 0, 1]
    assert buckets.wait_s("b", "login", 0.0) == 0
    assert buckets.wait_s("a", "read", 0.0) == 0
    assert buckets.wait_s("a", "login", 1.0) == 0


def test_very_many_callers_are_not_all_remembered_and_the_busiest_is() -> None:
    buckets = Buckets(Limits(login=Rate(1e-9, 1)))
    for number in range(3 * MAX_BUCKETS):
        buckets.wait_s(f"a{number}", "login", float(number))
        assert (buckets.wait_s("guesser", "login", float(number)) == 0) == (number == 0)
    assert len(buckets._buckets) <= MAX_BUCKETS


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_of_a_household_is_one_caller(address: str, who: str) -> None:
    assert caller(address) == who


@pytest.mark.parametrize(
    ("path", "content_type", "cap"),
    [
        ("/api/v1/keys", "application/json", MAX_JSON_BYTES),
        ("/api/v1/keys", "multipart/form-data", MAX_JSON_BYTES),
        ("/api/v1/session", "", MAX_JSON_BYTES),
        (JOBS, "application/json", MAX_JSON_WITH_INPUTS_BYTES),
        (JOBS, "", MAX_JSON_WITH_INPUTS_BYTES),
        (JOBS, "multipart/form-data", None),
        ("/v1/videos/edits", "multipart/form-data", None),
        # These take no file: what says that it is a form would be read whole.
        (f"{JOBS}/job-000000000000/rerender", "multipart/form-data", MAX_JSON_BYTES),
        (f"{JOBS}/job-000000000000/keyframes/3/remake", "multipart/form-data", MAX_JSON_BYTES),
        (f"{JOBS}/job-000000000000/keyframes/3/picture", "multipart/form-data", None),
        (f"{JOBS}/job-000000000000/keyframes/3/picture", "", MAX_JSON_WITH_INPUTS_BYTES),
        ("/v1/videos/video_000000000000/remix", "multipart/form-data", MAX_JSON_BYTES),
    ],
)
def test_how_long_a_body_may_be(path: str, content_type: str, cap: int | None) -> None:
    assert body_cap(path, content_type) == cap


@pytest.mark.parametrize(
    ("header", "length"), [("12", 12), ("", 0), ("-1", 0), ("1e3", 0), ("9" * 30, 0), ("²", 0)]
)
def test_an_announced_length_that_is_no_number_says_nothing(header: str, length: int) -> None:
    assert request("POST", content_length=header).content_length == length
