"""Running the ``farm`` command as a user would, and seeing whether it leaves anything behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Outcome:
    """What a finished command said, the folder it ran in, and the session of its processes."""

    status: int
    out: str
    err: str
    folder: Path
    session: int

    def error(self) -> str:
        """The message of a refusal, known to be one line with nothing left behind."""
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.out + self.err
        assert self.leftovers() == []
        assert self.processes() == []
        assert not (self.folder / "ray").exists(), "Ray was started"
        return self.err.removeprefix("error: ").rstrip("\n")

    def leftovers(self) -> list[str]:
        """Files that neither were there before nor belong to an empty farm, and temporary folders."""
        kept = {"given", "journal.sqlite", "lock"}
        temporary = {self.folder / "tmp", self.folder / "state" / "incoming"}
        found = (p for p in self.folder.rglob("*") if not p.is_dir() or p.parent in temporary)
        names = (path.relative_to(self.folder) for path in found)
        return [str(name) for name in names if not kept & set(name.parts)]

    def processes(self) -> list[str]:
        """Command lines of processes that this command, or a child of it, left running."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if process.pid != os.getpid() and (
                    os.getsid(process.pid) == self.session
                    or str(self.folder) in " ".join((line, *process.environ().values()))
                ):
                    found.append(line)
            except (psutil.Error, ProcessLookupError):
                continue
        return found


Run = Callable[..., Outcome]


def environment_of(folder: Path) -> dict[str, str]:
    """The state and the temporary files lie in ``folder``."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "REELFARM_STATE": str(folder / "state"),
        "XDG_STATE_HOME": str(folder / "user"),
        "COLUMNS": "200",
        "TMPDIR": str(folder / "tmp"),
        "RAY_TMPDIR": str(folder / "ray"),
    }


def run_fresh(*arguments: str | bytes, folder: Path, starts_ray: bool = False) -> Outcome:
    """Run ``farm`` in a Python of its own.

    ``starts_ray``: a Ray is to be started, and temporary files lie where they always do (the names of its
    sockets must be short).
    """
    environment = environment_of(folder)
    if starts_ray:
        del environment["TMPDIR"], environment["RAY_TMPDIR"]
    with subprocess.Popen(
        [sys.executable, "-m", "farm", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Outcome(process.returncode, out, err, folder, process.pid)


@pytest.fixture(scope="session")
def farm_in(warm_farm: Callable[..., Any]) -> Run:
    """Run a ``farm`` command in a folder: ``farm_in("plan", "photo.png", folder=...)``.

    The folder holds its state, its temporary files and what it writes. ``fresh`` and ``starts_ray`` want a
    Python of its own; ``ordinary``: without root's privilege to read and write everything.
    """

    def run(
        *arguments: str | bytes,
        folder: Path,
        fresh: bool = False,
        starts_ray: bool = False,
        ordinary: bool = False,
    ) -> Outcome:
        if fresh or starts_ray:
            return run_fresh(*arguments, folder=folder, starts_ray=starts_ray)
        ended = warm_farm(
            *arguments,
            folder=folder,
            environment=environment_of(folder),
            timeout_s=TIMEOUT_S,
            ordinary=ordinary,
        )
        return Outcome(ended.status, ended.out, ended.err, folder, ended.pid)

    return run


@pytest.fixture
def farm(tmp_path: Path, farm_in: Run) -> Run:
    """Run a ``farm`` command in this test's folder."""

    def run(*arguments: str | bytes, **how: bool) -> Outcome:
        return farm_in(*arguments, folder=tmp_path, **how)

    return run


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Make a file system of its own that holds so many bytes."""
    mounted: list[Path] = []

    def mount(size_bytes: int) -> Path:
        folder = tmp_path / "given" / f"disk{len(mounted)}"
        folder.mkdir(parents=True)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            pytest.skip(f"a file system cannot be mounted here: {made.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
