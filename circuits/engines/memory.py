"""What a search will need, told before it starts: memory and time from the model's shape and the facts' lengths.

Memory is an upper bound, and the number of variants that run at once is chosen so that it fits. Time is the cost of
trying every edge with every node after it alive, at the speed of the machine's matrix products: circuits are sparse,
and a search usually takes a small part of it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from circuits.graph import Graph
from circuits.model.products import times
from circuits.model.transformer import Components

AT_ONCE = 2 * 2**30
"""Bytes that the variants of one batch take together, unless the caller says how many they may."""


class TooLargeError(ValueError):
    """A search that does not fit into the memory allowed; the message says what would."""


@dataclass(frozen=True)
class Sizes:
    """The numbers that decide what a search needs. ``groups`` are (facts, positions, answer tokens)."""

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    gated: bool
    n_writers: int
    n_edges: int
    groups: tuple[tuple[int, int, int], ...]
    bytes_per_number: int = 4
    positional_ablation: bool = False
    """Resample ablation keeps a value for every writer, fact and position; mean ablation for every writer and position."""

    @classmethod
    def of(
        cls,
        parts: Components,
        graph: Graph,
        groups: Sequence[tuple[int, int, int]],
        *,
        bytes_per_number: int,
        positional_ablation: bool = False,
    ) -> "Sizes":
        block = parts.blocks[0]
        return cls(
            n_layers=graph.shape.n_layers,
            n_heads=graph.shape.n_heads,
            d_model=parts.d_model,
            d_head=block.attention.W_Q.shape[2],
            d_mlp=block.mlp.W_in.shape[1],
            d_vocab=parts.d_vocab,
            gated=block.mlp.W_gate is not None,
            n_writers=len(graph.writers),
            n_edges=graph.n_edges,
            groups=tuple(groups),
            bytes_per_number=bytes_per_number,
            positional_ablation=positional_ablation,
        )

    # ---- memory ------------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> int:
        """Bytes of the engine's own copy of the weights, norms folded in."""
        attention = 4 * self.n_heads * self.d_model * self.d_head
        mlp = (3 if self.gated else 2) * self.d_model * self.d_mlp
        return self.bytes_per_number * (self.n_layers * (attention + mlp) + self.d_model * self.d_vocab)

    @property
    def values(self) -> int:
        """Bytes of what every node computes on the facts: of the current circuit, and of the clean run."""
        positions = sum(facts * pos for facts, pos, _ in self.groups)
        slots = 3 * self.n_layers * self.n_heads * self.d_head
        node = self.n_writers * self.d_model
        return self.bytes_per_number * positions * (2 * (node + slots) + (node if self.positional_ablation else 0))

    @property
    def fixed(self) -> int:
        return self.weights + self.values

    @property
    def per_variant(self) -> int:
        """Most bytes that one more variant can take: every node computed anew, and the temporaries of the widest step."""
        nodes = sum(f * (pos + answer) for f, pos, answer in self.groups) * self.n_writers * self.d_model
        widest = 0
        for facts, pos, answer in self.groups:
            heads = 3 * self.n_heads * facts * pos * (2 * self.d_model + 4 * self.d_head)
            mlp = facts * pos * (3 * self.d_mlp + 2 * self.d_model)
            logits = 2 * facts * answer * self.d_vocab
            widest = max(widest, heads, mlp, logits)
        return self.bytes_per_number * (nodes + widest)

    def peak(self, width: int) -> int:
        return self.fixed + width * self.per_variant

    def fit(self, width: int, max_memory: int) -> int:
        """The largest number of variants at once, up to ``width``, that fits.

        Raises:
            TooLargeError: not even one does.
        """
        most = (max_memory - self.fixed) // self.per_variant
        if most < 1:
            n_facts = sum(facts for facts, _, _ in self.groups)
            for_facts = self.peak(1) - self.weights
            room = max_memory - self.weights
            fits = int(n_facts * room / for_facts) if room > 0 else 0
            instead = (
                f"{fits} fact{'s' if fits > 1 else ''} of this length would fit"
                if fits
                else f"with --max-memory {readable(self.weights + for_facts // n_facts)} one fact would fit"
            )
            raise TooLargeError(
                f"a search over {n_facts} facts of up to {max(pos for _, pos, _ in self.groups)} tokens needs "
                f"{readable(self.peak(1))} at least, and {readable(max_memory)} is allowed: {instead}"
            )
        return min(width, most)

    def width(self, wanted: int, available: int) -> int:
        """How many variants run at once where nobody says how much memory they may take: those that fit into `AT_ONCE`.

        A function of model and facts alone: what happens to be free decides whether a search runs, and never how.

        Raises:
            TooLargeError: they do not fit into what is available.
        """
        width = max(1, min(wanted, AT_ONCE // self.per_variant))
        self.fit(1, available)
        if self.peak(width) > available:
            raise TooLargeError(
                f"a search {width} variants at once needs {readable(self.peak(width))}, and {readable(available)} is free: "
                f"--max-memory {readable(available).replace(' ', '')} runs it with fewer at once, to the same circuit"
            )
        return width

    # ---- time --------------------------------------------------------------------------------------------------------

    @property
    def operations(self) -> float:
        """Floating-point operations of trying every edge with every later node alive: an upper bound."""
        head = 8 * self.d_model * self.d_head
        mlp = (6 if self.gated else 4) * self.d_model * self.d_mlp
        layer = self.n_heads * head + mlp
        positions = sum(facts * pos for facts, pos, _ in self.groups)
        answers = sum(facts * answer for facts, _, answer in self.groups)
        total = 0.0
        for depth in range(self.n_layers):
            into = 3 * self.n_heads * (1 + depth * (self.n_heads + 1)) + 1 + depth * (self.n_heads + 1) + self.n_heads
            total += into * positions * (self.n_layers - depth - 0.5) * layer
        return total + self.n_edges * answers * 2.0 * self.d_model * self.d_vocab


@dataclass(frozen=True)
class Estimate:
    """The most that a search will take, how many variants it may run at once, and how long what follows it takes."""

    bytes: int
    seconds: float
    width: int
    afterwards: float = 0.0
    """Seconds from the end of the search to the end of the command."""

    @property
    def whole(self) -> float:
        """Seconds to the end of the command."""
        return self.seconds + self.afterwards

    def __str__(self) -> str:
        parts = (
            f" ({self.seconds:,.0f} s to search, {self.afterwards:,.0f} s for what follows)" if self.afterwards else ""
        )
        return f"at most {readable(self.bytes)} and {self.whole:,.0f} s{parts}, {self.width} variants at once"


def estimate(sizes: Sizes, width: int, device: torch.device) -> Estimate:
    """At the speed of the device, measured for a moment."""
    return Estimate(sizes.peak(width), sizes.operations / matmul_speed(device), width)


def available_memory(device: torch.device) -> int:
    """Bytes that can still be taken, with a tenth left free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.9 * free)
    free = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        # A container may allow less than the machine has.
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8"))
        # Files read before are counted as used, and given back where memory is asked for.
        lines = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="utf-8").splitlines()
        used -= sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        free += [int(limit) - used] if limit != "max" else []
    except OSError:
        pass
    return int(0.9 * min(free)) if free else 4 * 2**30


def matmul_speed(device: torch.device, seconds: float = 0.02, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations a second of a middling matrix product, measured for a moment by that clock."""
    a, b = torch.ones(256, 768, device=device), torch.ones(768, 768, device=device)
    done, started = 0, clock()
    while done < 2 or clock() - started < seconds:
        float(times(a, b)[0, 0])
        done += 1
    return done * 2 * a.shape[0] * a.shape[1] * b.shape[1] / (clock() - started)


_UNITS = {
    "kb": 2**10,
    "mb": 2**20,
    "gb": 2**30,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
}


def parse_bytes(text: str) -> int:
    """``"4GB"``, ``"500 MB"`` or a plain number of bytes."""
    number = text.strip().lower().rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text.strip().lower()[len(number) :].strip()
    try:
        amount = int(float(number) * (_UNITS[unit] if unit not in ("", "b") else 1))
        if amount <= 0:
            raise ValueError
        return amount
    except (ValueError, KeyError):
        raise ValueError(f"expected an amount of memory such as 4GB or 500MB, got {text!r}") from None


def readable(n_bytes: int) -> str:
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} bytes"
