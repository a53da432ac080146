"""Where files lie: those that ship with the package, and the user's cache."""

import os
from pathlib import Path

CACHE_VARIABLE = "KCIRCUIT_CACHE"


def data_dir() -> Path:
    """The folder that holds ``facts/`` and ``models/``: in a checkout ``data/``, in a wheel inside the package."""
    package = Path(__file__).resolve().parent
    for folder in (package / "data", package.parent / "data"):
        if (folder / "facts").is_dir():
            return folder
    raise FileNotFoundError(f"expected the project's data beside {package} or inside it; the installation is damaged")


def cache_dir() -> Path:
    """The user's cache folder of this project, or the one that ``KCIRCUIT_CACHE`` names. It need not exist."""
    import platformdirs

    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).absolute() if named else Path(platformdirs.user_cache_dir("kcircuit", appauthor=False))


FACTLM = "factlm"
"""The name of the model that a command takes where none is named."""


def factlm_dir() -> Path:
    """The folder of the embedded model."""
    return data_dir() / "models" / FACTLM
