"""What can be wrong with a model."""


class ModelError(ValueError):
    """A model that cannot be loaded, or that has no exact residual rewrite over heads; the message says which."""
