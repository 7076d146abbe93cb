"""One call: its tensors in the terms of the kernels, and how a kernel is launched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnorm.backends.plan import Plan, compute_dtype
from seqnorm.backends.triton.blocks import Block, Shape, ceil_div
from seqnorm.backends.triton.language import tl

__all__ = ["Job", "aligned", "launch"]


class Job:
    """What is common to all launches of one call."""

    def __init__(self, x: Tensor, valid: Tensor | None, plan: Plan) -> None:
        self.shape = Shape.of(x, plan)
        self.plan = plan
        self.width = self.shape.groups * self.shape.channels
        self.sets = plan.sets(x)
        self.compute = compute_dtype(x)
        self.device = x.device
        holes = valid is not None and valid.dtype == torch.bool
        self.valid = aligned(valid.view(torch.uint8) if valid is not None and holes else valid)
        self.constants: dict[str, Any] = {
            "NCL": self.shape.ncl,
            "VEC": self.shape.vector,
            "HOLES": holes,
            "COMPUTE": tl.float64 if self.compute == torch.float64 else tl.float32,
        }

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Memory for results."""
        return torch.empty(shape, dtype=dtype or self.compute, device=self.device)

    def launch(
        self, kernel: Any, block: Block, *tensors: Any, rows: int | None = None, **constants: Any
    ) -> None:
        """One program for each tile of each group of each of ``rows`` samples."""
        across, along = block.tiles(self.shape)
        along = ceil_div(along, constants.get("STEPS", 1))
        rows = self.shape.samples if rows is None else rows
        launch(
            kernel, rows * self.shape.groups * across * along, block.warps,
            *tensors, *self.shape.sizes,
            BC=block.channels, BL=block.positions, **self.constants, **constants,
        )  # fmt: skip

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Memory for mean and variance."""
        mean, var = (self.empty(*self.sets, dtype=torch.float64) for _ in range(2))
        return mean, var

    def parts(self, block: Block, blocks_of_samples: int) -> tuple[int, int, int]:
        """Outer, parts and inner: how partial results of tiles lie in memory."""
        shape, (across, along) = self.shape, block.tiles(self.shape)
        if self.plan.over == "C":
            outer = shape.samples * shape.groups
            return (outer, across, shape.length) if shape.ncl else (outer * shape.length, across, 1)
        if self.plan.over == "CL":
            return shape.samples * shape.groups, across * along, 1
        if self.plan.over == "L":
            return shape.samples, along, self.width
        return 1, blocks_of_samples * along, self.width

    def counts(self) -> Tensor | int:
        """How many positions of each sample are valid."""
        if self.valid is None:
            return self.shape.length
        return self.valid.sum(1) if self.constants["HOLES"] else self.valid


def aligned(tensor: Tensor | None) -> Tensor | None:
    """Contiguous from a multiple of 16 bytes on, whatever view of other memory it was.

    Code for another alignment adds in another order: one sample of a batch would get other bits.
    """
    if tensor is None:
        return None
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def launch(kernel: Any, programs: int, warps: int, *arguments: Any, **constants: Any) -> None:
    """Run a kernel."""
    # Fusing a multiplication and an addition is said aloud: Triton is about to change its default.
    kernel[(programs,)](*arguments, num_warps=warps, enable_fp_fusion=True, **constants)
