from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.intake.upload_space import MAX_UPLOADS, MAX_UPLOADS_OF_ONE, STEP_BYTES, UploadSpace
from farm.errors import CannotRun, TooManyRequests
from farm.running.storage import RESERVE_BYTES

GB = 10**9


@pytest.fixture
def space() -> UploadSpace:
    """Ten GB beside the reserve, of which uploads may have five."""
    return UploadSpace(Path("/somewhere"), lambda _: 10 * GB + RESERVE_BYTES)


def test_uploads_under_way_have_half_of_the_disk_together_and_give_it_back(space: UploadSpace) -> None:
    with space.taken("a") as first, space.taken("b") as second:
        first.up_to(3 * GB)
        with pytest.raises(CannotRun, match=r"10\.0 GB for work.* 3\.0 GB are theirs already"):
            second.up_to(3 * GB)
        second.up_to(2 * GB)
        first.up_to(3 * GB)  # has it already
        with pytest.raises(CannotRun):
            first.up_to(3 * GB + 1)
    with space.taken("a") as again:
        again.up_to(5 * GB)


def test_an_upload_that_does_not_say_how_long_it_is_claims_as_it_comes(space: UploadSpace) -> None:
    with space.taken("a") as claim:
        claim.up_to(0)
        assert claim.num_bytes == 0
        claim.up_to(10)
        claim.up_to(11)
        assert claim.num_bytes == 10 + STEP_BYTES
        claim.up_to(10 + STEP_BYTES)
        assert claim.num_bytes == 10 + STEP_BYTES


def test_a_disk_at_its_reserve_takes_nothing() -> None:
    full = UploadSpace(Path("/somewhere"), lambda _: RESERVE_BYTES - 1)
    with full.taken("a") as claim, pytest.raises(CannotRun, match="free disk space"):
        claim.up_to(1)


def test_only_so_many_uploads_are_under_way(space: UploadSpace) -> None:
    def begin(who: str, left: int) -> None:
        with space.taken(who):
            if left > 1:
                begin(who, left - 1)

    begin("a", MAX_UPLOADS_OF_ONE)
    with pytest.raises(TooManyRequests, match=f"{MAX_UPLOADS_OF_ONE} uploads of yours are under way"):
        begin("a", MAX_UPLOADS_OF_ONE + 1)
    held = [space.taken(f"caller {n}") for n in range(MAX_UPLOADS)]
    for one in held:
        one.__enter__()
    with pytest.raises(TooManyRequests, match=f"{MAX_UPLOADS} uploads here are under way"):
        begin("one more", 1)
    for one in held:
        one.__exit__(None, None, None)
    begin("one more", 1)
