"""Linear layers whose weights are kept in fewer bits and dequantised for the moment they compute.

The matrix product runs in the dtype of the input, as it does with 16-bit weights; only what is held and moved
is smaller. The bytes are ``uint8``: whatever moves or casts a module leaves them alone, and a weight ring
streams them as any other parameter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional

from nodes.engines.folders import WeightFormat

#: The largest value of each format: what the largest weight of an output channel becomes.
_LARGEST = {"float8": 448.0, "int8": 127.0}


class QuantisedLinear(nn.Module, ABC):
    """A linear layer (..., in) to (..., out) that dequantises its weight at every call.

    Args:
        in_features, out_features: As of ``nn.Linear``.
        stored: The weight's bytes (out, bytes of a row), uint8.
        bias: (out,) or None.
        dtype: What ``weight`` looks like to code that asks a layer for its weight's dtype.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stored: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.dtype = dtype
        self.stored = nn.Parameter(stored, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        #: A low-rank branch beside the weight: (rank, in) and (out, rank), its scale within.
        self.lora_down: nn.Parameter | None = None
        self.lora_up: nn.Parameter | None = None

    @abstractmethod
    def dequantised(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight (out, in) without the branch, computed in float32 and rounded once to ``dtype``."""

    @property
    def weight(self) -> torch.Tensor:
        """The weight (out, in), made at every access."""
        return self.dequantised(self.dtype)

    def set_branch(self, down: torch.Tensor, up: torch.Tensor) -> None:
        """Add ``up @ down`` to the weight, as a branch of the layer: (rank, in) and (out, rank)."""
        self.lora_down = nn.Parameter(down, requires_grad=False)
        self.lora_up = nn.Parameter(up, requires_grad=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dtype = hidden_states.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        out = functional.linear(hidden_states, self.dequantised(dtype), bias)
        if self.lora_down is not None and self.lora_up is not None:
            low = functional.linear(hidden_states, self.lora_down.to(dtype))
            out.view(-1, self.out_features).addmm_(low.flatten(0, -2), self.lora_up.to(dtype).t())
        return out

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class ScaledLinear(QuantisedLinear):
    """A linear layer stored as float8 (e4m3) or int8 with a scale for each output channel.

    Args:
        format: "float8" or "int8".
        scale: (out, 1) float32: a weight is its stored value times this.
    """

    def __init__(
        self,
        stored: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        format: WeightFormat,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(stored.shape[1], stored.shape[0], stored.view(torch.uint8), bias, dtype=dtype)
        self.format = format
        self.scale = nn.Parameter(scale, requires_grad=False)

    def dequantised(self, dtype: torch.dtype) -> torch.Tensor:
        # One kernel reads bytes and writes the product; promotion is not defined for float8, whose values
        # all fit into 16 bits.
        if self.format == "int8":
            out = torch.empty(self.stored.shape, dtype=dtype, device=self.stored.device)
            return torch.mul(self.stored.view(torch.int8), self.scale, out=out)
        return self.stored.view(torch.float8_e4m3fn).to(dtype).mul_(self.scale)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, format={self.format}"


def quantised(weight: torch.Tensor, format: WeightFormat) -> tuple[torch.Tensor, torch.Tensor]:
    """What is stored of some rows of a weight.

    Args:
        weight: (rows, in) float32.
        format: "float8" or "int8".

    Returns:
        (rows, in) float8_e4m3fn or int8, and the scales (rows, 1) float32.
    """
    largest = _LARGEST[format]
    scale = weight.abs().amax(dim=1, keepdim=True) / largest
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    units = (weight / scale).clamp_(-largest, largest)
    return (units.round_().to(torch.int8) if format == "int8" else units.to(torch.float8_e4m3fn)), scale
