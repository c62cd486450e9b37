"""A model to several machines of a house, the farm's own the only source at first, beside one machine alone.

    python benchmarks/models_at_home.py [--gigabytes 4] [--machines 4] [--mbit 1000] [--folder /tmp]

Each machine is a network namespace on one switch, whose way there and back is limited (tbf) to ``--mbit``; so
root, ``ip`` and ``tc`` are needed. What runs in them is what a farm runs, without Ray: the coordinator's
connections (``nodes.link``), what it knows of models (``House``) and what a worker does to have one
(``WorkerModels``). The named alternative is one machine alone that takes the same model over the same wire;
"each from the internet", or each from the farm's machine, takes as many times as long as there are machines.

The model is a sparse file of zeros. Its pieces are hashed, sent, received, compared and counted as any, and
nothing of them is written: here all machines have one disk, and four homes have four.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from farm.capabilities import OWN_WEIGHTS, Worker
from farm.planning import RenderTask
from farm.running import Failed, Order
from nodes.link import Connection, Listener, SaidBring, SaidModels, connect
from nodes.model_store import House
from nodes.ray.model_talk import ModelTalk

GIB = 2**30
#: Files of a model: some large ones, as published ones have.
NUM_FILES = 4
SUBNET = "10.77.43"
LINK, MODELS = 8472, 8479
MODEL = "big"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def in_namespace(name: str, *arguments: str) -> list[str]:
    return ["ip", "netns", "exec", name, *arguments]


def build_house(stack: ExitStack, num_machines: int, mbit: int) -> list[str]:
    """Namespaces of a farm's machine and others on one switch; gone with ``stack``. Returns their names."""
    switch = f"rfs{os.getpid()}"
    names = [f"rfm{os.getpid()}-{n}" for n in range(num_machines + 1)]
    for name in (switch, *names):
        ip("netns", "add", name)
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
    ip("-n", switch, "link", "add", "br0", "type", "bridge")
    ip("-n", switch, "link", "set", "br0", "up")
    for number, name in enumerate(names):
        port = f"p{number}"
        ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", switch)
        ip("-n", switch, "link", "set", port, "master", "br0", "up")
        ip("-n", name, "addr", "add", f"{SUBNET}.{number + 1}/24", "dev", "eth0")
        for namespace, device in ((name, "eth0"), (switch, port)):
            ip("-n", namespace, "link", "set", device, "up")
            limit = ["rate", f"{mbit}mbit", "burst", "512kb", "latency", "20ms"]
            tc = ["tc", "qdisc", "add", "dev", device, "root", "tbf", *limit]
            subprocess.run(in_namespace(namespace, *tc), check=True)
        ip("-n", name, "link", "set", "lo", "up")
    return names


def write_model(folder: Path, size_bytes: int) -> tuple[str, ...]:
    names = tuple(f"transformer/diffusion_pytorch_model-{n}.safetensors" for n in range(NUM_FILES))
    (folder / "transformer").mkdir(parents=True)
    for name in names:
        with (folder / name).open("wb") as file:
            file.truncate(size_bytes // NUM_FILES)
    return names


def order_for(worker_id: str) -> Order:
    task = RenderTask(
        model=MODEL,
        frame_indices=(0,),
        shot_start=0,
        shot_end=1,
        height=16,
        width=16,
        fps=8,
        num_inference_steps=1,
        guidance_scale=1,
        seed=1,
    )
    return Order(
        attempt_id="job-0/s0/1", worker_id=worker_id, task=task, rung="resident", need_bytes=1, inputs={}
    )


async def farms_machine(folder: Path, num_machines: int) -> dict[str, Any]:
    """The coordinator's side: give every worker an order at once, and hear how long each took."""
    names = tuple(str(path.relative_to(folder / "model")) for path in sorted((folder / "model").rglob("*.*")))
    house = House(lambda *_: [(f"{MODEL}@0", folder / "model", names)])
    house.open(f"{SUBNET}.1", MODELS)
    began = time.monotonic()
    await asyncio.to_thread(house.manifests, MODEL, OWN_WEIGHTS)
    hashed_s = time.monotonic() - began
    listener = Listener()
    await listener.open(f"{SUBNET}.1", LINK)
    workers = [f"m{n}/cpu0" for n in range(1, num_machines + 1)]
    expected = {worker: listener.expect(worker, same_machine=False) for worker in workers}
    (folder / "secrets.part").write_text(json.dumps({w: secret for w, (secret, _) in expected.items()}))
    (folder / "secrets.part").rename(folder / "secrets")
    connections: dict[str, Connection] = {}
    talk = ModelTalk(house, connections.get)
    ready, took = asyncio.Event(), dict[str, float]()
    here: set[str] = set()
    answering: list[asyncio.Future[None]] = []
    started = 0.0

    async def serve(number: int, worker_id: str) -> None:
        connection = connections[worker_id] = await expected[worker_id][1]
        async for heard in connection.heard():
            match heard:
                case Worker():
                    talk.begins(worker_id)
                case SaidModels():
                    talk.here(worker_id, f"{SUBNET}.{number + 2}", heard)
                    here.add(worker_id)
                    if len(here) == num_machines:
                        ready.set()
                case SaidBring():
                    answering.append(asyncio.ensure_future(talk.wanted(worker_id, heard.attempt_id)))
                case Failed(message=message):
                    took[worker_id] = time.monotonic() - started
                    if message:
                        raise RuntimeError(f"{worker_id}: {message}")
                    return

    serving = [asyncio.ensure_future(serve(n, worker_id)) for n, worker_id in enumerate(workers)]
    await asyncio.wait_for(ready.wait(), 120)
    started = time.monotonic()
    for worker_id in workers:
        connections[worker_id].order(order_for(worker_id))
    await asyncio.gather(*serving)
    sent = int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text())
    house.close()
    return {
        "took_s": sorted(round(each, 2) for each in took.values()),
        "hashed_s": round(hashed_s, 2),
        "sent_by_farms_machine_bytes": sent,
        "cpu_s": round(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), 2),
    }


