"""When videos would be done that nobody has asked for yet: what a mode is chosen by. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from farm.planning import Ends
from farm.scheduling.forecast import quote
from farm.state import Profiles, State, WorkerState


def ends_on(workers: Iterable[WorkerState], profiles: Profiles | None = None) -> Ends:
    """As a quote says it, had these workers nothing else to do: with their rates, and what each has loaded.

    Args:
        workers: That are here, or will be.
        profiles: What was learned of them; None: nothing.
    """
    idle = {w.worker.id: WorkerState(w.worker, warm_model=w.warm_model, models=w.models) for w in workers}
    state = State(workers=idle, profiles=profiles or Profiles())
    return lambda plan: quote(state, plan, 0.0).predicted_s
