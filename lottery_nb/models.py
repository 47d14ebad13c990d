"""Networks as plain functions of stacked parameters, so that several trials train in one batch.

Parameters are {name: tensor of shape (trials, *shape)}; a layer's weight is "<layer>.weight", outputs first as in torch,
its bias "<layer>.bias"; in place of a bias, batch-norm has "<layer>.scale", ".shift", ".mean" and ".variance".
"""

from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import LotteryError
from .specs import CONV_CHANNELS, CONV_SIDE, VGG_BLOCKS, Layer, Recipe

Parameters = dict[str, Tensor]
STATISTICS = (".mean", ".variance")  # endings of parameters that no optimiser moves


class Lenet:
    """Fully-connected Lenet: 784 inputs, ReLU layers of the given sizes, 10 outputs (paper, Figure 2: 300 and 100)."""

    def __init__(self, layers: tuple[Layer, ...]):
        self.layers = layers

    chunk = 1000  # images evaluated together; keeps a layer's outputs in the cache of a CPU

    @property
    def packable(self) -> tuple[Layer, ...]:
        """Layers that `gradients` also takes as sparse matrices: the first, which has nine tenths of the weights."""
        return self.layers[:1]

    def prepare(self, images: Tensor) -> Tensor:
        """Images (n, height, width) as this network takes them: (n, inputs)."""
        inputs = self.layers[0].shape[1]
        if images[0].numel() != inputs:
            raise LotteryError(f"this network takes images of {inputs} values, the data set has {images[0].numel()}: choose another network or data set")
        return images.flatten(1)

    def forward(self, parameters: Parameters, x: Tensor) -> list[Tensor]:
        """Outputs of every layer, each (trials, units, n), the last one logits. x: (trials, inputs, n), a column an image."""
        outputs, h = [], x
        for layer in self.layers:
            weight, bias = parameters[layer.weight], parameters[layer.bias].unsqueeze(-1)
            if weight.layout == torch.sparse_csr:
                h = torch.sparse.mm(weight, h.flatten(0, 1)).view(len(bias), -1, h.shape[-1]) + bias
            else:
                h = torch.baddbmm(bias, weight, h)
            if layer.kind != "output":
                h.relu_()
            outputs.append(h)
        return outputs

    def logits(self, parameters: Parameters, x: Tensor) -> Tensor:
        """(trials, classes, n). x: (n, inputs), the same images for every trial."""
        return self.forward(parameters, x.T.expand(len(parameters[self.layers[0].bias]), *x.T.shape))[-1]

    def gradients(self, parameters: Parameters, x: Tensor, labels: Tensor, into: Parameters, randoms: list[torch.Generator] = ()) -> None:
        """Write the gradient of each trial's mean cross-entropy into `into`.

        x: (batch, trials, inputs); labels: (batch, trials). Written out by hand rather than by autograd, so that
        each product lands where the optimiser reads it. A layer of `packable` may be one sparse matrix, in both
        `parameters` and `into`, with a block a trial on its diagonal. randoms: not used, nothing is random here.
        """
        x = x.permute(1, 2, 0)
        if into[self.layers[0].weight].layout == torch.sparse_csr:
            x = x.contiguous()
        outputs = self.forward(parameters, x)
        delta = outputs[-1].softmax(1)
        delta.scatter_add_(1, labels.T.unsqueeze(1), delta.new_full((1, 1, 1), -1.0).expand(len(delta), 1, len(labels)))
        delta /= len(labels)
        for i in reversed(range(len(self.layers))):
            layer, below = self.layers[i], outputs[i - 1] if i else x
            if into[layer.weight].layout == torch.sparse_csr:
                torch.sparse.sampled_addmm(into[layer.weight], delta.flatten(0, 1), below.flatten(0, 1).T, beta=0, out=into[layer.weight])
            else:
                torch.bmm(delta, below.mT, out=into[layer.weight])
            torch.sum(delta, -1, out=into[layer.bias])
            if i:
                delta = torch.ops.aten.threshold_backward(torch.bmm(parameters[layer.weight].mT, delta), below, 0)  # ReLU's gradient


