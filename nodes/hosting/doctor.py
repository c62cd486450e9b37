"""Looking a machine over: is the installation sound, and what can its workers render?"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path

from farm.capabilities import RenderShape, Worker, fitting_rungs, gib
from farm.errors import CannotRun, FarmError, PortClosed
from farm.machines import Ports
from farm.planning import footprint
from farm.reporting import runnable_lines
from farm.values import Value
from farm.version import VERSION
from nodes.engines import spec_of
from nodes.engines.procedural import LEVELS
from nodes.hosting.models_here import models_here
from nodes.machine import listening, look, member, problems
from nodes.model_store import kept_models, models_folder, models_quota

#: The top-level packages of this distribution.
ROOMS = ("farm", "nodes", "stitching", "dashboard", "reelfarm")
OURS = "reelfarm"
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
MIN_FREE_DISK_BYTES = 5 * 10**9


class Finding(Value):
    subject: str
    ok: bool
    text: str


def examine_security(state: Path) -> list[Finding]:
    """Every socket on which this farm waits for others, and who can reach it; other machines' first."""
    found = [
        Finding(
            subject=f"{each.process} ({each.pid})",
            ok=each.is_local or each.asks_for != "unknown",
            text=f"{each.protocol} {each.address} port {each.port}: "
            f"{each.reached_by}; asks for {each.asks_for}",
        )
        for each in listening(state)
    ]
    return found or [Finding(subject="listeners", ok=True, text=f"no farm of {state} runs on this machine")]


def examine_joining(address: str, ports: Ports) -> list[Finding]:
    """Whether this machine and the farm at ``address`` reach each other; nothing is joined.

    Raises:
        InvalidInput: it is no address.
    """
    url = member.farm_url(address)
    try:
        found = problems(look(url, ports))
    except FarmError as error:
        return [Finding(subject=address, ok=False, text=error.message)]
    findings = []
    for problem in found:
        findings.append(Finding(subject=address, ok=False, text=problem.message))
        commands = problem.commands if isinstance(problem, PortClosed) else ()
        for line in commands:
            tool, _, command = line.partition(": ")
            findings.append(Finding(subject=tool, ok=False, text=command))
    reached = f"this machine and {url} reach each other on ports {ports}; `farm join` works"
    return findings or [Finding(subject=address, ok=True, text=reached)]


def examine(workers: Sequence[Worker], state: Path) -> list[Finding]:
    """Everything worth knowing before a job is given to this machine; ``state`` is its state folder."""
    return [
        *foreign_packages(packages_distributions()),
        *_versions(),
        _disk(state),
        model_store(),
        *_cards(workers),
        *_models(workers, state),
    ]


def foreign_packages(owners: Mapping[str, list[str]]) -> list[Finding]:
    """Other distributions that own one of our package names: they overwrite each other silently.

    ``owners`` maps a top-level package to the distributions that installed it.
    """
    findings = []
    for room in ROOMS:
        others = sorted({name for name in owners.get(room, []) if name.lower() != OURS})
        text = (
            f"belongs to {', '.join(others)} too; remove it: pip uninstall {' '.join(others)}"
            if others
            else "is ours alone"
        )
        findings.append(Finding(subject=f"package {room}", ok=not others, text=text))
    return findings


def _versions() -> Iterable[Finding]:
    yield Finding(subject=OURS, ok=True, text=f"{VERSION}, every machine of a farm needs the same")
    yield python_version(*sys.version_info[:3])
    for package in ("ray", "torch", "diffusers", "opencv-python-headless", "av"):
        yield Finding(subject=package, ok=True, text=version(package))


def python_version(major: int, minor: int, micro: int) -> Finding:
    """Whether a Python is one that the pinned packages resolve on."""
    return Finding(
        subject="python",
        ok=OLDEST_PYTHON <= (major, minor) <= NEWEST_PYTHON,
        text=f"{major}.{minor}.{micro}, every machine of a farm needs the same",
    )


def _disk(state: Path) -> Finding:
    folder = state.absolute()
    try:
        while not folder.exists():
            folder = folder.parent
    except OSError as error:
        text = f"{folder} cannot be used ({error.strerror}); choose another with --state"
        return Finding(subject="disk", ok=False, text=text)
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free in {folder}"
    return Finding(subject="disk", ok=free > MIN_FREE_DISK_BYTES, text=text)


def model_store() -> Finding:
    """What the models that this machine keeps take of its disk, and what they may."""
    found = kept_models()
    taken = sum(model.size_bytes for model in found)
    words = f"{len(found)} kept in {models_folder()}, {taken / 1e9:.1f} GB"
    try:
        quota_bytes = models_quota()
    except FarmError as error:
        return Finding(subject="model store", ok=False, text=error.message)
    if quota_bytes is None:
        return Finding(subject="model store", ok=True, text=f"{words}; no quota")
    return Finding(
        subject="model store",
        ok=taken <= quota_bytes,
        text=f"{words}, of a quota of {quota_bytes / 1e9:.1f} GB",
    )


def _cards(workers: Iterable[Worker]) -> Iterable[Finding]:
    spec = spec_of(next(iter(LEVELS)))
    shape = RenderShape(
        num_frames=spec.window_frames, height=512, width=512, num_inference_steps=1, guided=False
    )
    for worker in workers:
        needs = footprint(spec.on(worker.kind), shape, worker.kind).needs
        rungs = fitting_rungs(needs, worker)
        fits = f"renders 512x512x8 of {spec.model} at {rungs[0]}" if rungs else "holds no window of any model"
        yield Finding(
            subject=worker.id,
            ok=bool(rungs),
            text=f"{worker.device_name}, {gib(worker.vram_bytes)}: {fits}",
        )


def _models(workers: Sequence[Worker], state: Path) -> Iterable[Finding]:
    """What runs of each model. That one is too large for this machine is nothing to be mended."""
    try:
        reports = models_here(workers, state)
    except CannotRun as error:
        yield Finding(subject="models", ok=False, text=error.message)
        return
    for report in reports:
        yield Finding(subject=report["model"], ok=True, text="; ".join(runnable_lines(report)))
