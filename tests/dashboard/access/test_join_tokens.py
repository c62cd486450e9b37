from __future__ import annotations

from dashboard.access.join_tokens import EXPIRY_S, JoinTokens


def test_a_join_token_works_once() -> None:
    tokens = JoinTokens()
    token = tokens.create()
    assert tokens.redeem(token)
    assert not tokens.redeem(token)


def test_a_token_that_was_never_given_out_is_refused_and_uses_nothing_up() -> None:
    tokens = JoinTokens()
    token = tokens.create()
    assert not tokens.redeem(token + "x")
    assert not tokens.redeem("")
    assert tokens.redeem(token)


def test_every_token_is_another_and_stands_for_itself() -> None:
    tokens = JoinTokens()
    first, second = tokens.create(), tokens.create()
    assert first != second
    assert tokens.redeem(second)
    assert tokens.redeem(first)


def test_a_join_token_ends_after_a_day() -> None:
    now = 1000.0
    tokens = JoinTokens(clock=lambda: now)
    early, late = tokens.create(), tokens.create()
    now += EXPIRY_S - 1
    assert tokens.redeem(early)
    now += 1
    assert not tokens.redeem(late)


def test_the_tokens_themselves_are_not_kept() -> None:
    tokens = JoinTokens()
    token = tokens.create()
    assert token not in str(vars(tokens))
