"""Discovery: (model, facts, ablation) to Scores, one file a method; `METHODS` lists them by name."""

from circuits.discovery.eap import eap, eap_ig_activations, eap_ig_inputs
from circuits.discovery.exact import exact
from circuits.discovery.ifr import ifr
from circuits.discovery.methods import DEFAULT_TAU, METHODS, Method, MethodError, MethodName, find_method
from circuits.discovery.random_scores import random_scores

__all__ = [
    "DEFAULT_TAU",
    "METHODS",
    "Method",
    "MethodError",
    "MethodName",
    "eap",
    "eap_ig_activations",
    "eap_ig_inputs",
    "exact",
    "find_method",
    "ifr",
    "random_scores",
]
