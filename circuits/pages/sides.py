"""What the page of two circuits calls them: before and after where something was edited, by their own names elsewhere."""

from dataclasses import dataclass

from circuits.studies.diffs import CircuitDiff, Side


@dataclass(frozen=True, slots=True)
class SideNames:
    before: str
    after: str
    lost: str
    """Of an edge that the first circuit alone has."""
    gained: str
    """Of an edge that the second circuit alone has."""
    one_reading: bool
    """Whether both circuits stand in one model on one prompt: what is read from it is the same for both, and shown once."""

    @classmethod
    def of(cls, diff: CircuitDiff) -> "SideNames":
        if diff.differs == "edit":
            return cls("before", "after", "lost", "gained", False)
        before, after = diff.before.label, diff.after.label
        return cls(before, after, f"{before} only", f"{after} only", _read(diff.before) == _read(diff.after))


def _read(side: Side) -> tuple[object, ...]:
    """All that is read from the model and not from the circuit."""
    return side.fact.prompt, side.circuit.provenance.weights, side.edited, side.paths, side.writes


def headline(diff: CircuitDiff) -> str:
    """The second side's prompt with what its model puts first among the followed answers; without one, where none is first.

    So a page never says in its title what the model does not.
    """
    fact, first = diff.after.fact, [answer for answer in diff.after.answers if diff.after.path(answer).ranks[-1] == 1]
    if fact.object in first:
        return fact.statement
    return f"{fact.prompt} … {first[0]}" if first else f"{fact.prompt} …"
