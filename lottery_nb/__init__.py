"""The Lottery Ticket Hypothesis (Frankle & Carbin, ICLR 2019), figure by figure.

What a notebook needs, loaded when it is first used, so that reading committed results never imports torch.
"""

import os
from importlib import import_module

# A thread that waits spins a little, then sleeps. Beside another busy process the default makes training twenty times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOMES = {
    **dict.fromkeys(("lenet", "conv2", "conv4", "conv6", "resnet18", "vgg19", "Recipe"), "specs"),
    **{
        "load_ticket": "ticket_files",
        "run": "plans",
        "architectures": "plans",
        "rounds_of_lenet": "widgets",
        "by_round": "widgets",
        "play": "widgets",
        "playground": "widgets",
        "LotteryError": "errors",
    },
}


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(_HOMES)
