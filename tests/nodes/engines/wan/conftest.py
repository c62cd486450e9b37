"""Tiny models of Wan's classes, each written and read once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.engines.wan.tiny import write_tiny_wan


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``wan_folder("ti2v")``: the folder of a tiny model of that kind, written once."""

    @cache
    def folder(kind: str) -> Path:
        written = tmp_path_factory.mktemp("wan") / kind
        written.mkdir()
        write_tiny_wan(written, kind)
        return written

    return folder


@pytest.fixture(scope="session")
def wan_engine(wan_folder: Callable[[str], Path]) -> Callable[..., Any]:
    """``wan_engine("ti2v")``: its engine on a CPU with the rungs of a card, shared, at its first rung."""
    from nodes.engines.wan.engine import Wan
    from nodes.engines.wan.spec import wan_spec

    @cache
    def made(kind: str) -> Any:
        folder = wan_folder(kind)
        return Wan(wan_spec(folder, model=f"tiny {kind}"), source=folder, device="cpu")

    def engine(kind: str, rung: str = "resident") -> Any:
        made(kind).load(rung)
        return made(kind)

    return engine
