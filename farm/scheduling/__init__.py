"""What should happen next: which worker takes which segment, what follows a failure, when all will be done.

Pure functions that read a state enter; whoever acts on what they decide lives in ``farm.running``.
"""

from __future__ import annotations

from farm.scheduling.expected import ends_on
from farm.scheduling.forecast import Quote, eta_s, quote, quote_of, standing
from farm.scheduling.retry import (
    Rerender,
    StopJob,
    after_failure,
    after_fill,
    after_seam,
    stall_limit_s,
    why_not_retried,
)
from farm.scheduling.runnable import Runnable, RunnableSetting, runnable
from farm.scheduling.schedule import MAX_ASSIGNMENTS, Assignment, explain, schedule
from farm.scheduling.waiting import waiting

__all__ = [
    "MAX_ASSIGNMENTS",
    "Assignment",
    "Quote",
    "Rerender",
    "Runnable",
    "RunnableSetting",
    "StopJob",
    "after_failure",
    "after_fill",
    "after_seam",
    "ends_on",
    "eta_s",
    "explain",
    "quote",
    "quote_of",
    "runnable",
    "schedule",
    "stall_limit_s",
    "standing",
    "waiting",
    "why_not_retried",
]
