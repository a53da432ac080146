"""Edits of what a model knows, as values: made by a method, put on a model in a ``with``, added, saved and read."""

from circuits.editing.bypass import Affine, BypassEdit
from circuits.editing.corpus import Corpus
from circuits.editing.covariance import IdentityCovariance
from circuits.editing.delta import Delta, Dense, LowRank, WeightEdit
from circuits.editing.edit import Edit, EditError, EditProvenance, WrongModel
from circuits.editing.loading import load_edit
from circuits.editing.method import Method
from circuits.editing.methods.finetune import FineTuneOptions, ft_l, ft_m
from circuits.editing.methods.memit import MemitOptions, memit
from circuits.editing.methods.memoe import MemoeOptions, memoe, memoe_scoped
from circuits.editing.methods.rome import RomeOptions, rome
from circuits.editing.methods.table import METHODS, UnknownMethod, find_method
from circuits.editing.prompt import PromptEdit
from circuits.editing.prune import restrain
from circuits.editing.resources import Resources
from circuits.editing.routed import RoutedEdit

__all__ = [
    "METHODS",
    "Affine",
    "BypassEdit",
    "Corpus",
    "Delta",
    "Dense",
    "Edit",
    "EditError",
    "EditProvenance",
    "FineTuneOptions",
    "IdentityCovariance",
    "LowRank",
    "MemitOptions",
    "MemoeOptions",
    "Method",
    "PromptEdit",
    "Resources",
    "RomeOptions",
    "RoutedEdit",
    "UnknownMethod",
    "WeightEdit",
    "WrongModel",
    "find_method",
    "ft_l",
    "ft_m",
    "load_edit",
    "memit",
    "memoe",
    "memoe_scoped",
    "restrain",
    "rome",
]
