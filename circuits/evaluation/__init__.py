"""What a model, a circuit or an edit is worth, in numbers: answers, faithfulness, knockouts, the certificate.

Every measure has its one owner here. What a component does is `circuits.analysis`'; measures over many cases are a study's.
"""

from circuits.evaluation.answers import (
    KNOWN_RANK,
    AlikeAnswers,
    Answers,
    distinct_beginnings,
    known,
    require_distinct_beginnings,
    said,
    standalone,
    whole_model,
)

__all__ = [
    "KNOWN_RANK",
    "AlikeAnswers",
    "Answers",
    "distinct_beginnings",
    "known",
    "require_distinct_beginnings",
    "said",
    "standalone",
    "whole_model",
]
