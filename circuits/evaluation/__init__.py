"""What a model, a circuit or an edit is worth, in numbers."""

from circuits.evaluation.answers import KNOWN_RANK, Answers, standalone, whole_model

__all__ = ["KNOWN_RANK", "Answers", "standalone", "whole_model"]
