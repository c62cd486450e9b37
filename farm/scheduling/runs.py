"""Many equal tasks placed at once: those that busy workers end first are counted, not tried. Numbers only.

A row of each column is a worker. ``free_at`` is when it is free, ``run_s`` what one task takes there;
infinite where none may go. Where two end a task at one moment, the first row takes it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from farm.state import Bools, Floats


def place_run(
    free_at: Floats, run_s: Floats, idle: Bools, count: int, room: int, *, is_last: bool = False
) -> Iterator[tuple[int, int, Floats]]:
    """So many equal tasks, each on whoever ends it first; until all are placed, or ``room`` on idle workers.

    Yields, for each that goes to an idle worker: how many went to busy ones since, its row, and when each
    worker would end it. ``free_at`` and ``idle`` are changed as tasks are placed, but for the last ones where
    ``is_last``: nothing is placed behind them.
    """
    waiting = (idle & (run_s < np.inf)).nonzero()[0]
    while count and room and waiting.size:
        finish = free_at + run_s
        row = int(waiting[finish[waiting].argmin()])
        end = finish[row]
        rows = (finish <= end).nonzero()[0]
        rows = rows[~idle[rows]]
        skipped = 0
        if rows.size:
            free, runs = free_at[rows], run_s[rows]
            more = np.floor((end - free) / runs)
            ends = free + more * runs
            more -= (ends > end) | ((ends == end) & (rows > row))
            skipped = int(more.sum())
            if skipped >= count:
                break
            free_at[rows] = free + more * runs
            finish[rows] = free_at[rows] + runs
        yield skipped, row, finish
        free_at[row] = end
        idle[row] = False
        waiting = waiting[waiting != row]
        count -= skipped + 1
        room -= 1
    if count and room and not is_last and np.count_nonzero(idle):
        _queue(free_at, run_s, np.flatnonzero(~idle & (run_s < np.inf)), count)


def _queue(free_at: Floats, run_s: Floats, rows: np.ndarray, count: int) -> None:
    """So many equal tasks behind what these workers do, each on whoever ends it first."""
    if not rows.size:
        return
    free, runs = free_at[rows], run_s[rows]
    level, below = np.inf, np.ones(rows.size, bool)
    while True:  # to what moment they would work, were tasks divisible
        level = (count + (free[below] / runs[below]).sum()) / (1 / runs[below]).sum()
        if (still := below & (free < level)).all() or (still == below).all():
            break
        below = still
    whole = np.where(below, np.maximum(np.floor((level - free) / runs), 0), 0)
    rest = count - int(whole.sum())
    if rest > 0:
        # The next ones, by when they end: none later than if every worker took one at most.
        following = free + (whole + 1) * runs
        last = np.partition(following, min(rest, rows.size) - 1)[min(rest, rows.size) - 1]
        # Who ends one by then takes one, also where a quotient is a hair too small.
        more = np.maximum(np.floor((last - free) / runs) - whole, following <= last).astype(int)
        of = np.repeat(np.arange(rows.size), more)
        nth = np.arange(of.size) - np.repeat(np.cumsum(more) - more, more) + 1
        ends = free[of] + (whole[of] + nth) * runs[of]
        whole += np.bincount(of[np.lexsort((of, ends))[:rest]], minlength=rows.size)
    free_at[rows] += whole * runs
