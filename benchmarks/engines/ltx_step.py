"""A step of LTX-Video 2B on a card, 704x480x161, random weights: the stock transformer beside the engine's.

Prints seconds, the rate beside that of a product of matrices in the same run, and the distance to stock.
The rate counts 2 operations for a weight and token and 4 for a pair of tokens and channel.

    python benchmarks/engines/ltx_step.py
    python benchmarks/engines/ltx_step.py --tiny   # the same path on a CPU
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nodes.engines.ltx.transformer import RunwiseTransformer, rotary_table
from nodes.engines.tokens import Pointwise, runs_of

_TINY = {
    "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "cross_attention_dim": 32,
    "caption_channels": 64, "in_channels": 8, "out_channels": 8,
}  # fmt: skip
_PROMPT_TOKENS = 128
_ROUNDS = 7


def transformer(config: dict[str, int], device: str, dtype: torch.dtype) -> torch.nn.Module:
    """One of random weights, those kept in float32 as diffusers keeps them."""
    from diffusers import LTXVideoTransformer3DModel

    torch.manual_seed(0)
    with torch.device("meta"):
        made = LTXVideoTransformer3DModel(**config)
    made = made.to(dtype).to_empty(device=device)
    kept = set(made._keep_in_fp32_modules or ())
    for name, parameter in made.named_parameters():
        if kept & set(name.split(".")):
            parameter.data = parameter.data.float()
        parameter.data.normal_(0, 0.02)
    return made.eval().requires_grad_(False)


def seconds(call: Callable[[], object], device: str) -> float:
    """Median of some calls after the first, which may compile."""

    def timed() -> float:
        begun = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    timed()
    return statistics.median(timed() for _ in range(_ROUNDS))


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a product of square matrices."""
    side = 8192 if device == "cuda" else 512
    square = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / seconds(lambda: square @ square, device)


def distance_db(made: torch.Tensor, wanted: torch.Tensor) -> float:
    """Peak over error: the peak is the range of what is wanted."""
    made, wanted = made.float(), wanted.float()
    return float(10 * torch.log10((wanted.max() - wanted.min()) ** 2 / ((made - wanted) ** 2).mean()))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU")
    is_tiny = parser.parse_args().tiny
    device, dtype = ("cpu", torch.float32) if is_tiny else ("cuda", torch.bfloat16)
    grid = (3, 2, 3) if is_tiny else (21, 15, 22)  # latents: 704x480x161 at 32 pixels and 8 frames each
    model = transformer(_TINY if is_tiny else {}, device, dtype)
    config, tokens, per_frame = model.config, grid[0] * grid[1] * grid[2], grid[1] * grid[2]
    width = config.num_attention_heads * config.attention_head_dim
    weights = sum(p.numel() for p in model.transformer_blocks.parameters())
    operations = 2 * weights * tokens + 4 * tokens**2 * width * config.num_layers
    rate = matrix_rate(device, dtype)
    print(f"{torch.__version__}, product of matrices {rate / 1e12:.3g} TFLOP/s; {tokens} tokens")

    latents = torch.randn(1, tokens, config.in_channels, device=device, dtype=dtype)
    prompt = torch.randn(1, _PROMPT_TOKENS, config.caption_channels, device=device, dtype=dtype)
    mask = torch.ones(1, _PROMPT_TOKENS, device=device, dtype=torch.int64)
    axes = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    places = torch.stack([axis.flatten().float() for axis in axes]).to(device)

    def stock(timestep: torch.Tensor) -> torch.Tensor:
        return model(latents, prompt, timestep, mask, video_coords=places[None], return_dict=False)[0]

    def told(name: str, call: Callable[[], object]) -> None:
        took = seconds(call, device)
        print(f"{name:40s} {took:.4f} s  {operations / took / rate:.3f} of the matrices' rate", flush=True)

    one = torch.tensor([700.0], device=device)
    each = torch.full((1, tokens), 700.0, device=device)
    each[:, :per_frame] = 0  # the first frame is given
    told("stock, one timestep", lambda: stock(one))
    told("stock, a timestep for each token", lambda: stock(each))
    wanted = stock(each)
    if device == "cuda":
        model.compile_repeated_blocks(fullgraph=True)
        told("stock, one timestep, compiled", lambda: stock(one))
        for block in model.transformer_blocks:
            block._compiled_call_impl = None

    distinct, runs = runs_of([0.0] + [700.0] * (grid[0] - 1), per_frame)
    between = Pointwise(8192)
    engine = RunwiseTransformer(model, between)
    levels, rotary = torch.tensor(distinct, device=device), rotary_table(model.rope, places)

    def ours() -> torch.Tensor:
        return engine(latents, prompt, levels, runs, rotary)

    told("ours, each frame's own timestep", ours)
    print(f"    {distance_db(ours(), wanted):.0f} dB to stock")
    if device == "cuda":
        between.compiled = True
        told("ours, compiled", ours)
        print(f"    {distance_db(ours(), wanted):.0f} dB to stock")


if __name__ == "__main__":
    main()
