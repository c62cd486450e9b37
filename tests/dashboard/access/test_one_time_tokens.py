from __future__ import annotations

import pytest

from dashboard.access.one_time_tokens import OneTimeTokens

DAY_S = 86400.0


@pytest.fixture
def tokens() -> OneTimeTokens:
    return OneTimeTokens(DAY_S)


def test_a_token_works_once_and_says_whom_it_was_made_for(tokens: OneTimeTokens) -> None:
    token = tokens.create("owner")
    assert tokens.redeem(token) == "owner"
    assert tokens.redeem(token) is None


def test_a_token_that_was_never_given_out_is_refused_and_uses_nothing_up(tokens: OneTimeTokens) -> None:
    token = tokens.create()
    for wrong in (token + "x", "", "\ud800"):
        assert tokens.redeem(wrong) is None
    assert tokens.redeem(token) == ""


def test_every_token_is_another_and_stands_for_itself(tokens: OneTimeTokens) -> None:
    first, second = tokens.create("one"), tokens.create("two")
    assert first != second
    assert (tokens.redeem(second), tokens.redeem(first)) == ("two", "one")


def test_a_token_ends_after_its_time() -> None:
    now = 1000.0
    tokens = OneTimeTokens(DAY_S, clock=lambda: now)
    early, late = tokens.create(), tokens.create()
    now += DAY_S - 1
    assert tokens.redeem(early) is not None
    now += 1
    assert tokens.redeem(late) is None


def test_the_tokens_themselves_are_not_kept(tokens: OneTimeTokens) -> None:
    token = tokens.create()
    assert token not in str(vars(tokens))
