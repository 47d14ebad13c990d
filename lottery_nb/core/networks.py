"""The networks: of each its layers and its forward pass, as a function of stacked parameters, so
that several trials train in one batch.

Parameters are {name: tensor of shape (trials, *shape)}; a layer's weight is "<layer>.weight",
outputs first as in torch, its bias "<layer>.bias"; in place of a bias, batch-norm has
"<layer>.scale", ".shift", ".mean" and ".variance".

A network is a subclass of `Network` or `Convolutional` with a name; a recipe names it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from .errors import LotteryError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .recipes import Recipe

    Parameters = dict[str, Tensor]
else:
    from .lazy import torch

CLASSES = 10
STATISTICS = (".mean", ".variance")  # endings of parameters that no optimiser moves
NETWORKS: dict[str, type[Network]] = {}


@dataclass(frozen=True)
class Layer:
    """A layer whose weights are counted.

    kind ("conv" | "fc" | "output" | "shortcut") picks its pruning rate; shape is (outputs, inputs),
    of a convolution (filters, channels, height, width); normed: batch-norm follows, in place of a
    bias.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    normed: bool = False

    @property
    def weight(self) -> str:
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        return f"{self.name}.bias"

    @property
    def count(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)

    @property
    def fans(self) -> tuple[int, int]:
        """(fan in, fan out)"""
        reach = math.prod(self.shape[2:])
        return self.shape[1] * reach, self.shape[0] * reach


class Network:
    """What the engine asks of a network. A subclass is one: `class Mine(Network, name="mine")`."""

    name: ClassVar[str] = ""
    family: ClassVar[str] = ""  # whose scales it takes where it has none of its own
    stacks: ClassVar[bool] = True  # whether the trials of a batch are computed as one product
    chunk: ClassVar[int]  # images evaluated together; keeps a layer's outputs in a CPU's cache
    only: ClassVar[dict[str, tuple[tuple, str]]] = {}  # recipe fields that are bound here, and why

    def __init_subclass__(cls, name: str = "", **rest):
        super().__init_subclass__(**rest)
        if name:
            cls.name = name
            NETWORKS[name] = cls

    def __init__(self, recipe: Recipe):
        self.layers = recipe.layers

    @classmethod
    def layers_of(cls, recipe: Recipe) -> tuple[Layer, ...]:
        """Its layers at a recipe's sizes and width, first to last."""
        raise NotImplementedError

    @property
    def packable(self) -> tuple[Layer, ...]:
        """Layers that `gradients` also takes as sparse matrices."""
        return ()

    def prepare(self, images: Tensor) -> Tensor:
        """Images (n, height, width) or (n, height, width, channels) as this network takes them."""
        raise NotImplementedError

    def rounded(self, parameters: Parameters) -> Parameters:
        """Parameters as products take them, of the recipe's precision."""
        return parameters

    def logits(self, parameters: Parameters, x: Tensor) -> Tensor:
        """(trials, classes, n). x: prepared images, the same for every trial."""
        raise NotImplementedError

    def kept_units(self, steps: int, batch: int, random: torch.Generator) -> Tensor:
        """Draw which hidden units steps of a training keep, bool (steps, batch, units), where the
        recipe has dropout: needed of a network whose `only` does not rule that out."""
        raise NotImplementedError

    def gradients(
        self,
        parameters: Parameters,
        x: Tensor,
        labels: Tensor,
        into: Parameters,
        kept: Tensor | None = None,
    ) -> None:
        """Write the gradient of each trial's mean cross-entropy into `into`. On a GPU nothing here
        may wait for it, so that it can be recorded.

        x: (batch, trials, *image), prepared; labels: (batch, trials); kept: (batch, trials, units),
        as drawn by `kept_units`.
        """
        raise NotImplementedError


def _connected(inputs: int, recipe: Recipe) -> list[Layer]:
    """Fully-connected layers of a recipe's sizes, and the output layer."""
    widths = (inputs, *(_widened(size, recipe) for size in recipe.sizes), CLASSES)
    names = [*(f"fc{i}" for i in range(1, len(recipe.sizes) + 1)), "output"]
    return [
        Layer(name, "output" if name == "output" else "fc", (out, into))
        for name, into, out in zip(names, widths, widths[1:])
    ]


def _widened(units: int, recipe: Recipe) -> int:
    return max(1, round(units * recipe.width))


