"""Discovery methods against circuits that are known beforehand (`circuits.planted`)."""

from circuits.evaluation.groundtruth.methods import METHODS_ON_TRUTH, Case, recover
from circuits.evaluation.groundtruth.recovery import Recovery, auroc, precision_recall

__all__ = ["METHODS_ON_TRUTH", "Case", "Recovery", "auroc", "precision_recall", "recover"]
