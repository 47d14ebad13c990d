"""The Lottery Ticket Hypothesis (Frankle & Carbin, ICLR 2019), figure by figure.

What a notebook needs, loaded when it is first used, so that reading committed results never
imports torch. The rooms: `core` (the method of the paper), `runs` (from a plan to finished
trainings), `analysis` (to judged tables), `site` (to pictures and pages), `bench`.
"""

import os
from importlib import import_module

# A thread that waits spins a little, then sleeps. Beside another busy process the default makes
# training twenty times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOMES = {
    "core.errors": ("LotteryError",),
    "core.recipes": ("Recipe", "lenet", "conv2", "conv4", "conv6", "resnet18", "vgg19"),
    "runs.ticket_files": ("load_ticket",),
    "analysis.tables": ("run", "architectures"),
    "site.scoreboard": ("compare",),
    "site.widgets": (
        "rounds_of_lenet",
        "by_round",
        "distributions_by_round",
        "play",
        "playground",
    ),
}
_MODULES = {
    "claims": "analysis.claims",
    "comparison": "analysis.comparison",
    "paper": "analysis.paper",
    "plots": "site.plots",
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    if name in _PLACES:
        return getattr(import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*_PLACES, *_MODULES})
