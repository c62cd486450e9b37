"""What a step of a large transformer costs with its weights in each format, resident, streamed or from files.

Random weights in the stored format, written to ``--folder`` once; every case in a process of its own, capped
where it is streamed; the stock transformer in 16 bits, resident, runs in the same call. Prints a JSON list:
seconds a step (the median), ratio to stock, reserved bytes of the card, what the process holds of host memory
(``rss``; ``pinned`` is within it) and the format's bytes.

    python benchmarks/engines/weight_formats.py --folder /scratch --formats plain,int8,float8,Q4_K
    python benchmarks/engines/weight_formats.py --tiny --device cpu   # tries the programme, measures nothing

The weights of the second expert may be the same files: host memory of two is asked for with ``--experts 2``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: The published configs, but for what is default.
A14B = {"in_channels": 36, "out_channels": 16, "num_layers": 40, "num_attention_heads": 40, "ffn_dim": 13824}
TINY = {"in_channels": 36, "out_channels": 16, "num_layers": 2, "num_attention_heads": 2, "ffn_dim": 512}
PLACES = ("resident", "ring", "files")


def write_weights(folder: Path, kind: str, config: dict[str, int], dtype: Any) -> None:
    """Random weights of a transformer in one format, block by block; nothing is done where they are."""
    import gguf
    import numpy as np
    import torch
    from diffusers import WanTransformer3DModel
    from safetensors.torch import save_file

    from nodes.engines.common import reading
    from nodes.engines.weights import BLOCKS, kept_by

    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with reading(), torch.device("meta"):
        model = WanTransformer3DModel(**config)
    model.save_config(folder)
    kept, rng = kept_by(WanTransformer3DModel, dtype), np.random.default_rng(1)
    writer = gguf.GGUFWriter(folder / "model.gguf", "wan", use_temp_file=True) if kind in BLOCKS else None
    shard: dict[str, Any] = {}
    for number, (name, empty) in enumerate(model.state_dict().items()):
        plain = torch.float32 if kept.is_float32(name) else dtype
        if kind == "plain" or not kept.quantises(name, tuple(empty.shape)):
            tensor = torch.from_numpy(rng.standard_normal(empty.shape, dtype=np.float32)) * 0.02
            if writer is None:
                shard[name] = tensor.to(plain)
            else:
                writer.add_tensor(name, tensor.numpy())
        elif writer is None:
            data = torch.from_numpy(rng.integers(-96, 96, empty.shape, dtype=np.int8))
            # Of float8, any bits but those of NaN.
            shard[name.replace("weight", "stored")] = (
                data if kind == "int8" else data.abs().view(torch.float8_e4m3fn)
            )
            shard[name.replace("weight", "scale")] = torch.full((empty.shape[0], 1), 4e-4)
        else:
            block_bytes, values, _ = BLOCKS[kind]
            blocks = rng.integers(
                0, 256, (empty.shape[0], empty.shape[1] // values, block_bytes), dtype=np.uint8
            )
            # The float16 scales at either end of a block: small numbers.
            for at in {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q8_0": (0,)}[kind]:
                blocks[:, :, at : at + 2] = np.frombuffer(np.float16(1e-4).tobytes(), np.uint8)
            type_of = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, blocks.reshape(empty.shape[0], -1), raw_dtype=type_of)
        if writer is None and sum(tensor.nbytes for tensor in shard.values()) > 2**30:
            save_file(shard, folder / f"part-{number:05}.safetensors")
            shard = {}
    if writer is None:
        save_file(shard, folder / "part-99999.safetensors")
    else:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    (folder / "done").touch()


def measure(args: argparse.Namespace, kind: str, place: str) -> dict[str, Any]:
    """One case, in this process."""
    import torch
    from diffusers import WanTransformer3DModel

    from nodes.engines.common import reading
    from nodes.engines.folders import file_tensors
    from nodes.engines.memory import cap_process, peak_rss_bytes
    from nodes.engines.placement import RING_GROUP_BYTES, RING_SLOTS
    from nodes.engines.streaming import WeightRing
    from nodes.engines.weights import load_weights

    cuda = args.device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    if cuda and place != "resident":
        cap_process(int(args.cap_gib * 2**30))
    folder = args.folder / kind
    tensors = {}
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.gguf")):
        tensors |= file_tensors(path)
    with reading():
        experts: list[Any] = [
            load_weights(WanTransformer3DModel, folder, tensors, dtype=dtype) for _ in range(args.experts)
        ]
    rings = []
    for expert in experts:
        if place == "resident":
            expert.to(args.device)
        else:
            rings.append(
                WeightRing(
                    expert,
                    args.device,
                    group_bytes=RING_GROUP_BYTES,
                    slots=RING_SLOTS,
                    from_files=place == "files",
                )
            )
        if args.compile:
            expert.compile_repeated_blocks()
    width, height, frames = args.size
    torch.manual_seed(0)
    latents = torch.randn(1, experts[0].config.in_channels, (frames - 1) // 4 + 1, height // 8, width // 8)
    text = torch.randn(1, 512, 4096)
    latents, text = latents.to(args.device, dtype), text.to(args.device, dtype)
    seconds = []
    with torch.no_grad():
        for number in range(args.steps + 1):
            index = number % len(experts)
            if rings:
                rings[index].__enter__()
            start = time.perf_counter()
            out = experts[index](latents, torch.tensor([700.0], device=args.device), text, return_dict=False)[
                0
            ]
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
            if rings:
                rings[index].__exit__(None, None, None)
            assert out.isfinite().all()
    return {
        "format": kind,
        "place": place,
        "experts": args.experts,
        "seconds_a_step": statistics.median(seconds[1:]),
        "stored_bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "pinned_bytes": sum(ring._pinned.bytes.nbytes for ring in rings if ring._pinned is not None),
        "peak_rss_bytes": peak_rss_bytes(),
        "reserved_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where the weights are written: 8 to 29 GB a format")
    parser.add_argument("--formats", default="plain,int8,float8,Q4_K")
    parser.add_argument("--places", default=",".join(PLACES))
    parser.add_argument("--size", default="832x480x81", type=lambda text: tuple(map(int, text.split("x"))))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--experts", type=int, default=1)
    parser.add_argument("--cap-gib", type=float, default=6.0, help="of the card, where weights are streamed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args, *args.case.split("/"))))
        return
    if args.tiny:
        args.size, args.steps = (64, 64, 9), 2
    with tempfile.TemporaryDirectory() as scratch:
        args.folder = args.folder or Path(scratch)
        run_cases(args)


def run_cases(args: argparse.Namespace) -> None:
    import torch

    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    formats = args.formats.split(",")
    results: list[dict[str, Any]] = []
    # Stock: the transformer of diffusers with plain weights, on the card.
    for kind, place in [("plain", "resident"), *((f, p) for f in formats for p in args.places.split(","))]:
        if results and (kind, place) == ("plain", "resident"):
            continue
        write_weights(args.folder / kind, kind, TINY if args.tiny else A14B, dtype)
        options = ["--folder", str(args.folder), "--case", f"{kind}/{place}", "--device", args.device]
        options += ["--size", "x".join(map(str, args.size)), "--steps", str(args.steps)]
        options += ["--experts", str(args.experts), "--cap-gib", str(args.cap_gib)]
        options += ["--compile"] if args.compile else []
        child = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True)
        if child.returncode:
            found: dict[str, Any] = {"format": kind, "place": place, "failed": child.stderr.strip()[-300:]}
        else:
            found = json.loads(child.stdout.splitlines()[-1])
            stock = results[0] if results else found
            found["of_stock"] = found["seconds_a_step"] / stock.get("seconds_a_step", float("nan"))
        results.append(found)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
