"""A pretrained transformer that circuits can be found in: its weights, its vocabulary, its forward pass."""

from circuits.model.batch import Batch
from circuits.model.errors import ModelError
from circuits.model.hub import Processing
from circuits.model.model import Model
from circuits.model.profile import Profile
from circuits.model.text import ContextError, OutputVocabulary, Tokens, Vocabulary, WordVocabulary

__all__ = [
    "Batch",
    "ContextError",
    "Model",
    "ModelError",
    "OutputVocabulary",
    "Processing",
    "Profile",
    "Tokens",
    "Vocabulary",
    "WordVocabulary",
]
