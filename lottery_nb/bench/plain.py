"""The plain PyTorch networks and loop that the engine is compared with, as a good tutorial writes
them."""

import time
from itertools import count
from statistics import median

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ..core import data
from ..core.data import Data
from ..core.recipes import Recipe, conv2, lenet, resnet18


def plain_lenet(digits: Data, device: str = "cpu") -> float:
    """Seconds of 100 iterations of one trial as a good tutorial writes them, and one evaluation of
    validation and test."""
    return _plainly(_lenet().to(device), digits, lenet, 3, lenet.evaluate_every)


def image_by_image(digits: Data, iterations: int) -> float:
    """Seconds of an iteration of Lenet as open_lth trains it, the framework of the paper's first
    author (github.com/facebookresearch/open_lth, MIT): each image by itself from bytes over Pillow
    to a normalised tensor, masks multiplied into the weights before each forward pass, a step of
    the schedule of learning rates after each iteration. Nothing is evaluated."""
    network = _lenet()
    masks = {name: torch.ones_like(value) for name, value in _weights(network)}
    optimiser = torch.optim.Adam(network.parameters(), lr=lenet.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda iteration: 1.0)
    images = _FromBytes(digits.train.images, digits.train.labels)
    batches, ticks = iter(DataLoader(images, lenet.batch, shuffle=True)), []
    for _ in range(iterations):
        x, y = next(batches)
        optimiser.zero_grad()
        network.train()
        _mask(network, masks)
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
        schedule.step()
        ticks.append(time.perf_counter())
    return median(later - sooner for sooner, later in zip(ticks, ticks[1:]))


def _lenet() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(784, 300),
        torch.nn.ReLU(),
        torch.nn.Linear(300, 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 10),
    )


def _weights(network: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [each for each in network.named_parameters() if each[0].endswith("weight")]


@torch.no_grad()
def _mask(network: torch.nn.Module, masks: dict[str, torch.Tensor]) -> None:
    for name, value in _weights(network):
        value.mul_(masks[name])


def plain_conv(few: Data, iterations: int) -> float:
    """Seconds of so many iterations of Conv-2 as a good tutorial writes them, and one evaluation of
    validation and test."""
    block = (
        torch.nn.Conv2d(3, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(64, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
    )
    units = (
        torch.nn.Linear(16384, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 10),
    )
    return _plainly(
        torch.nn.Sequential(*block, torch.nn.Flatten(), *units), few, conv2, 1, iterations
    )


def plain_resnet(few: Data, iterations: int) -> float:
    """The same of Resnet-18, its images shifted and flipped one by one as torchvision does it."""
    return _plainly(resnet(), few, resnet18, 1, iterations)


def normed(into: int, out: int, size: int = 3, stride: int = 1) -> tuple[torch.nn.Module, ...]:
    """A convolution and its batch-norm, of torch's own modules."""
    return torch.nn.Conv2d(into, out, size, stride, size // 2, bias=False), torch.nn.BatchNorm2d(
        out
    )


class Block(torch.nn.Module):
    """A residual block of two convolutions, of torch's own modules."""

    def __init__(self, into: int, out: int, stride: int):
        super().__init__()
        self.inner = torch.nn.Sequential(
            *normed(into, out, stride=stride), torch.nn.ReLU(), *normed(out, out)
        )
        self.shortcut = torch.nn.Sequential(*(normed(into, out, 1, stride) if stride > 1 else ()))

    def forward(self, x):
        return (self.inner(x) + self.shortcut(x)).relu()


def resnet(filters: tuple[int, int, int] = (16, 32, 64)) -> torch.nn.Module:
    """Resnet-18 of torch's own modules, for images (n, 3, 32, 32)."""
    groups = zip(filters[:1] + filters, filters, (1, 2, 2))
    blocks = [
        Block(*each)
        for into, out, stride in groups
        for each in ((into, out, stride), (out, out, 1), (out, out, 1))
    ]
    head = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(filters[2], 10))
    return torch.nn.Sequential(*normed(3, filters[0]), torch.nn.ReLU(), *blocks, *head)


def _plainly(
    network: torch.nn.Module, digits: Data, recipe: Recipe, turns: int, every: int
) -> float:
    """Seconds (median over turns) of so many iterations and an evaluation, in a plain loop."""
    alive = {name: torch.ones_like(value) for name, value in _weights(network)}
    device = next(network.parameters()).device
    if recipe.optimiser == "adam":
        optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    else:
        optimiser = torch.optim.SGD(
            network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
    sets = {
        name: TensorDataset(split.images, split.labels)
        for name, split in (("validation", digits.validation), ("test", digits.test))
    }
    sets["train"] = (
        _Augmented(digits.train.images, digits.train.labels)
        if recipe.augment
        else TensorDataset(digits.train.images, digits.train.labels)
    )
    loaders = {
        name: DataLoader(each, recipe.batch if name == "train" else 1000, shuffle=name == "train")
        for name, each in sets.items()
    }
    batches, ticks = (batch for _ in count() for batch in loaders["train"]), [time.perf_counter()]
    for _ in range(turns + 1):
        network.train()
        for _ in range(every):
            x, y = next(batches)
            optimiser.zero_grad()
            F.cross_entropy(network(x.to(device)), y.to(device)).backward()
            optimiser.step()
            _mask(network, alive)
        network.eval()
        with torch.no_grad():
            for name in ("validation", "test"):
                sum(
                    float(F.cross_entropy(network(x.to(device)), y.to(device), reduction="sum"))
                    for x, y in loaders[name]
                )
        ticks.append(time.perf_counter())
    return median(later - sooner for sooner, later in zip(ticks[1:], ticks[2:]))


class _Augmented(TensorDataset):
    """Images and labels, each image cropped out of its padding and flipped at random when it is
    asked for."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor):
        super().__init__(images, labels)
        data.torchvision_datasets()  # mends the next import where it has to be
        from torchvision.transforms import v2

        self.change = v2.Compose([v2.RandomCrop(32, padding=data.SHIFT), v2.RandomHorizontalFlip()])

    def __getitem__(self, i: int):
        image, label = super().__getitem__(i)
        return self.change(image), label


class _FromBytes(TensorDataset):
    """Grey images and labels, each image made a normalised tensor when it is asked for."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor):
        super().__init__((255 * images).round().byte(), labels)
        data.torchvision_datasets()
        from torchvision import transforms

        means = transforms.Normalize(mean=[0.1307], std=[0.3081])
        self.change = transforms.Compose([transforms.ToTensor(), means])

    def __getitem__(self, i: int):
        from PIL import Image

        image, label = super().__getitem__(i)
        return self.change(Image.fromarray(image.numpy())), label
