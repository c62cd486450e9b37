"""Guards for every test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_ray_unless_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that starts a Ray says so with the ``ray`` mark; any other is stopped when it tries."""
    if request.node.get_closest_marker("ray"):
        return
    import ray

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this test started a Ray; mark it with @pytest.mark.ray if it has to")

    monkeypatch.setattr(ray, "init", refuse)
