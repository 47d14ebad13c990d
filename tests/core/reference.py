"""Resnet-18 and VGG-19 of torch's own modules, to compare ours with."""

import torch

from lottery_nb.bench.plain import normed, resnet


def plain_deep(recipe):
    """The same deep network of torch's own modules, and our parameters' names in the order of its
    own, statistics after."""
    filters = [layer.shape[0] for layer in recipe.layers if layer.kind == "conv"]
    if recipe.network == "vgg19":
        body = []
        for i, (into, out) in enumerate(zip([3, *filters], filters), 1):
            body += [
                *normed(into, out, 3, 1),
                torch.nn.ReLU(),
                *([torch.nn.MaxPool2d(2)] if i in (2, 4, 8, 12) else []),
            ]
        reference = torch.nn.Sequential(
            *body,
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(filters[-1], 10),
        )
        order = [f"conv{i}" for i in range(1, 17)]
    else:
        reference = resnet(tuple(filters[1::6]))
        order = ["conv1"]
        for i in range(9):
            order += [
                f"conv{2 * i + 2}",
                f"conv{2 * i + 3}",
                *([f"shortcut{i // 3}"] if i in (3, 6) else []),
            ]
    learned = [f"{name}.{part}" for name in order for part in ("weight", "scale", "shift")] + [
        "output.weight",
        "output.bias",
    ]
    return reference, learned, [f"{name}.{part}" for name in order for part in ("mean", "variance")]


def filled(reference, learned, statistics, parameters):
    """The reference with our parameters."""
    with torch.no_grad():
        for name, theirs in zip(learned, reference.parameters(), strict=True):
            theirs.copy_(parameters[name])
        for name, theirs in zip(
            statistics, (b for b in reference.buffers() if b.ndim), strict=True
        ):
            theirs.copy_(parameters[name])
    return reference
