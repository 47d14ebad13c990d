"""How weights and connections are distributed over a layer: the paper's Figures 15, 16 and 19 to 24, from stored arrays."""

import numpy as np

Arrays = dict[str, np.ndarray]

BINS = {  # edges; the paper draws weights no further than these, movement and growth no further than 0.5
    "initial weights": np.linspace(-0.28, 0.28, 113),
    "movement": np.linspace(0, 0.5, 51),
    "growth": np.linspace(-0.25, 0.5, 76),
    "connections": np.linspace(-0.01, 1.01, 52),  # a bin each 2 %
}


def distribution(metric: str, arrays: Arrays, origin: Arrays) -> list[tuple[float, float]]:
    """The probability density of a quantity over a layer, a pair (middle of a bin, density) a bin; 1 is the area in all.

    metric: one of `specs.DISTRIBUTIONS` and a layer, such as "initial weights, fc1"; arrays: of the node in the store;
    origin: of its trial's unpruned network. What lies outside the bins counts in the area, not in any bin.
    """
    what, layer = metric.split(", ")
    weight = f"{layer}.weight"
    initial, trained = origin[f"initial/{weight}"], origin[f"final/{weight}"]
    mask = np.unpackbits(arrays[f"mask/{weight}"], count=initial.size).astype(bool).reshape(initial.shape)
    quantity, _, side = what.partition(" ")
    chosen = mask if side == "in the ticket" else ~mask
    match quantity:
        case "initial":
            return _histogram(initial[mask], BINS[what])
        case "movement":
            return _histogram(np.abs(trained - initial)[chosen], BINS[quantity])
        case "growth":
            return _histogram((np.abs(trained) - np.abs(initial))[chosen], BINS[quantity])
        case "incoming":
            return _histogram(mask.mean(1), BINS["connections"])
        case "outgoing":
            return _histogram(mask.mean(0), BINS["connections"])
    raise ValueError(metric)


def _histogram(values: np.ndarray, edges: np.ndarray) -> list[tuple[float, float]]:
    counts, _ = np.histogram(values, edges)
    width = edges[1] - edges[0]
    return [(round(float(x), 6), float(count / len(values) / width)) for x, count in zip(edges[:-1] + width / 2, counts)]