def other_machine(folder: Path, number: int) -> float:
    """A worker's side; seconds of a core that it took."""
    os.environ["REELFARM_MODELS"] = str(folder / f"models-{number}")
    from nodes.model_store import bringing
    from nodes.work import WorkerModels

    bringing.os.pwrite = lambda _, content, __: len(content)  # type: ignore[attr-defined]
    while not (folder / "secrets").exists():
        time.sleep(0.05)
    worker_id = f"m{number}/cpu0"
    secret = json.loads((folder / "secrets").read_text())[worker_id]
    end = connect(f"{SUBNET}.1", LINK, worker_id, secret)
    address = f"{SUBNET}.{number + 1}"
    end.introduce(
        Worker(
            id=worker_id, node=f"m{number}", address=address, kind="cpu", device_name="CPU", vram_bytes=GIB
        )
    )
    models = WorkerModels(address, MODELS)

    def begin(order: Order) -> None:
        def work() -> None:
            problem = ""
            try:
                models.need(order, end, lambda *_: None)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            end.tell(Failed(order.attempt_id, "cancelled", problem))

        threading.Thread(target=work, daemon=True).start()

    models.serve(end)
    end.serve(begin, lambda _: None)
    while not (folder / "done").exists():  # gives to others until all have it
        time.sleep(0.05)
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def handed_over(folder: Path, num_machines: int, size_bytes: int, mbit: int) -> dict[str, Any]:
    """One run with so many machines."""
    write_model(folder / "model", size_bytes)
    with ExitStack() as stack:
        names = build_house(stack, num_machines, mbit)
        environment = {**os.environ, "REELFARM_MODELS": str(folder / "models-0"), "PYTHONPATH": os.getcwd()}

        def start(number: int) -> subprocess.Popen[str]:
            command = [sys.executable, __file__, "--as", str(number), "--folder", str(folder)]
            command += ["--machines", str(num_machines)]
            return subprocess.Popen(
                in_namespace(names[number], *command), env=environment, stdout=subprocess.PIPE, text=True
            )

        others = [start(number) for number in range(1, num_machines + 1)]
        head = start(0)
        for process in (head, *others):
            stack.callback(process.kill)
        said = head.communicate(timeout=3600)[0]
        (folder / "done").touch()
        found: dict[str, Any] = json.loads(said)
        found["cpu_s_of_others"] = [float(other.communicate(timeout=60)[0]) for other in others]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--machines", type=int, default=4)
    parser.add_argument("--mbit", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--as", type=int, dest="number", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.number == 0:
        print(json.dumps(asyncio.run(farms_machine(arguments.folder, arguments.machines))))
        return
    if arguments.number is not None:
        print(other_machine(arguments.folder, arguments.number))
        return
    size_bytes = int(arguments.gigabytes * 1e9) // NUM_FILES * NUM_FILES
    runs = {}
    for num_machines in (1, arguments.machines):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            runs[num_machines] = handed_over(Path(folder), num_machines, size_bytes, arguments.mbit)
    alone, together = (max(runs[n]["took_s"]) for n in (1, arguments.machines))
    found = {
        "size_bytes": size_bytes,
        "mbit": arguments.mbit,
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "one_machine": runs[1],
        f"{arguments.machines}_machines": runs[arguments.machines],
        "wire_alone_s": round(size_bytes * 8 / arguments.mbit / 1e6, 2),
        "ratio": round(together / alone, 3),
    }
    print(json.dumps(found, indent=1))
    print(
        f"{arguments.gigabytes:g} GB to {arguments.machines} machines at {arguments.mbit} Mbit/s: "
        f"{together:.1f} s, to one alone {alone:.1f} s, ratio {together / alone:.2f} (to reach: 1.5); each "
        f"from the farm's machine alone: {arguments.machines}.0",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
