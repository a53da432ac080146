"""How factlm is trained: the phases, one after another."""

from dataclasses import dataclass

LOCAL_LAYERS = 2
LOCALITY_PRICE = 1.0
"""Nats for each token that the average head of the first layers looks away from its own position."""
EPOCHS_BETWEEN_RISES = 6
RISE = 4
"""The price is multiplied by so much each time: the little attention that is left is where it carries the most."""


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    epochs: int
    peak_learning_rate: float
    locality_price: float

    @property
    def file(self) -> str:
        return f"{self.name}.safetensors"

    def price(self, epoch: int) -> float:
        """Nats in this epoch of the phase, counted from 0."""
        return self.locality_price * RISE ** (epoch // EPOCHS_BETWEEN_RISES)


PHASES = (Phase("plain", 45, 2e-3, 0.0), Phase("local", 15, 1e-3, LOCALITY_PRICE))
"""Each starts from the half-precision weights that the one before it wrote, with a new optimizer."""
