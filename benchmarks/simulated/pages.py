"""What the pages ask of a farm as it stands, in CPU milliseconds, and what hearing of its devices costs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from benchmarks.simulated.simulation import Simulation
from dashboard.http.queries import MAX_LIMIT
from dashboard.live.snapshots import Snapshots
from dashboard.live.worker_summaries import NodeSummary, node_summaries, worker_summary_by_id, workers_by_node
from farm.scheduling.forecast import eta_s, quote
from farm.state.events import JobSubmitted
from farm.state.state import State
from farm.state.workers import Telemetry, telemetry_interval_s


def asked(farm: Simulation, example: JobSubmitted) -> dict[str, float]:
    """The best of three; ``telemetry_cores``: of one core, as often as workers are asked to tell."""
    ledger, now = farm.ledger, farm.now
    state = ledger.state
    job = next((job for job in state.jobs.values() if job.status == "running"), None)
    idle = next((id for id, w in state.workers.items() if not w.attempts), next(iter(state.workers)))
    snapshots = Snapshots(ledger)
    turns = iter(range(1, 10))
    found = {
        "page_of_nodes_ms": _ms(lambda: json.dumps(_page_of_nodes(state))),
        "why_one_worker_idles_ms": _ms(lambda: worker_summary_by_id(state, idle)),
        "quote_ms": _ms(lambda: quote(state, example.plan, now)),
        "snapshots_turn_ms": _ms(lambda: snapshots.due(100.0 * next(turns))),
    }
    if job is not None:
        found["job_left_ms"] = _ms(lambda: eta_s(state, job, now))

    def hear() -> None:
        for worker_id, worker in state.workers.items():
            worker.telemetry, worker.telemetry_at = Telemetry(worker_id, load=0.5), now

    found["telemetry_cores"] = round(_ms(hear) / 1000 / telemetry_interval_s(len(state.workers)), 4)
    return found


def _page_of_nodes(state: State) -> list[NodeSummary]:
    """As the API lists them."""
    workers = workers_by_node(state)
    return node_summaries(state, {name: workers[name] for name in list(workers)[:MAX_LIMIT]})


def _ms(call: Callable[[], object]) -> float:
    def one() -> float:
        started = time.process_time()
        call()
        return 1000 * (time.process_time() - started)

    return round(min(one() for _ in range(3)), 1)
