"""A pretrained transformer that circuits can be found in: its weights, its vocabulary, its forward pass."""

from circuits.model.model import (
    ContextError,
    Model,
    ModelError,
    OutputVocabulary,
    Processing,
    Tokens,
    Vocabulary,
    WordVocabulary,
)

__all__ = [
    "ContextError",
    "Model",
    "ModelError",
    "OutputVocabulary",
    "Processing",
    "Tokens",
    "Vocabulary",
    "WordVocabulary",
]
