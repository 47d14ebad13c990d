"""What the page with the ticket lab needs from Python: its digits as a script, and a race recorded
by the engine, which stands there before anything is trained, and where nothing can be.

The lab itself is `book/_static/ticket-lab.js` and `ticket-worker.js`.
"""

import re
from base64 import b64encode
from itertools import pairwise

import numpy as np

from ..core import data, masks, training
from ..core.data import Data, Split
from ..core.networks import initialise
from ..core.recipes import Recipe
from ..core.seeds import generator
from ..core.tickets import Ticket
from .plots.style import COLOURS as BOOK
from .plots.style import CONDITIONS

TRAINING, VALIDATION = 1000, 500  # digits, as many of each class
KEPT = 0.135  # of the hidden layer's connections, in the recorded race
# The paper's recipe made small; the lab's own in ticket-worker.js is the same.
RECIPE = Recipe(
    network="lenet",
    data="mnist5k",
    sizes=(100,),
    iterations=150,
    evaluate_every=5,
    validation=VALIDATION,
    prune_fc=1 - KEPT,
    prune_output=(1 - KEPT) / 2,
)
GREY = BOOK[7]
# What the lab calls its networks, and their colours in the whole book
COLOURS = {
    "dense": GREY,
    "random": CONDITIONS["iterative", "random sparse"][0],
    "reinit": CONDITIONS["iterative", "random reinit"][0],
    "ticket": CONDITIONS["iterative", "winning ticket"][0],
}
Curves = dict[str, list[tuple[int, float]]]  # {network: (iteration, accuracy)}


