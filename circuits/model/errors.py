"""What can be wrong with a model."""


class UnknownWeight(ValueError):
    """A name that is not one of a weight that edits can change."""


class ModelError(ValueError):
    """A model that cannot be loaded, or that has no exact residual rewrite over heads; the message says which."""
