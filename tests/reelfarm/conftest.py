"""The farm behind the door is that of ``tests/dashboard``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from tests.dashboard.conftest import Farm, intake_without_a_child, photo, serving, shared_farm

__all__ = ["intake_without_a_child", "photo", "serving", "shared_farm"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def farm_url(shared_farm: Farm, serving: Any) -> AsyncIterator[str]:
    """Where the shared farm answers."""
    async with serving(shared_farm.app) as url:
        yield url
