"""The discovery methods, by name. A new one is a file beside this one, and one line here.

Naming them loads none of them: a command line lists them before it knows which is asked for.
"""

from typing import TYPE_CHECKING, Any

from circuits.by_name import ByName

if TYPE_CHECKING:
    from circuits.discovery.method import DiscoveryMethod

METHODS: "ByName[DiscoveryMethod[Any]]" = ByName(
    {
        "acdc": "circuits.discovery.acdc:acdc",
        "eap": "circuits.discovery.eap:eap",
        "eap-ig": "circuits.discovery.eap:eap_ig",
        "eap-ig-activations": "circuits.discovery.eap:eap_ig_activations",
        "exact": "circuits.discovery.exact:exact",
        "ifr": "circuits.discovery.ifr:ifr",
        "random": "circuits.discovery.chance:chance",
    }
)


class MethodError(ValueError):
    """A method that does not exist, or was given what it has no use for."""


def find_method(name: str) -> "DiscoveryMethod[Any]":
    """The method with this name.

    Raises:
        MethodError: there is none; the message lists them.
    """
    if name not in METHODS:
        raise MethodError(f"expected a method of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]
