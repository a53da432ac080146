"""Matrix products by the library that is fastest on this processor.

PyTorch's float32 products on x86 go to Intel's MKL, which takes a path of half the speed on processors of other makers;
oneDNN, which PyTorch brings along for its compiler, does not. Where that is so, products with enough rows go to oneDNN. The
choice depends on the processor and the shapes alone, so a machine gives the same bits each time.
"""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGE = 2**22
"""From so many multiplications a matrix, a stack of matrices goes faster one by one through oneDNN than at once through MKL."""


@cache
def prefers_onednn() -> bool:
    """Whether float32 products are faster in oneDNN here: an x86 processor that is not Intel's, PyTorch built with MKL."""
    if not torch.backends.mkl.is_available() or not torch.backends.mkldnn.is_available():
        return False
    return _maker() not in ("GenuineIntel", "") and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@contextmanager
def plain() -> Iterator[None]:
    """Inside, all products are PyTorch's own: what the others are compared with."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


_plain = False


def _maker() -> str:
    """The processor's maker as x86 processors name it; empty where it is not told."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else platform.processor().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    return names[0] if names else ""


def times(x: Float[Tensor, "*rows d_in"], weight: Float[Tensor, "d_in d_out"]) -> Float[Tensor, "*rows d_out"]:
    """x W, with its gradients."""
    if not _faster_in_onednn(x):
        return x @ weight
    return _Product.apply(x, weight) if torch.is_grad_enabled() else _onednn(x, weight)


def each_times(
    x: Float[Tensor, "matrix rows d_in"] | Sequence[Float[Tensor, "rows d_in"]],
    weight: Float[Tensor, "matrix d_in d_out"] | Sequence[Float[Tensor, "d_in d_out"]],
    out: Float[Tensor, "matrix rows d_out"] | None = None,
) -> Float[Tensor, "matrix rows d_out"]:
    """x[i] W[i] of every i, written into ``out`` where that is given. Lists of matrices are not copied where that can be spared."""
    at_once = len(x) > 1 and x[0].numel() * weight[0].shape[1] < LARGE
    # One by one, they would each need a gradient of their own.
    if torch.is_grad_enabled() or at_once or not _faster_in_onednn(x[0]):
        return torch.bmm(_stack(x), _stack(weight)) if out is None else torch.bmm(_stack(x), _stack(weight), out=out)
    parts = [_onednn(rows, own) for rows, own in zip(x, weight, strict=True)]
    return torch.stack(parts) if out is None else torch.stack(parts, out=out)


def _stack(matrices: Tensor | Sequence[Tensor]) -> Tensor:
    return matrices if isinstance(matrices, Tensor) else torch.stack(tuple(matrices))


def _faster_in_onednn(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and prefers_onednn() and not _plain


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    # Its weight is [d_out, d_in], in any memory layout; the last three arguments are an operation to fuse: none.
    return torch.ops.mkldnn._linear_pointwise(x, weight.mT, None, "none", [], "")


class _Product(torch.autograd.Function):
    """x W, whose gradients are products of oneDNN too; these have no gradients of their own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, slope: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        rows = slope.reshape(-1, slope.shape[-1])
        return (
            _onednn(slope, weight.mT) if of_x else None,
            _onednn(x.reshape(-1, x.shape[-1]).mT, rows) if of_weight else None,
        )
