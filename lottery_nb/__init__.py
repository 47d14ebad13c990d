"""The Lottery Ticket Hypothesis (Frankle & Carbin, ICLR 2019), figure by figure.

What a notebook needs, loaded when it is first used: reading committed results never imports torch.
"""

from importlib import import_module

_HOMES = {"lenet": "specs", "Recipe": "specs", "run": "plans", "LotteryError": "errors"}
_MODULES = ("claims", "models", "paper", "plots")


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*_HOMES, *_MODULES])
