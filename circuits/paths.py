"""Where the files that ship with the package lie: in a checkout under ``data/``, in a wheel inside the package."""

from pathlib import Path


def data_dir() -> Path:
    """The folder that holds ``facts/`` and ``models/``."""
    package = Path(__file__).resolve().parent
    for folder in (package / "data", package.parent / "data"):
        if (folder / "facts").is_dir():
            return folder
    raise FileNotFoundError(f"expected the project's data beside {package} or inside it; the installation is damaged")


FACTLM = "factlm"


def factlm_dir() -> Path:
    """The folder of the embedded model."""
    return data_dir() / "models" / FACTLM
