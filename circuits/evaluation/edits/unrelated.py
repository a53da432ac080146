"""Which text no edit is about."""

from collections.abc import Iterable, Iterator, Sequence

from circuits.evaluation.edits.failures import contains
from circuits.facts import EditRequest


def unrelated(documents: Iterable[str], requests: Sequence[EditRequest]) -> Iterator[str]:
    """Those that name no subject, old or new object of any request, as whole words."""
    named = {name for one in requests for name in (one.subject, one.old, one.target) if name is not None}
    return (text for text in documents if not any(contains(text, name) for name in named))
