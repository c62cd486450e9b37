"""What the tests of several engines use."""

from __future__ import annotations

import pytest


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flash kernel holds its output alone, not the scores."""
    import torch

    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda query, *_, **__: torch.empty_like(query)
    )