class Convolutional:
    """What the convolutional networks have in common. Trials take turns: a convolution fills a processor by itself."""

    packable: tuple[Layer, ...] = ()
    chunk = 250  # images evaluated together; keeps a layer's outputs in the cache of a CPU

    def __init__(self, recipe: Recipe):
        self.layers, self.precision, self.dropout = recipe.layers, recipe.precision, recipe.dropout

    def prepare(self, images: Tensor) -> Tensor:
        """Images (n, height, width) or (n, height, width, 3) as this network takes them: (n, 32, 32, 3), grey ones in the
        middle of an image of zeros, the same in each channel."""
        if images.ndim == 3:
            images = images.unsqueeze(-1).expand(*images.shape, CONV_CHANNELS)
        height, width = images.shape[1:3]
        if images.shape[3] != CONV_CHANNELS or not height == width <= CONV_SIDE or (CONV_SIDE - height) % 2:
            raise LotteryError(f"this network takes images of 32x32x3, the data set has {'x'.join(map(str, images.shape[1:]))}: choose another")
        edge = (CONV_SIDE - height) // 2
        return F.pad(images, (0, 0, edge, edge, edge, edge)).contiguous() if edge else images.contiguous()

    def forward(self, parameters: Parameters, x: Tensor, random: torch.Generator | None = None) -> Tensor:
        """Logits (n, classes) of one trial. x: (n, 32, 32, 3); random: of the training, which drops units and, in networks
        with batch-norm, uses and updates the statistics of the batch; None: evaluate."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self._logits(parameters, x.permute(0, 3, 1, 2), random).float()  # channels last in memory, and so to the end

    def logits(self, parameters: Parameters, x: Tensor) -> Tensor:
        """(trials, classes, n). x: (n, 32, 32, 3), the same images for every trial."""
        return torch.stack([self.forward(one, x).T for one in _each(parameters)])

    def gradients(self, parameters: Parameters, x: Tensor, labels: Tensor, into: Parameters, randoms: list[torch.Generator]) -> None:
        """Write the gradient of each trial's mean cross-entropy into `into`. x: (batch, trials, 32, 32, 3); labels: (batch, trials)."""
        for trial, one in enumerate(_each(parameters)):
            leaves = {name: value.detach().requires_grad_(not name.endswith(STATISTICS)) for name, value in one.items()}
            learned = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
            with torch.enable_grad():
                loss = F.cross_entropy(self.forward(leaves, x[:, trial], randoms[trial]), labels[:, trial])
            for name, gradient in zip(learned, torch.autograd.grad(loss, list(learned.values()))):
                into[name][trial].copy_(gradient)


class Conv(Convolutional):
    """Conv-2, -4 and -6: blocks of two 3x3 convolutions and a 2x2 max-pooling, then fully-connected layers, all with ReLU
    (paper, Figure 2).

    Dropout, where a recipe has it, is on the outputs of the fully-connected hidden layers; the paper does not say where.
    """

    def _logits(self, parameters: Parameters, h: Tensor, random: torch.Generator | None) -> Tensor:
        for i, layer in enumerate(self.layers):
            weight, bias = parameters[layer.weight], parameters[layer.bias]
            if layer.kind == "conv":
                h = F.conv2d(h, weight, bias, padding=1)
                h = (F.max_pool2d(h, 2) if i % 2 else h).relu()  # pooled first: the same, on a quarter of the numbers
                continue
            if h.ndim == 4:
                h = h.permute(0, 2, 3, 1).flatten(1)  # no copy, forth or back
            h = F.linear(h, weight, bias)
            if layer.kind == "fc":
                h = h.relu()
                if random is not None and self.dropout:
                    kept = torch.empty(h.shape).bernoulli_(1 - self.dropout, generator=random)
                    h = h * (kept / (1 - self.dropout)).to(h)
        return h


