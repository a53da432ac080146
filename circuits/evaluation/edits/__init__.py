"""What an edit is worth: success, generality, portability, locality, fluency, and how answers fail."""

from circuits.evaluation.continuations import Continuation, completion, read
from circuits.evaluation.edits.cases import CaseResult, EditCase, FluencySetting, QuestionOutcome, Reply, ask, prepare
from circuits.evaluation.edits.evaluate import Checkpoint, Evaluation, Make, Restrain, Restrained, evaluate
from circuits.evaluation.edits.failures import classify
from circuits.evaluation.edits.questions import GROUPS, Question, questions
from circuits.evaluation.edits.regimes import EVAL_AT, SINGLE, EvalAt, Regime, RegimeError
from circuits.evaluation.edits.report import EditMetric, Shares, failure_counts, find_metric, tabulate
from circuits.evaluation.edits.retention import Retention

__all__ = [
    "EVAL_AT",
    "GROUPS",
    "SINGLE",
    "CaseResult",
    "Checkpoint",
    "Continuation",
    "EditCase",
    "EditMetric",
    "EvalAt",
    "Evaluation",
    "FluencySetting",
    "Make",
    "Question",
    "QuestionOutcome",
    "Regime",
    "RegimeError",
    "Reply",
    "Restrain",
    "Restrained",
    "Retention",
    "Shares",
    "ask",
    "classify",
    "completion",
    "evaluate",
    "failure_counts",
    "find_metric",
    "prepare",
    "questions",
    "read",
    "tabulate",
]
