"""What the farm learns of its workers."""

from __future__ import annotations

from typing import Any

import pytest

from farm.state.profiles import Profiles, pace


def test_what_a_card_took_is_expected_of_its_like_and_of_no_other(make: Any) -> None:
    made, profiles = make.plan(), Profiles()
    segment, first = made.segments[0], make.worker("a/0").model_copy(update={"device_name": "H100"})
    like, other = (first.model_copy(update={"id": "a/1", "device_name": name}) for name in ("H100", "T4"))
    guessed_s, guessed_load_s = (
        profiles.render_s(made, segment, first, "resident"),
        profiles.loading_s(made, first),
    )
    profiles.learn_success(
        pace(made, segment, "cuda"),
        "a/0",
        "resident",
        render_s=guessed_s / 10,
        load_s=guessed_load_s + 9,
        card="H100",
    )
    assert profiles.render_s(made, segment, like, "resident") == pytest.approx(guessed_s / 10)
    assert profiles.loading_s(made, like) == guessed_load_s + 9
    assert profiles.render_s(made, segment, other, "resident") == pytest.approx(guessed_s)
    assert profiles.loading_s(made, other) == guessed_load_s
    assert not profiles.has_measured(made.model, like)
