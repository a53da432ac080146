"""What a reader does to its input first."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

NormKind = Literal["none", "layer", "rms"]


@dataclass(frozen=True)
class Norm:
    """What a reader does to its input first: nothing, layer norm, or RMS norm; then times ``weight``, plus ``bias``."""

    kind: NormKind = "none"
    weight: Float[Tensor, "d"] | None = None
    bias: Float[Tensor, "d"] | None = None
    eps: float = 0.0

    def __call__(self, x: Float[Tensor, "*rest d"]) -> Float[Tensor, "*rest d"]:
        if self.kind == "none":
            return x
        # In float32 whatever the model's type is, as HuggingFace does.
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        if self.kind == "layer":
            wide = wide - wide.mean(-1, keepdim=True)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        if self.weight is not None:
            wide = wide * self.weight
        if self.bias is not None:
            wide = wide + self.bias
        return wide.to(x.dtype)

    def share(self, part: Float[Tensor, "*#rest d"], whole: Float[Tensor, "*#rest d"]) -> Float[Tensor, "*_ d"]:
        """What ``part`` becomes in the norm of ``whole``, whose scale is held: linear in ``part``.

        Law: the shares of parts that add up to ``whole`` add up to ``self(whole) - bias``.
        """
        if self.kind == "none":
            return part
        if self.kind == "layer":
            part, whole = part - part.mean(-1, keepdim=True), whole - whole.mean(-1, keepdim=True)
        share = part * torch.rsqrt(whole.square().mean(-1, keepdim=True) + self.eps)
        return share if self.weight is None else share * self.weight


NO_NORM = Norm()
