"""The editing methods, by name. A new one is a file beside this one, and one line here."""

from typing import Any

from circuits.by_name import ByName
from circuits.editing.edit import EditError
from circuits.editing.method import Method

METHODS: ByName[Method[Any, Any]] = ByName(
    {
        "rome": "circuits.editing.methods.rome:rome",
        "memit": "circuits.editing.methods.memit:memit",
        "ft-l": "circuits.editing.methods.finetune:ft_l",
        "ft-m": "circuits.editing.methods.finetune:ft_m",
        "memoe": "circuits.editing.methods.memoe:memoe",
        "memoe-scoped": "circuits.editing.methods.memoe:memoe_scoped",
    }
)


class UnknownMethod(EditError):
    """A method that there is not."""


def find_method(text: str) -> Method[Any, Any]:
    """``NAME``, or ``NAME@SITE``: ``rome@subject`` stores its values at the subject's last token, the paper's choice, where
    ``rome`` does as suits the model.

    Raises:
        UnknownMethod: there is no such method.
        EditError: it has no such site.
    """
    name, at, site = text.strip().partition("@")
    if name not in METHODS:
        raise UnknownMethod(f"no editing method {text!r}; known: {', '.join(METHODS)}")
    return METHODS[name].at(site) if at else METHODS[name]
