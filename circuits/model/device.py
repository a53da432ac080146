"""Where tensors live, asked of this machine before a model is loaded there."""

import torch


class DeviceError(ValueError):
    """A device that this machine does not have, or a word that is none."""


def require_device(name: str) -> None:
    """Raises:
    DeviceError: no such device, or none that holds numbers.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"expected a device such as cpu, cuda or cuda:1, got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"no CUDA device is at hand for {name}; cpu needs none")
    try:
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        raise DeviceError(f"this machine has no device {name} that torch can compute on; cpu always works") from None
