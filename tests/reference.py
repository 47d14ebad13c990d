"""Resnet-18 and VGG-19 of torch's own modules, to compare ours with."""

import torch


class Block(torch.nn.Module):
    """A residual block of torch's own modules."""

    def __init__(self, into, out, stride):
        super().__init__()
        self.inner = torch.nn.Sequential(*normed(into, out, 3, stride), torch.nn.ReLU(), *normed(out, out, 3, 1))
        self.shortcut = torch.nn.Sequential(*(normed(into, out, 1, 2) if stride == 2 else []))

    def forward(self, x):
        return (self.inner(x) + self.shortcut(x)).relu()


def normed(into, out, size, stride):
    return torch.nn.Conv2d(into, out, size, stride, size // 2, bias=False), torch.nn.BatchNorm2d(out)


def plain_deep(recipe):
    """The same deep network of torch's own modules, and our parameters' names in the order of its own, statistics after."""
    filters = [layer.shape[0] for layer in recipe.layers if layer.kind == "conv"]
    head = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(filters[-1], 10))
    if recipe.network == "vgg19":
        body = []
        for i, (into, out) in enumerate(zip([3, *filters], filters), 1):
            body += [*normed(into, out, 3, 1), torch.nn.ReLU(), *([torch.nn.MaxPool2d(2)] if i in (2, 4, 8, 12) else [])]
        order = [f"conv{i}" for i in range(1, 17)]
    else:
        widths = [filters[0], *filters[1::6]]  # of the first convolution, then of each group
        blocks = [(widths[i], widths[i + 1], 1 + (i > 0)) if not j else (widths[i + 1], widths[i + 1], 1) for i in range(3) for j in range(3)]
        body = [*normed(3, widths[0], 3, 1), torch.nn.ReLU(), *(Block(*block) for block in blocks)]
        order = ["conv1"]
        for i in range(9):
            order += [f"conv{2 * i + 2}", f"conv{2 * i + 3}", *([f"shortcut{i // 3}"] if i in (3, 6) else [])]
    learned = [f"{name}.{part}" for name in order for part in ("weight", "scale", "shift")] + ["output.weight", "output.bias"]
    return torch.nn.Sequential(*body, *head), learned, [f"{name}.{part}" for name in order for part in ("mean", "variance")]


def filled(reference, learned, statistics, parameters):
    """The reference with our parameters."""
    with torch.no_grad():
        for name, theirs in zip(learned, reference.parameters(), strict=True):
            theirs.copy_(parameters[name])
        for name, theirs in zip(statistics, (b for b in reference.buffers() if b.ndim), strict=True):
            theirs.copy_(parameters[name])
    return reference
