"""Wan and LTX-Video at full size on capped cards, beside stock diffusers in the same run.

Folders of the published sizes with random weights are written to ``--folder`` (a disk or tmpfs with 50 GB
free) as cases need them and removed behind the last that does. Every case runs in a process of its own,
capped to the bytes it names; a case that fails is written as such, and those that no longer fit into
``--budget-s`` are left out. Results are added to ``--out`` as they come; what is there is not measured again
unless ``--again``.

    python benchmarks/engines/modern_cards.py --folder /dev/shm/reelfarm        # half an hour on an H100
    python benchmarks/engines/modern_cards.py --only 'a14b/*'                    # patterns of names
    python benchmarks/engines/modern_cards.py --tiny --out /tmp/rehearsal.json  # every path on a CPU
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

# The parent of all cases must not open the card: its children are forked.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nodes.engines.memory import use_expandable_segments  # noqa: E402

use_expandable_segments()

import diffusers  # noqa: E402  # imported once, by the parent
import torch  # noqa: E402
import transformers  # noqa: E402

import nodes.engines.ltx.engine  # noqa: E402
import nodes.engines.wan.engine  # noqa: E402, F401
from benchmarks.engines import _farm_cases as ours  # noqa: E402
from benchmarks.engines import _stock_cases as stock  # noqa: E402
from benchmarks.engines._decoding import decoding  # noqa: E402
from benchmarks.engines._full_size import MODELS, tiny, write_folder  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "modern_cards.json"


@dataclass(frozen=True)
class Case:
    """One measurement: of a model, in a process of its own."""

    name: str
    #: None where none is needed.
    model: str | None
    #: ``(folder, model, device)`` to what is written down.
    run: Callable[..., dict[str, Any]]
    #: Seconds it is expected to take on an H100.
    expected_s: float
    #: The transformer's weights come from another file.
    hollow: bool = False


def _card(folder: Path, model: Any, device: str) -> dict[str, Any]:
    """What the card does: a matrix product in bfloat16, a copy from pinned memory."""
    from benchmarks.engines._watch import seconds_of

    side, dtype = (8192, torch.bfloat16) if device == "cuda" else (256, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = min(seconds_of(lambda: a @ b, 10, device))
    host = torch.empty(2**30 if device == "cuda" else 2**20, dtype=torch.uint8, pin_memory=device == "cuda")
    there = torch.empty_like(host, device=device)
    copied = min(seconds_of(lambda: there.copy_(host, non_blocking=True), 3, device))
    return {
        "name": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "matmul_tflops": 2 * side**3 / seconds / 1e12,
        "copy_gb_s": host.nbytes / copied / 1e9,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }


def _job(cap_gb: float, **more: Any) -> Callable[..., dict[str, Any]]:
    return lambda folder, model, device: ours.job(folder, device, model.window, cap_gb=cap_gb, **more)


def _few_steps(made: Callable[..., Callable[..., dict[str, Any]]], *args: Any, **more: Any) -> Any:
    """The same with two steps: one of each expert."""

    def run(folder: Path, model: Any, device: str) -> dict[str, Any]:
        few = dataclasses.replace(model, window=(*model.window[:3], 2))
        return made(*args, **more)(folder, few, device)

    return run


def _in_format(kind: str) -> Callable[..., dict[str, Any]]:
    def run(folder: Path, model: Any, device: str) -> dict[str, Any]:
        window = (*model.window[:3], 2)  # a step of each expert
        found: dict[str, Any] = ours.job_in_format(folder, device, window, model, kind, cap_gb=6)
        return found

    return run


def _stock_job(placed: Any) -> Callable[..., dict[str, Any]]:
    return lambda folder, model, device: stock.stock_job(folder, model, device, model.window, placed)


def _stock_steps(*ways: str, times: int = 3) -> Callable[..., dict[str, Any]]:
    return lambda folder, model, device: stock.stock_steps(
        folder, model, device, model.window, ways=ways, times=times
    )


def _decode(exact_frames: int) -> Callable[..., dict[str, Any]]:
    return lambda folder, model, device: decoding(
        folder, device, model, model.window, exact_frames=exact_frames
    )


def _sweep(*settings: tuple[str, tuple[int, int, int, int]]) -> Callable[..., dict[str, Any]]:
    def run(folder: Path, model: Any, device: str) -> dict[str, Any]:
        asked = list(settings)
        if device != "cuda":
            asked = [(rung, (*model.window[:3], 2)) for rung, _ in settings]
        return ours.sweep(folder, device, asked)

    return run


A14B, TI2V, VACE, LTX, LTX13 = "a14b", "ti2v", "vace", "ltx-2b-distilled", "ltx-13b-distilled"
CASES = (
    Case("card", None, _card, 5),
    Case("a14b/stock", A14B, _stock_job("resident"), 60),
    Case("a14b/6gb", A14B, _job(6, windows=2, caps_gb=(8, 12)), 85),
    Case("a14b/6gb-compiled", A14B, _job(6, text=False, compiled=True), 70),
    Case("a14b/disk", A14B, _few_steps(_job, 6, rung="disk", text=False), 45),
    Case("a14b/stock-steps", A14B, _stock_steps("plain", "compiled"), 50),
    Case("a14b/stock-offload", A14B, _stock_steps("model", "leaf", times=1), 60),
    Case("a14b/needs", A14B, _sweep(
        ("stream", (832, 480, 49, 2)), ("stream", (1280, 720, 21, 2)), ("chunk", (480, 832, 33, 2)),
        ("stream", (640, 368, 81, 2)), ("stream", (480, 480, 17, 2)),
    ), 80),
    Case("a14b/decode", A14B, _decode(17), 45, hollow=True),
    Case("a14b/Q4_K", A14B, _in_format("Q4_K"), 60, hollow=True),
    Case("a14b/int8", A14B, _in_format("int8"), 60, hollow=True),
    Case("a14b/float8", A14B, _in_format("float8"), 60, hollow=True),
    Case("a14b/Q5_K", A14B, _in_format("Q5_K"), 60, hollow=True),
    Case("ti2v/stock", TI2V, _stock_job("resident"), 50),
    Case("ti2v/6gb", TI2V, _job(6), 45),
    Case("ti2v/6gb-compiled", TI2V, _job(6, text=False, compiled=True), 50),
    Case("ti2v/stock-steps", TI2V, _stock_steps("plain", "per_token", "compiled"), 40),
    Case("ti2v/stock-offload", TI2V, _stock_steps("model", "leaf", times=1), 30),
    Case("ti2v/24gb", TI2V, _job(24, text=False), 40),
    Case("ti2v/needs", TI2V, _sweep(
        ("stream", (1280, 704, 49, 1)), ("chunk", (704, 1280, 33, 1)), ("stream", (832, 480, 121, 1)),
        ("chunk", (960, 544, 81, 1)), ("stream", (640, 640, 61, 1)), ("resident", (832, 480, 61, 1)),
    ), 60),
    Case("ti2v/decode", TI2V, _decode(9), 60, hollow=True),
    Case("ltx/stock", LTX, _stock_job("resident"), 25),
    Case("ltx/6gb", LTX, _job(6, windows=2), 30),
    Case("ltx/4gb", LTX, _job(4, windows=2), 30),
    Case("ltx/6gb-compiled", LTX, _job(6, windows=2, text=False, compiled=True), 40),
    Case("ltx/12gb", LTX, _job(12, windows=2), 30),
    Case("ltx/stock-steps", LTX, _stock_steps("plain", "per_token", "compiled"), 30),
    Case("ltx/stock-offload", LTX, _stock_steps("model", "leaf", times=2), 20),
    Case("ltx/needs", LTX, _sweep(
        ("resident", (704, 480, 97, 2)), ("evict", (1216, 704, 121, 2)), ("stream", (704, 480, 257, 2)),
        ("evict", (512, 768, 161, 2)), ("stream", (1280, 704, 65, 2)), ("resident", (960, 544, 121, 2)),
        ("evict", (704, 480, 57, 2)), ("stream", (320, 512, 97, 2)), ("resident", (1280, 704, 161, 2)),
    ), 40),
    Case("ltx/decode", LTX, _decode(161), 25, hollow=True),
    Case("vace/stock-steps", VACE, _stock_steps("plain"), 20),
    Case("vace/6gb", VACE, _job(6, windows=1), 40),
    Case("ltx-13b/stock-steps", LTX13, _stock_steps("plain"), 40),
    Case("ltx-13b/8gb", LTX13, _job(8), 60),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where models are written; a temporary one unless given")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", default="*", help="patterns of cases' names, with commas")
    parser.add_argument("--budget-s", type=float, default=3600.0, help="for everything")
    parser.add_argument("--again", action="store_true", help="measure what is in --out already")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run_cases(args, args.folder or Path(scratch), time.monotonic() + args.budget_s)


def chosen_cases(only: str, done: dict[str, Any]) -> list[Case]:
    """In the order of the patterns, those that have no result."""
    found: dict[str, Case] = {}
    for pattern in only.split(","):
        found |= {c.name: c for c in CASES if fnmatch(c.name, pattern) and c.name not in found}
    return [c for c in found.values() if "failed" in done.get(c.name, {"failed": ""})]


def run_cases(args: argparse.Namespace, home: Path, deadline: float) -> None:
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    cases = chosen_cases(args.only, {} if args.again else results)
    for number, case in enumerate(cases):
        left_s = deadline - time.monotonic()
        if case.expected_s > left_s and not args.tiny:
            print(f"{case.name}: left out, {left_s:.0f} s are left", flush=True)
            continue
        start = time.monotonic()
        found = in_child(case, args.tiny, home, min(left_s, 3 * case.expected_s + 60))
        found["took_s"] = round(time.monotonic() - start, 1)
        results[case.name] = found
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{case.name}: {told(found)}", flush=True)
        forget(home, case, cases[number + 1 :])


def told(found: dict[str, Any]) -> str:
    """A line of what was found."""
    plain = {key: value for key, value in found.items() if isinstance(value, (int, float, str))}
    return json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in plain.items()})


def in_child(case: Case, is_tiny: bool, home: Path, limit_s: float) -> dict[str, Any]:
    """Run a case in a forked process; what ends it ends no other."""
    out = home / "found.json"
    out.unlink(missing_ok=True)
    child = multiprocessing.get_context("fork").Process(target=_run, args=(case, is_tiny, home, out))
    child.start()
    child.join(limit_s)
    if child.is_alive():
        child.kill()
        child.join()
        return {"failed": f"took more than {limit_s:.0f} s"}
    if not out.exists():
        return {"failed": f"the process ended with {child.exitcode}"}
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _run(case: Case, is_tiny: bool, home: Path, out: Path) -> None:
    device, dtype = ("cpu", torch.float32) if is_tiny else ("cuda", torch.bfloat16)
    model, folder = None, home
    try:
        start = time.monotonic()
        if case.model is not None:
            model = tiny(MODELS[case.model]) if is_tiny else MODELS[case.model]
            folder = write_folder(home, case.model, model, dtype, hollow=case.hollow)
        written_s = time.monotonic() - start
        found = case.run(folder, model, device)
        found["written_s"] = round(written_s, 1)
    except BaseException as error:
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {str(error)[:400]}"}
    out.with_suffix(".part").write_text(json.dumps(found))
    out.with_suffix(".part").rename(out)
    os._exit(0)


def forget(home: Path, case: Case, cases: list[Case]) -> None:
    """Remove the transformer when no other case reads it; the rest of a folder with the last of its cases."""
    if case.model is None:
        return
    later = [each for each in cases if each.model == case.model]
    if not later:
        shutil.rmtree(home / case.model, ignore_errors=True)
    elif all(each.hollow for each in later) and not case.hollow:
        shutil.rmtree(home / case.model / "transformer", ignore_errors=True)
    for text, family in (("umt5", "wan"), ("t5", "ltx")):
        if not any(each.model and MODELS[each.model].family == family for each in cases):
            shutil.rmtree(home / text, ignore_errors=True)


if __name__ == "__main__":
    main()
