"""Networks as plain functions of stacked parameters, so that several trials train in one batch.

Parameters are {name: tensor of shape (trials, *shape)}; a layer's weight is "<layer>.weight", outputs first as in torch,
its bias "<layer>.bias".
"""

from dataclasses import dataclass
from math import prod

import pandas as pd
import torch
from torch import Tensor

from .errors import LotteryError
from .specs import Recipe

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """A layer whose weights are pruned. `kind` ("fc" | "output") picks its pruning rate; `shape` is (outputs, inputs)."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def weight(self) -> str:
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        return f"{self.name}.bias"

    @property
    def fans(self) -> tuple[int, int]:
        """(fan in, fan out)"""
        return self.shape[1], self.shape[0]


class Lenet:
    """Fully-connected Lenet: 784 inputs, ReLU layers of the given sizes, 10 outputs (paper, Figure 2: 300 and 100)."""

    def __init__(self, sizes: tuple[int, ...], inputs: int = 784, classes: int = 10):
        widths = (inputs, *sizes, classes)
        kinds = ["fc"] * len(sizes) + ["output"]
        names = [f"fc{i}" for i in range(1, len(sizes) + 1)] + ["output"]
        self.layers = tuple(Layer(name, kind, (out, into)) for name, kind, into, out in zip(names, kinds, widths, widths[1:]))

    def prepare(self, images: Tensor) -> Tensor:
        """Images (n, height, width) as this network takes them: (n, inputs)."""
        inputs = self.layers[0].shape[1]
        if images[0].numel() != inputs:
            raise LotteryError(f"this network takes images of {inputs} values, the data set has {images[0].numel()}: choose another network or data set")
        return images.flatten(1)

    def forward(self, parameters: Parameters, x: Tensor) -> list[Tensor]:
        """Outputs of every layer, each (trials, n, units), the last one logits. x: (trials, n, inputs) or (n, inputs), shared by all."""
        outputs, h = [], x
        for layer in self.layers:
            weight, bias = parameters[layer.weight], parameters[layer.bias].unsqueeze(1)
            h = torch.baddbmm(bias, h.expand(len(weight), *h.shape[-2:]), weight.mT)
            if layer.kind != "output":
                h.relu_()
            outputs.append(h)
        return outputs

    def logits(self, parameters: Parameters, x: Tensor) -> Tensor:
        """(trials, n, classes)"""
        return self.forward(parameters, x)[-1]

    def gradients(self, parameters: Parameters, x: Tensor, labels: Tensor, into: Parameters) -> None:
        """Write the gradient of each trial's mean cross-entropy into `into`.

        x: (trials, batch, inputs); labels: (trials, batch). Written out by hand: two thirds of the time of autograd, and
        each product lands where the optimiser reads it.
        """
        outputs = self.forward(parameters, x)
        delta = outputs[-1].softmax(-1)
        delta.scatter_add_(-1, labels.unsqueeze(-1), torch.full_like(delta[..., :1], -1.0))
        delta /= labels.shape[-1]
        for i in reversed(range(len(self.layers))):
            layer, below = self.layers[i], outputs[i - 1] if i else x
            torch.bmm(delta.mT, below, out=into[layer.weight])
            torch.sum(delta, 1, out=into[layer.bias])
            if i:
                delta = torch.bmm(delta, parameters[layer.weight])
                delta *= below > 0


def build(recipe: Recipe) -> Lenet:
    """The network a recipe names; raises for an unknown one."""
    if recipe.network == "lenet":
        return Lenet(recipe.sizes)
    raise LotteryError(f"there is no network {recipe.network!r}: choose lenet")


def initialise(network, initialisation: str, generator: torch.Generator) -> Parameters:
    """Fresh parameters of one trial, {name: tensor}, on the CPU; biases are zero.

    "glorot": a normal of sigma = sqrt(2 / (fan in + fan out)), truncated at two sigma and not rescaled, so that its
    deviation is 0.88 sigma. DIFFERS from most re-implementations, which do not truncate; the paper's Figures 15 and 16
    stop at exactly two sigma.
    """
    if initialisation != "glorot":
        raise LotteryError(f"there is no initialisation {initialisation!r}: choose glorot")
    parameters = {}
    for layer in network.layers:
        sigma = (2 / sum(layer.fans)) ** 0.5
        parameters[layer.weight] = torch.nn.init.trunc_normal_(torch.empty(layer.shape), 0.0, sigma, -2 * sigma, 2 * sigma, generator=generator)
        parameters[layer.bias] = torch.zeros(layer.shape[0])
    return parameters


def architectures(recipes: dict[str, Recipe]) -> pd.DataFrame:
    """The paper's Figure 2, computed: a tidy table (line, metric, value, trial) of every network's weights and set-up."""
    rows = []
    for line, recipe in recipes.items():
        layers = build(recipe).layers
        measures = {"weights": sum(prod(layer.shape) for layer in layers)} | {f"weights, {layer.name}": prod(layer.shape) for layer in layers}
        measures |= {"iterations": recipe.iterations, "batch": recipe.batch, f"learning rate, {recipe.optimiser}": recipe.learning_rate}
        measures |= {"pruned a round, fully-connected": recipe.prune_fc, "pruned a round, output": recipe.prune_output}
        rows += [{"line": line, "metric": metric, "value": value, "trial": None} for metric, value in measures.items()]
    table = pd.DataFrame(rows)
    table.attrs["scale"] = "paper"  # counting shrinks nothing
    return table