class Deep(Convolutional):
    """What Resnet-18 and VGG-19 have in common: convolutions with batch-norm, an average pooling, the output layer.

    Running means and variances of batch-norm are parameters without a gradient, "<layer>.mean" and "<layer>.variance", so
    that they are reset, kept and restored with the weights. Momentum 0.1, epsilon 1e-5.
    """

    def _conv(self, parameters: Parameters, h: Tensor, name: str, random: torch.Generator | None, stride: int = 1) -> Tensor:
        weight = parameters[f"{name}.weight"]
        h = F.conv2d(h, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, variance, scale, shift = (parameters[f"{name}.{part}"] for part in ("mean", "variance", "scale", "shift"))
        return F.batch_norm(h, mean, variance, scale, shift, training=random is not None)

    def _output(self, parameters: Parameters, h: Tensor) -> Tensor:
        return F.linear(h.mean((2, 3)), parameters["output.weight"], parameters["output.bias"])


class Resnet(Deep):
    """The residual network of 20 layers for CIFAR (He et al. 2016, Section 4.2), which the paper calls Resnet-18: a convolution,
    nine blocks of two in three groups of 16, 32 and 64 filters, a stride of 2 and a 1x1 projection where a group begins."""

    def _logits(self, parameters: Parameters, h: Tensor, random: torch.Generator | None) -> Tensor:
        h = self._conv(parameters, h, "conv1", random).relu_()
        for block in range(9):
            first, group = 2 * block + 2, block // 3
            begins = bool(block and block % 3 == 0)
            inner = self._conv(parameters, h, f"conv{first}", random, 1 + begins).relu_()
            inner = self._conv(parameters, inner, f"conv{first + 1}", random)
            h = (inner + (self._conv(parameters, h, f"shortcut{group}", random, 2) if begins else h)).relu_()
        return self._output(parameters, h)


class Vgg(Deep):
    """VGG-19 for CIFAR with batch-norm: sixteen 3x3 convolutions in five blocks, a 2x2 max-pooling between blocks."""

    def _logits(self, parameters: Parameters, h: Tensor, random: torch.Generator | None) -> Tensor:
        last = set(accumulate(convolutions for _, convolutions in VGG_BLOCKS))
        for i in range(1, len(self.layers)):
            h = self._conv(parameters, h, f"conv{i}", random)
            h = (F.max_pool2d(h, 2) if i in last and i + 1 < len(self.layers) else h).relu_()
        return self._output(parameters, h)


def _each(parameters: Parameters) -> list[Parameters]:
    """The parameters of one trial after the other."""
    return [dict(zip(parameters, values)) for values in zip(*parameters.values())]


def build(recipe: Recipe) -> Lenet | Convolutional:
    """The network a recipe names; raises for an unknown one."""
    if recipe.network == "lenet":
        return Lenet(recipe.layers)
    return {"resnet18": Resnet, "vgg19": Vgg}.get(recipe.network, Conv)(recipe)


def initialise(recipe: Recipe, generator: torch.Generator) -> Parameters:
    """Fresh parameters of one trial, {name: tensor}, on the CPU; biases are zero, batch-norm changes nothing yet.

    "glorot": a normal of sigma = sqrt(2 / (fan in + fan out)), truncated at two sigma and not rescaled, so that its
    deviation is 0.88 sigma. DIFFERS from most re-implementations, which do not truncate; the paper's Figures 15 and 16
    stop at exactly two sigma. "gaussian": the same with sigma = `init_std` in every layer.
    """
    parameters = {}
    for layer in recipe.layers:
        sigma = recipe.sigma(layer)
        parameters[layer.weight] = torch.nn.init.trunc_normal_(torch.empty(layer.shape), 0.0, sigma, -2 * sigma, 2 * sigma, generator=generator)
        if layer.normed:
            start = {"scale": 1.0, "shift": 0.0, "mean": 0.0, "variance": 1.0}
            parameters |= {f"{layer.name}.{part}": torch.full(layer.shape[:1], value) for part, value in start.items()}
        else:
            parameters[layer.bias] = torch.zeros(layer.shape[0])
    return parameters