def digits() -> Data:
    """The lab's digits, pixels 0 to 255: of the embedded ones the first 100 of each class to train
    on, and the 500 held out to validate, ten by ten one of each class."""
    whole = data.load(RECIPE.data, "raw", VALIDATION, RECIPE.split_seed)

    def some(split: Split, count: int) -> Split:
        labels = split.labels.numpy()
        classes = [np.flatnonzero(labels == digit)[: count // 10] for digit in range(10)]
        chosen = np.stack(classes, 1).ravel()
        return Split(split.images[chosen], split.labels[chosen])

    train, held_out = some(whole.train, TRAINING), some(whole.validation, VALIDATION)
    return Data("lab", train, held_out, held_out)


def digits_script(of: Data) -> str:
    """A script that sets `ticketDigits` to the digits of both splits, training first: the pixels
    in Base64, row by row, each run of black ones as a zero and its length, and the labels."""
    splits = of.train, of.validation
    pixels = np.concatenate([split.images.numpy() for split in splits]).astype(np.uint8).tobytes()
    short = re.sub(rb"\0{1,255}", lambda run: bytes([0, len(run[0])]), pixels)
    labels = "".join(str(label) for split in splits for label in split.labels.tolist())
    return (
        f'const ticketDigits = {{ training: {len(of.train.labels)}, labels: "{labels}",\n'
        f'  pixels: "{b64encode(short).decode()}" }};\n'
    )


def recorded(of: Data, recipe: Recipe = RECIPE) -> Curves:
    """A race by the engine: the dense network, then its ticket with its two controls."""
    train, held_out = (Split(part.images / 255, part.labels) for part in (of.train, of.validation))
    unit = Data(of.name, train, held_out, held_out)

    def drawn(purpose: str):
        return initialise(recipe, generator("ticket lab", purpose))

    def curve(record: training.Record) -> list[tuple[int, float]]:
        after = zip(record.curves["iterations"].tolist(), record.curves["val_accuracy"].tolist())
        return [(0, record.measures["val_accuracy_at_start"]), *after]

    initial = drawn("dense")
    full = masks.ones({layer.weight: initial[layer.weight] for layer in recipe.layers})
    order = ("ticket lab", "order")
    [dense] = training.train([Ticket(full, initial, order)], unit, recipe)
    rates = {layer.weight: recipe.rates[layer.kind] for layer in recipe.layers}
    mask = masks.prune_layerwise(masks.magnitude({n: dense.weights[n] for n in full}), full, rates)
    counts = {name: int(layer.sum()) for name, layer in mask.items()}
    racers = {
        "random": (masks.random_mask(full, counts, generator("ticket lab", "mask")), drawn("mask")),
        "reinit": (mask, drawn("reinit")),
        "ticket": (mask, initial),
    }
    tickets = [Ticket(*racer, order) for racer in racers.values()]
    records = dict(zip(racers, training.train(tickets, unit, recipe)))
    return {"dense": curve(dense)} | {name: curve(record) for name, record in records.items()}


def x_of(iteration: float) -> float:
    """Where an iteration stands in the lab's chart; ticket-lab.js has the same two scales."""
    return 36 + 2 * iteration


def y_of(accuracy: float) -> float:
    return 270 - 250 * accuracy


def chart(curves: Curves) -> str:
    """The lab's chart as SVG: its axes, and in a group of their own, which ticket-lab.js replaces,
    the recorded curves with labels at their ends."""
    parts = []
    for percent in range(0, 101, 20):
        y = y_of(percent / 100)
        parts.append(f'<path class="rule" d="M36 {y:g}H336"/>')
        parts.append(f'<text x="31" y="{y + 4:g}" text-anchor="end">{percent}</text>')
    for iteration in range(0, 151, 50):
        x = x_of(iteration)
        parts.append(f'<text x="{x:g}" y="287" text-anchor="middle">{iteration}</text>')
    parts.append('<text x="186" y="304" text-anchor="middle">iterations</text>')
    parts.append('<text x="0" y="10">right, in % of 500 new digits</text>')
    lines = []
    for name, curve in curves.items():
        points = "L".join(f"{x_of(i):g} {y_of(accuracy):.1f}" for i, accuracy in curve)
        lines.append(f'<path class="line {name}" d="M{points}"/>')
    ends = {name: curve[-1][1] for name, curve in curves.items()}
    for name, y in _apart({name: y_of(end) for name, end in ends.items()}).items():
        x, end = x_of(RECIPE.iterations), y_of(ends[name])
        lines.append(f'<path class="leader {name}" d="M{x:g} {end:.1f}L{x + 10:g} {y:.1f}"/>')
        lines.append(f'<text x="{x + 13:g}" y="{y + 4:.1f}">{name} {100 * ends[name]:.0f} %</text>')
    said = ", ".join(f"{name} {100 * end:.0f} %" for name, end in ends.items())
    return (
        f'<svg class="chart" viewBox="0 0 430 310" role="img" aria-label="Accuracy over iterations;'
        f' at the end: {said}">{"".join(parts)}<g class="curves">{"".join(lines)}</g></svg>'
    )


def _apart(heights: dict[str, float], least: float = 15) -> dict[str, float]:
    """Heights of labels, moved up or down so that none lies on another."""
    names = sorted(heights, key=heights.__getitem__)
    placed = [heights[name] for name in names]
    for _ in range(50):
        for i, (upper, lower) in enumerate(pairwise(placed)):
            if lower - upper < least:
                middle = (upper + lower) / 2
                placed[i : i + 2] = middle - least / 2, middle + least / 2
    return dict(zip(names, placed))


def fragment(curves: Curves, static: str = "../../_static") -> str:
    """The lab as HTML, with the recorded race; static: where its scripts are, seen from the
    page."""
    start = {name: f"{100 * curve[0][1]:.0f} %" for name, curve in curves.items()}
    colours = ";".join(f"--{name}:{colour}" for name, colour in COLOURS.items())
    scripts = "".join(
        f'<script defer src="{static}/ticket-{name}.js"></script>\n'
        for name in ("digits", "worker", "lab")
    )
    caption = (
        f"A race recorded when this book was built: networks that keep {100 * KEPT:g} % of their "
        "connections, and the dense network, which keeps all. Before any training the ticket is "
        f"right on {start['ticket']}, the others on {start['reinit']} and {start['random']}."
    )
    return (
        f'<link rel="stylesheet" href="{static}/ticket-lab.css">\n'
        f'<div id="ticket-lab" style="{colours}">\n'
        f'<figure class="race">{chart(curves)}<figcaption>{caption}</figcaption></figure>\n'
        "<noscript><p>Scripts are switched off in this browser, so nothing can be trained on this "
        "page. The race above is the recorded one.</p></noscript>\n"
        f"</div>\n{scripts}"
    )
