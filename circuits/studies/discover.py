"""Where these names were before they had files of their own; for callers that are on their way."""

from circuits.studies.run import Run, RunFileError
from circuits.studies.runs import certificate_of, run, run_sweep
from circuits.studies.search import UnknownFactError, engine_for, load_model, require_known, search, spec_digest
from circuits.studies.specs import RunSpec

__all__ = [
    "Run",
    "RunFileError",
    "RunSpec",
    "UnknownFactError",
    "certificate_of",
    "engine_for",
    "load_model",
    "require_known",
    "run",
    "run_sweep",
    "search",
    "spec_digest",
]