class Lenet(Network, name="lenet"):
    """Fully-connected Lenet: 784 inputs, ReLU layers of a recipe's sizes, 10 outputs (paper,
    Figure 2: 300 and 100)."""

    family = "lenet"
    inputs = 28 * 28
    chunk = 1000
    only = {
        "dropout": ((0.0,), "Lenet has no such switch, the convolutional networks do"),
        "precision": (("fp32",), "Lenet has no such switch, the convolutional networks do"),
        "pruned": (("all", "fc"), "Lenet has no convolution; choose all or fc"),
        "augment": (
            (False,),
            "it is for networks of colour images, Lenet's digits are not flipped",
        ),
    }

    @classmethod
    def layers_of(cls, recipe: Recipe) -> tuple[Layer, ...]:
        return tuple(_connected(cls.inputs, recipe))

    @property
    def packable(self) -> tuple[Layer, ...]:
        """The first, which has nine tenths of the weights."""
        return self.layers[:1]

    def prepare(self, images: Tensor) -> Tensor:
        """(n, inputs)"""
        inputs = self.layers[0].shape[1]
        if images[0].numel() != inputs:
            raise LotteryError(
                f"this network takes images of {inputs} values, the data set has "
                f"{images[0].numel()}: choose another network or data set"
            )
        return images.flatten(1)

    def forward(self, parameters: Parameters, x: Tensor) -> list[Tensor]:
        """Outputs of every layer, each (trials, units, n), the last one logits.

        x: (trials, inputs, n), a column an image.
        """
        outputs, h = [], x
        for layer in self.layers:
            weight, bias = parameters[layer.weight], parameters[layer.bias].unsqueeze(-1)
            if weight.layout == torch.sparse_csr:
                product = torch.sparse.mm(weight, h.flatten(0, 1))
                h = product.view(len(bias), -1, h.shape[-1]) + bias
            else:
                h = torch.baddbmm(bias, weight, h)
            if layer.kind != "output":
                h.relu_()
            outputs.append(h)
        return outputs

    def logits(self, parameters: Parameters, x: Tensor) -> Tensor:
        trials = len(parameters[self.layers[0].bias])
        return self.forward(parameters, x.T.expand(trials, *x.T.shape))[-1]

    def gradients(self, parameters, x, labels, into, kept=None) -> None:
        """Written out by hand rather than by autograd, so that each product lands where the
        optimiser reads it. A layer of `packable` may be one sparse matrix, in both `parameters` and
        `into`, with a block a trial on its diagonal. No unit is dropped here."""
        x = x.permute(1, 2, 0)
        if into[self.layers[0].weight].layout == torch.sparse_csr:
            x = x.contiguous()
        outputs = self.forward(parameters, x)
        delta = outputs[-1].softmax(1)
        minus_one = delta.new_full((1, 1, 1), -1.0).expand(len(delta), 1, len(labels))
        delta.scatter_add_(1, labels.T.unsqueeze(1), minus_one)
        delta /= len(labels)
        for i in reversed(range(len(self.layers))):
            layer, below = self.layers[i], outputs[i - 1] if i else x
            gradient = into[layer.weight]
            if gradient.layout == torch.sparse_csr:
                columns, rows = delta.flatten(0, 1), below.flatten(0, 1).T
                torch.sparse.sampled_addmm(gradient, columns, rows, beta=0, out=gradient)
            elif gradient.is_contiguous():
                torch.bmm(delta, below.mT, out=gradient)
            else:  # into gaps between trials torch writes one by one, by another routine
                gradient.copy_(torch.bmm(delta, below.mT))
            torch.sum(delta, -1, out=into[layer.bias])
            if i:
                delta = torch.bmm(parameters[layer.weight].mT, delta)
                delta = torch.ops.aten.threshold_backward(delta, below, 0)  # ReLU's gradient


