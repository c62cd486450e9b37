"""The farms that are kept are those of ``tests/farm/running``."""

from __future__ import annotations

from tests.farm.running.conftest import fatal_journal, job_request, photo, run_farm

__all__ = ["fatal_journal", "job_request", "photo", "run_farm"]
