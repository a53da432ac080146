"""Edits of what a model knows, as values: made by a method, put on a model in a ``with``, added, saved and read."""

from circuits.editing.adapter import AdapterEdit
from circuits.editing.corpus import Corpus
from circuits.editing.edit import Edit, EditError, EditProvenance, WrongModel
from circuits.editing.finetune import FineTuneHyper, ft_l, ft_m
from circuits.editing.loading import load_edit
from circuits.editing.memit import MemitHyper, memit
from circuits.editing.memoe import MemoeHyper, memoe
from circuits.editing.method import IdentityCovariance, Method
from circuits.editing.methods import HYPERS, METHODS, default_hyper
from circuits.editing.restrain import restrain
from circuits.editing.rome import RomeHyper, rome
from circuits.editing.statistics import Statistics
from circuits.editing.weight_edit import Delta, Dense, LowRank, WeightEdit

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
