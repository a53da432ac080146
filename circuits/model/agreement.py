"""Whether two ways of running one model give the same logits: one rule, for all who run it in a way of their own."""

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 1e-3
"""Largest difference of a logit that is trusted, as a share of the spread (standard deviation) of its position's logits."""
ROUNDINGS = 64
"""The same in roundings (machine epsilons) of the coarser of the two types, where that is more: half precision."""
FLAT = 1e-2
"""A position whose logits are spread less than this share of the widest position's is judged by that share: rounding may be
all that its logits differ by."""


def tolerance(own: torch.dtype, theirs: torch.dtype) -> float:
    return max(TOLERANCE, ROUNDINGS * max(torch.finfo(own).eps, torch.finfo(theirs).eps))


def disagreement(own: Float[Tensor, "*rest d_vocab"], theirs: Float[Tensor, "*rest d_vocab"]) -> str | None:
    """How two models' logits on the same ids differ, to end an error's sentence; None where they agree.

    Each position is judged by its own scale: the spread of its logits, or the size of its only one.
    """
    allowed = tolerance(own.dtype, theirs.dtype)
    own, theirs = own.double(), theirs.to(own.device).double()
    spread = theirs.std(-1, correction=0) if theirs.shape[-1] > 1 else theirs.abs().squeeze(-1)
    scale = spread.clamp_min(float(FLAT * spread.max())).clamp_min(torch.finfo(torch.double).tiny)
    off = float(((own - theirs).abs().amax(-1) / scale).max())
    # Negated, so that logits that are not finite agree with nothing.
    return None if off <= allowed else f"off by {off:.1e} of a position's spread, and {allowed:.0e} is allowed"
