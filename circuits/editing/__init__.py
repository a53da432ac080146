"""Edits of what a model knows, as values: made by a method, put on a model in a ``with``, added, saved and read."""

from circuits.editing.bypass import AdapterEdit
from circuits.editing.corpus import Corpus
from circuits.editing.delta import Delta, Dense, LowRank, WeightEdit
from circuits.editing.edit import Edit, EditError, EditProvenance, WrongModel
from circuits.editing.loading import load_edit
from circuits.editing.method import IdentityCovariance, Method
from circuits.editing.methods.finetune import FineTuneHyper, ft_l, ft_m
from circuits.editing.methods.memit import MemitHyper, memit
from circuits.editing.methods.memoe import MemoeHyper, memoe
from circuits.editing.methods.rome import RomeHyper, rome
from circuits.editing.methods.table import HYPERS, METHODS, default_hyper
from circuits.editing.moments import Statistics
from circuits.editing.prune import restrain

__all__ = [
    "HYPERS",
    "METHODS",
    "AdapterEdit",
    "Corpus",
    "Delta",
    "Dense",
    "Edit",
    "EditError",
    "EditProvenance",
    "FineTuneHyper",
    "IdentityCovariance",
    "LowRank",
    "MemitHyper",
    "MemoeHyper",
    "Method",
    "RomeHyper",
    "Statistics",
    "WeightEdit",
    "WrongModel",
    "default_hyper",
    "ft_l",
    "ft_m",
    "load_edit",
    "memit",
    "memoe",
    "restrain",
    "rome",
]
