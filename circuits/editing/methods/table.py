"""The editing methods, by name. A new one is a file beside this one, and one line here."""

from circuits.editing.edit import EditError
from circuits.editing.method import Method, Methods
from circuits.editing.methods.finetune import ft_l, ft_m
from circuits.editing.methods.memit import memit
from circuits.editing.methods.memoe import memoe
from circuits.editing.methods.rome import rome

METHODS: Methods = {
    method.name: method
    for method in (
        rome,
        memit,
        ft_l,
        ft_m,
        memoe,
    )
}


class UnknownMethod(EditError):
    """A method that there is not."""


def find_method(text: str) -> Method:
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
