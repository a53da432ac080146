"""What an edit is worth: success, generality, portability, locality, fluency, and how answers fail."""

from circuits.evaluation.continuations import Reading, completion, read
from circuits.evaluation.edits.cases import Case, CaseResult, FluencySetting, Outcome, Reply, ask, prepare
from circuits.evaluation.edits.evaluate import Checkpoint, Evaluation, Make, Restrain, evaluate
from circuits.evaluation.edits.failures import classify
from circuits.evaluation.edits.questions import GROUPS, Question, questions
from circuits.evaluation.edits.regimes import EVAL_AT, SINGLE, EvalAt, Regime, RegimeError
from circuits.evaluation.edits.report import Row, Shares, failure_counts, find_row, tabulate
from circuits.evaluation.edits.retention import Retention

__all__ = [
    "EVAL_AT",
    "GROUPS",
    "SINGLE",
    "Case",
    "CaseResult",
    "Checkpoint",
    "EvalAt",
    "Evaluation",
    "FluencySetting",
    "Make",
    "Outcome",
    "Question",
    "Reading",
    "Regime",
    "RegimeError",
    "Reply",
    "Restrain",
    "Retention",
    "Row",
    "Shares",
    "ask",
    "classify",
    "completion",
    "evaluate",
    "failure_counts",
    "find_row",
    "prepare",
    "questions",
    "read",
    "tabulate",
]