class Convolutional(Network):
    """What the convolutional networks have in common. Trials take turns on a CPU, as a convolution
    fills one by itself; on a GPU each has a stream of its own, and they are computed side by
    side."""

    stacks = False
    side, channels = 32, 3  # of the images that they take
    chunk = 250

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        self.precision, self.dropout = recipe.precision, recipe.dropout
        self.multiplied = {name for layer in self.layers for name in (layer.weight, layer.bias)}

    def prepare(self, images: Tensor) -> Tensor:
        """(n, 32, 32, 3), grey images in the middle of an image of zeros, the same in each
        channel."""
        if images.ndim == 3:
            images = images.unsqueeze(-1).expand(*images.shape, self.channels)
        height, width, channels = images.shape[1:]
        edge, odd = divmod(self.side - height, 2)
        if channels != self.channels or height != width or edge < 0 or odd:
            raise LotteryError(
                "this network takes images of 32x32x3, the data set has "
                f"{'x'.join(map(str, images.shape[1:]))}: choose another"
            )
        if edge:
            images = torch.nn.functional.pad(images, (0, 0, edge, edge, edge, edge))
        return images.contiguous()

    def forward(
        self,
        parameters: Parameters,
        x: Tensor,
        training: bool = False,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Logits (n, classes) of one trial.

        x: (n, 32, 32, 3); training: networks with batch-norm use and update the statistics of the
        batch; kept: (n, units), the hidden units that are not dropped, None for all.
        """
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            channels_last = x.permute(0, 3, 1, 2)  # in memory, and so to the end
            logits = self._logits(parameters, channels_last, training, kept)
        return logits.float() if logits.dtype is torch.bfloat16 else logits

    def _logits(
        self, parameters: Parameters, h: Tensor, training: bool, kept: Tensor | None
    ) -> Tensor:
        raise NotImplementedError

    def rounded(self, parameters: Parameters) -> Parameters:
        """Once for all trials and images, where autocast would do it for each; on a GPU filters
        have their channels last besides, as images do."""
        if self.precision == "fp32":
            return parameters

        def rounded(value: Tensor) -> Tensor:
            if value.is_cuda and value.ndim == 5:
                last = value.permute(0, 1, 3, 4, 2)
                last = last.to(torch.bfloat16, memory_format=torch.contiguous_format)
                return last.permute(0, 1, 4, 2, 3)
            return value.bfloat16()

        return {
            name: rounded(value) if name in self.multiplied else value
            for name, value in parameters.items()
        }

    def logits(self, parameters: Parameters, x: Tensor) -> Tensor:
        trials = _each(parameters)
        found = []
        with side_by_side(len(trials), x.device) as places:
            for one, place in zip(trials, places):
                with place:
                    found.append(self.forward(one, x).T)
        return torch.stack(found)

    def gradients(self, parameters, x, labels, into, kept=None) -> None:
        learned = [name for name in into if not name.endswith(STATISTICS)]
        trials = _each(self.rounded(parameters))
        found = []
        with side_by_side(len(trials), x.device) as places:
            for trial, (one, place) in enumerate(zip(trials, places)):
                with place:
                    leaves = {name: one[name].detach().requires_grad_() for name in learned}
                    units = None if kept is None else kept[:, trial]
                    with torch.enable_grad():
                        logits = self.forward({**one, **leaves}, x[:, trial], True, units)
                        loss = torch.nn.functional.cross_entropy(logits, labels[:, trial])
                    found.append(torch.autograd.grad(loss, list(leaves.values())))
        for name, gradients in zip(learned, zip(*found)):
            into[name].copy_(torch.stack(gradients) if trials[1:] else gradients[0].unsqueeze(0))


class Conv(Convolutional):
    """Blocks of two 3x3 convolutions and a 2x2 max-pooling, then fully-connected layers, all with
    ReLU (paper, Figure 2).

    Dropout, where a recipe has it, is on the outputs of the fully-connected hidden layers; the
    paper does not say where.
    """

    family = "conv"
    filters: ClassVar[tuple[int, ...]]  # of each block

    @classmethod
    def layers_of(cls, recipe: Recipe) -> tuple[Layer, ...]:
        filters = [_widened(n, recipe) for n in cls.filters for _ in range(2)]
        side = cls.side // 2 ** len(cls.filters)
        return (*_convolutions(filters), *_connected(filters[-1] * side**2, recipe))

    @property
    def _hidden(self) -> list[int]:
        """Units of each fully-connected hidden layer."""
        return [layer.shape[0] for layer in self.layers if layer.kind == "fc"]

    def kept_units(self, steps: int, batch: int, random: torch.Generator) -> Tensor:
        def drawn(units: int) -> Tensor:
            return torch.empty(batch, units).bernoulli_(1 - self.dropout, generator=random).bool()

        return torch.stack([torch.cat([*map(drawn, self._hidden)], 1) for _ in range(steps)])

    def _logits(self, parameters, h, training, kept):
        functional = torch.nn.functional
        kept_of_layers = iter(() if kept is None else kept.split(self._hidden, 1))
        for i, layer in enumerate(self.layers):
            weight, bias = parameters[layer.weight], parameters[layer.bias]
            if layer.kind == "conv":
                # Pooling before ReLU is the same on fewer numbers; so is pooling before adding the
                # bias, where that and the sum of its gradient are kernels of their own, on a GPU.
                late = h.is_cuda and i % 2
                h = functional.conv2d(h, weight, None if late else bias, padding=1)
                if i % 2:
                    h = functional.max_pool2d(h, 2)
                if late:
                    h = h + bias.view(1, -1, 1, 1)
                h = h.relu()
                continue
            if h.ndim == 4:
                h = h.permute(0, 2, 3, 1).flatten(1)  # no copy, forth or back
            h = functional.linear(h, weight, bias)
            if layer.kind == "fc":
                h = h.relu()
                if kept is not None:
                    h = h * (next(kept_of_layers) / (1 - self.dropout)).to(h)
        return h


class Conv2(Conv, name="conv2"):
    filters = (64,)


class Conv4(Conv, name="conv4"):
    filters = (64, 128)


class Conv6(Conv, name="conv6"):
    """The paper prints 256 for the third block, but all its densities and weight counts fit 192
    (the page of Figure 2 lays that out)."""

    filters = (64, 128, 192)


class Conv6AsPrinted(Conv, name="conv6-256"):
    filters = (64, 128, 256)


class Deep(Convolutional):
    """What Resnet-18 and VGG-19 have in common: convolutions with batch-norm, an average pooling,
    the output layer.

    Running means and variances of batch-norm are parameters without a gradient, "<layer>.mean" and
    "<layer>.variance", so that they are reset, kept and restored with the weights. Momentum 0.1,
    epsilon 1e-5.
    """

    family = "deep"
    only = {
        "sizes": (((),), "it has no fully-connected hidden layer, so it must be ()"),
        "pruned": (("conv",), "only its convolutions are pruned; choose conv"),
        "dropout": ((0.0,), "it has no layer for it, conv2, conv4 and conv6 do"),
    }

    def _conv(self, parameters, h, name, training, stride=1):
        weight = parameters[f"{name}.weight"]
        h = torch.nn.functional.conv2d(h, weight, stride=stride, padding=weight.shape[-1] // 2)
        norm = (parameters[f"{name}.{part}"] for part in ("mean", "variance", "scale", "shift"))
        return torch.nn.functional.batch_norm(h, *norm, training=training)

    def _output(self, parameters, h):
        return torch.nn.functional.linear(
            h.mean((2, 3)), parameters["output.weight"], parameters["output.bias"]
        )


class Resnet18(Deep, name="resnet18"):
    """The residual network of 20 layers for CIFAR (He et al. 2016, Section 4.2), which the paper
    calls Resnet-18: a convolution, then nine blocks of two; a group of three blocks begins with a
    stride of 2 and a 1x1 projection, but for the first."""

    filters = (16, 32, 64)  # of the groups

    @classmethod
    def blocks(cls) -> Iterator[tuple[str, str, str, int]]:
        """Of each block: its two convolutions, its projection or "", and its group."""
        for block in range(3 * len(cls.filters)):
            group, place = divmod(block, 3)
            projection = f"shortcut{group}" if group and not place else ""
            yield f"conv{2 * block + 2}", f"conv{2 * block + 3}", projection, group

    @classmethod
    def layers_of(cls, recipe: Recipe) -> tuple[Layer, ...]:
        filters = [_widened(n, recipe) for n in cls.filters]
        into = filters[0]
        layers = [Layer("conv1", "conv", (into, cls.channels, 3, 3), True)]
        for first, second, projection, group in cls.blocks():
            out = filters[group]
            if projection:
                layers.append(Layer(projection, "shortcut", (out, into, 1, 1), True))
            layers.append(Layer(first, "conv", (out, into, 3, 3), True))
            layers.append(Layer(second, "conv", (out, out, 3, 3), True))
            into = out
        return (*layers, *_connected(into, recipe))

    def _logits(self, parameters, h, training, kept):
        h = self._conv(parameters, h, "conv1", training).relu_()
        for first, second, projection, _ in self.blocks():
            stride = 2 if projection else 1
            inner = self._conv(parameters, h, first, training, stride).relu_()
            inner = self._conv(parameters, inner, second, training)
            if projection:
                h = self._conv(parameters, h, projection, training, stride)
            h = (inner + h).relu_()
        return self._output(parameters, h)


class Vgg19(Deep, name="vgg19"):
    """VGG-19 for CIFAR with batch-norm: sixteen 3x3 convolutions in five blocks, a 2x2 max-pooling
    between blocks."""

    blocks = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)  # filters

    @classmethod
    def layers_of(cls, recipe: Recipe) -> tuple[Layer, ...]:
        filters = [_widened(n, recipe) for block in cls.blocks for n in block]
        return (*_convolutions(filters, normed=True), *_connected(filters[-1], recipe))

    def _logits(self, parameters, h, training, kept):
        names = iter(layer.name for layer in self.layers)
        for i, block in enumerate(self.blocks):
            for place in range(len(block)):
                h = self._conv(parameters, h, next(names), training)
                if place == len(block) - 1 and i < len(self.blocks) - 1:
                    h = torch.nn.functional.max_pool2d(h, 2)  # before ReLU, as above
                h = h.relu_()
        return self._output(parameters, h)


def _convolutions(filters: list[int], normed: bool = False) -> list[Layer]:
    """3x3 convolutions, one on the other, of so many filters each."""
    channels = [Convolutional.channels, *filters]
    return [
        Layer(f"conv{i}", "conv", (out, into, 3, 3), normed)
        for i, (into, out) in enumerate(zip(channels, filters), 1)
    ]


def _each(parameters: Parameters) -> list[Parameters]:
    """The parameters of one trial after the other."""
    return [dict(zip(parameters, values)) for values in zip(*parameters.values())]


def kind_of(name: str) -> type[Network]:
    """The network of a name; raises LotteryError for an unknown one."""
    if name not in NETWORKS:
        raise LotteryError(f"there is no network {name!r}: choose {', '.join(NETWORKS)}")
    return NETWORKS[name]


def build(recipe: Recipe) -> Network:
    """The network that a recipe names."""
    return kind_of(recipe.network)(recipe)


@contextmanager
def side_by_side(count: int, device: torch.device) -> Iterator[list[AbstractContextManager]]:
    """A place to compute for each of several trials that do not need each other. On a GPU each is a
    stream of its own; after the block what comes next waits for all. Elsewhere they take turns."""
    if device.type != "cuda":
        yield [nullcontext()] * count
        return
    here, streams = torch.cuda.current_stream(device), _streams(count, device)
    for stream in streams:
        stream.wait_stream(here)
    try:
        yield [torch.cuda.stream(stream) for stream in streams]
    finally:
        for stream in streams:
            here.wait_stream(stream)


@cache
def _streams(count: int, device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(count)]


DRAWN = "by rejection"  # how initial weights are, one of `DRAWS`


def sigma(layer: Layer, recipe: Recipe) -> float:
    """The deviation of a layer's initial weights, before they are truncated at twice that."""
    return recipe.init_std or math.sqrt(2 / sum(layer.fans))


def initialise(recipe: Recipe, generator: torch.Generator, drawn: str = DRAWN) -> Parameters:
    """Fresh parameters of one trial, {name: tensor}, on the CPU; biases are zero, batch-norm
    changes nothing yet.

    "glorot": a normal of sigma = sqrt(2 / (fan in + fan out)), truncated at two sigma and not
    rescaled, so that its deviation is 0.88 sigma. DIFFERS from most re-implementations, which do
    not truncate; the paper's Figures 15 and 16 stop at exactly two sigma. "gaussian": the same with
    sigma = `init_std` in every layer. drawn: how, one of `DRAWS`.
    """
    parameters = {}
    for layer in recipe.layers:
        parameters[layer.weight] = DRAWS[drawn](layer.shape, sigma(layer, recipe), generator)
        if layer.normed:
            start = {"scale": 1.0, "shift": 0.0, "mean": 0.0, "variance": 1.0}
            for part, value in start.items():
                parameters[f"{layer.name}.{part}"] = torch.full(layer.shape[:1], value)
        else:
            parameters[layer.bias] = torch.zeros(layer.shape[0])
    return parameters


def _by_rejection(shape: tuple[int, ...], sigma: float, generator: torch.Generator) -> Tensor:
    """Drawn again until all are within two sigma."""
    bound = torch.tensor(2 * sigma).item()  # as the numbers drawn are rounded
    drawn = torch.empty(shape).normal_(0.0, sigma, generator=generator)
    while (beyond := drawn.abs() > bound).any():
        again = torch.empty(shape).normal_(0.0, sigma, generator=generator)
        drawn = torch.where(beyond, again, drawn)
    return drawn


def _by_inversion(shape: tuple[int, ...], sigma: float, generator: torch.Generator) -> Tensor:
    """A uniform number each, through the inverse of the truncated normal's distribution."""
    below, above = ((1 + math.erf(edge / math.sqrt(2))) / 2 for edge in (-2, 2))
    drawn = torch.empty(shape).uniform_(2 * below - 1, 2 * above - 1, generator=generator)
    return drawn.erfinv_().mul_(sigma * math.sqrt(2)).clamp_(-2 * sigma, 2 * sigma)


# A normal truncated at two sigma, as `torch.nn.init.trunc_normal_` of release 2.13 draws it and as
# that of 2.11 did: written out, so that another release draws the same weights.
DRAWS = {"by rejection": _by_rejection, "by inversion": _by_inversion}
