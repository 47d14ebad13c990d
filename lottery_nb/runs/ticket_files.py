"""The committed tickets: `book/tickets`, a safetensors file for each recipe, strategy and trial,
with the masks of all its rounds.

So a control or a study is trained anywhere without training its tickets again, and a ticket can be
taken into other code. A file has of each layer one tensor of bits, named as the layer's weight:
`numpy.unpackbits` makes of a row one binary digit, the lowest first, of a number for each weight, 0
for a weight that survives all rounds, else which of the file's rounds prunes it. Its metadata tell
the recipe, the data, each round's training with the digests of its mask and parents, and the
layers' shapes. The last round may be one whose mask is found and which is not trained yet, so that
any machine can go on with it. Initial weights are drawn again from the trial's seed and checked by
digest; files of the paper's Lenet have them as `initial/<parameter>`.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..core import data, recipes
from ..core.errors import LotteryError
from ..core.lines import Line, Node
from ..core.recipes import Recipe, lenet
from ..core.scales import SCALES, check_scale
from ..core.tickets import control_of
from .graph import Ancestry, parents_of, unpacked, with_ancestors
from .plans import Plan, requests_of
from .store import Store, alone, digests_of, replacing, results_folder

# The paper's own networks, by name.
RECIPES = {each.network: each for each in vars(recipes).values() if isinstance(each, Recipe)}
STRATEGIES = ("iterative", "one-shot", "continued")
FORMAT = "lottery-nb tickets, 1"


@dataclass(frozen=True)
class Chain:
    """What a ticket file tells without its tensors. rounds: a list of {"round", "key", "mask",
    "weights", "parents"}, in their order; weights is "" where a round is not trained yet."""

    path: Path
    shapes: dict[str, list[int]]
    data: dict[str, str]
    initial: str
    rounds: list[dict]
    carries_weights: bool

    def mask(self, round: int) -> dict[str, np.ndarray]:
        """The mask of a round: {layer weight: bool array}; raises LotteryError where the file has
        no such round or is damaged."""
        numbers = [each["round"] for each in self.rounds]
        if round not in numbers:
            raise LotteryError(
                f"{self.path} has no round {round}: its rounds are {', '.join(map(str, numbers))}"
            )
        order = numbers.index(round) + 1
        mask = {}
        for name, planes in self._tensors("").items():
            bits = np.unpackbits(planes, axis=1, count=int(np.prod(self.shapes[name])))
            pruned_in = (
                bits.astype(np.uint8) << np.arange(len(planes), dtype=np.uint8)[:, None]
            ).sum(0)
            mask[name] = ((pruned_in == 0) | (pruned_in > order)).reshape(self.shapes[name])
        return mask

    def told(self, round: int) -> dict:
        """What the file tells of a round."""
        return next(each for each in self.rounds if each["round"] == round)

    def initial_weights(self) -> dict[str, np.ndarray]:
        """The dense network's initial parameters that the file carries; {} where it carries
        none."""
        return self._tensors("initial/") if self.carries_weights else {}

    def _tensors(self, prefix: str) -> dict[str, np.ndarray]:
        try:
            with safe_open(self.path, "numpy") as file:
                return {
                    name.removeprefix(prefix): file.get_tensor(name)
                    for name in [*file.keys()]
                    if name.startswith("initial/") == bool(prefix)
                }
        except (SafetensorError, OSError) as error:
            raise _unusable(self.path, error) from error


def folder() -> Path | None:
    """Where the committed tickets are: beside the committed tables."""
    where = results_folder()
    return where and where.parent / "tickets"


def chains() -> dict[str, tuple[Chain, int]]:
    """Of each training of a winning ticket that a file tells of: the file and the round, by the
    training's key."""
    where = folder()
    paths = sorted(where.glob("*.safetensors")) if where else []
    return _chains(tuple((path, path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=4)
def _chains(files: tuple[tuple[Path, int], ...]) -> dict[str, tuple[Chain, int]]:
    found: dict[str, tuple[Chain, int]] = {}
    for chain in (_chain(path) for path, _ in files):
        found |= {each["key"]: (chain, each["round"]) for each in chain.rounds}
    return found


def _chain(path: Path) -> Chain:
    try:
        with safe_open(path, "numpy") as file:
            told, names = file.metadata() or {}, set(file.keys())
        if told.get("format") != FORMAT:
            raise ValueError("it has no ticket of this book")
        shapes, data_, rounds = (json.loads(told[name]) for name in ("shapes", "data", "rounds"))
        chain = Chain(
            path,
            shapes,
            data_,
            told["initial"],
            rounds,
            any(name.startswith("initial/") for name in names),
        )
        if not set(chain.shapes) <= names:
            raise ValueError(f"it lacks {', '.join(sorted(set(chain.shapes) - names))}")
        return chain
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> LotteryError:
    why = " ".join(str(error).split())[:100]
    return LotteryError(
        f"{path} cannot be read as a ticket file ({why}): restore it with git, or delete it and "
        "train its tickets"
    )


def given(node: Node) -> bool:
    """Whether a committed file has the mask of a node."""
    return (
        bool(node.parent)
        and not node.recipe.rewind
        and "final weights" not in control_of(node.control).needs
        and node.ticket.key in chains()
    )


def ancestry(node: Node) -> Ancestry:
    """What a node is made from, out of a committed file; raises LotteryError where its data are not
    those at hand."""
    chain, round = chains()[node.ticket.key]
    here = data.digest_at_hand(node.recipe.data)
    if here and here != chain.data["digest"]:
        raise LotteryError(
            f"the mask of {node.key} was found on {chain.data['said']} ({chain.data['digest']}), "
            "and the data at hand are "
            f"{data.said(node.recipe.data)} ({here}): the two are never mixed. "
            "Set LOTTERY_RESULTS to nothing to train its tickets on these data, or LOTTERY_DATA to "
            "those"
        )
    origin = (
        {f"initial/{name}": value for name, value in chain.initial_weights().items()}
        if node.origin
        else None
    )
    return Ancestry(
        origin=origin or None,
        pruned={name: np.packbits(mask) for name, mask in chain.mask(round).items()},
        parents=parents(node),
        initial=chain.initial,
    )


def parents(node: Node) -> dict[str, dict[str, str]]:
    """The digests of mask and weights that a committed file tells of a node's parents, by their
    keys."""
    chain, round = chains()[node.ticket.key]
    return {other.key: chain.told(round)["parents"][other.key] for other in parents_of(node)}


def load_ticket(
    network: str,
    trial: int = 0,
    round: int = 0,
    strategy: str = "iterative",
    scale: str | None = None,
):
    """A ticket of this book, to train with code of your own.

    Parameters
    ----------
    network : str
        "lenet" | "conv2" | "conv4" | "conv6" | "resnet18" | "vgg19", by the paper's own recipe;
        of the last two only tickets of other recipes are committed.
    trial : int
        Which initialisation, from 0.
    round : int
        How often it was pruned; 0 is the dense network. One-shot tickets are pruned once: there it
        counts the steps of 2.5 % that were pruned of a hidden layer.
    strategy : str
        "iterative" | "one-shot" | "continued" (continued training).
    scale : str, optional
        At which it was found, "laptop" | "paper"; None takes the best that is committed.

    Returns
    -------
    lottery_nb.core.tickets.Ticket
        `mask`, ``{"fc1.weight": bool tensor (300, 784), ...}``, True for a weight that survives,
        and `weights`, the initial weights under that mask, a state dict of the plain PyTorch
        network with these names, ``{"fc1.weight": float32 tensor (300, 784), "fc1.bias": (300,),
        ...}``.

    Raises
    ------
    LotteryError
        For a ticket that is not committed (the message says which are), for a damaged file, and
        where this processor draws other initial weights than the ticket's.

    Examples
    --------
    >>> from lottery_nb import load_ticket
    >>> ticket = load_ticket("lenet", trial=0, round=7)
    >>> ticket.mask["fc1.weight"].shape
    torch.Size([300, 784])
    >>> sum(int(mask.sum()) for mask in ticket.mask.values())  # of 266,200 weights
    56094
    >>> pruned = ~ticket.mask["fc1.weight"]
    >>> int(ticket.weights["fc1.weight"][pruned].count_nonzero())
    0
    """
    import torch

    from ..core import tickets
    from ..core.tickets import Ticket

    there = chains()
    nodes = [
        _node(network, trial, round, strategy, each)
        for each in ([scale] if scale else reversed(SCALES))
    ]
    node = next((each for each in nodes if each.key in there), None)
    if node is None:
        others = len({c.path for c, _ in there.values() if c.path.name.startswith(f"{network}-")})
        known = _known(network, there) or (
            f"none of its own recipe, and files of {others} others in {folder()}"
            if others
            else "none of it"
        )
        raise LotteryError(
            f"no ticket of {network}, {strategy}, trial {trial}, round {round} is committed; "
            f"there are {known}"
        )
    chain, _ = there[node.key]
    shapes = {layer.weight: list(layer.shape) for layer in node.recipe.layers}
    if chain.shapes != shapes:
        raise _unusable(chain.path, ValueError(f"its layers are not those of {network}"))
    mask = {name: torch.from_numpy(each) for name, each in chain.mask(round).items()}
    if tickets.fingerprint(mask) != chain.told(round)["mask"]:
        raise _unusable(chain.path, ValueError("a mask does not match its digest"))
    carried = {name: torch.from_numpy(value) for name, value in chain.initial_weights().items()}
    began = tickets.initial_weights(node, chain.initial, carried)
    weights = {k: value * mask[k] if k in mask else value for k, value in began.items()}
    return Ticket(mask, weights, ("order", "taken home"))


def _node(network: str, trial: int, round: int, strategy: str, scale: str) -> Node:
    """The winning ticket of a network of the paper at a scale; raises LotteryError for what is
    none."""
    if network not in RECIPES:
        raise LotteryError(f"there is no network {network!r}: choose {', '.join(RECIPES)}")
    if strategy not in STRATEGIES:
        raise LotteryError(f"there is no strategy {strategy!r}: choose {', '.join(STRATEGIES)}")
    check_scale(scale)
    for name, value in (("trial", trial), ("round", round)):
        if not isinstance(value, int) or value < 0:
            raise LotteryError(f"{name} is {value!r}: a whole number of 0 or more is needed")
    return Line(RECIPES[network], strategy).node(RECIPES[network].at(scale), trial, round)


def _known(network: str, there: dict) -> str:
    """Which tickets of a network's own recipe are committed, in words."""
    said = []
    for scale in SCALES:
        for strategy in STRATEGIES:
            rounds = {
                t: [r for r in range(61) if _node(network, t, r, strategy, scale).key in there]
                for t in range(10)
            }
            rounds = {t: found for t, found in rounds.items() if len(found) > 1}
            if rounds:
                trials = ", ".join(map(str, rounds))
                found = ", ".join(map(str, sorted(set().union(*rounds.values()))))
                said.append(f"at {scale} scale, {strategy}: trials {trials}, rounds {found}")
    return "; ".join(said)


def export(plans: dict[str, Plan], scale: str, trials: int | None = None) -> list[str]:
    """Write the masks of the winning tickets that plans stand on, as far as the store has them,
    into the committed tickets; what was done, in lines. Rounds that a file has and the store has
    not stay; where the next round is wanted, its mask is written too. Raises LotteryError, and
    writes nothing more, where a file has other tickets."""
    where, store = folder(), Store()
    if where is None:
        raise LotteryError(
            "LOTTERY_RESULTS is empty: unset it, or name the folder of tables beside which the "
            "tickets go"
        )
    wanted = with_ancestors(requests_of(plans.values(), scale, trials))
    nodes: dict[tuple, dict[int, Node]] = {}
    for node in (request.node for request in wanted.values()):
        # The weights that rewinding goes back to are trained ones: no file could draw them again.
        winning = node.control == "winning ticket" and not node.recipe.rewind and not node.order
        if winning and node.key in store:
            nodes.setdefault((node.recipe, node.strategy, node.trial), {})[node.round] = node
    said = []
    for (recipe, strategy, trial), rounds in nodes.items():
        if strategy == "iterative" and set(rounds) == {0}:
            continue  # a dense network alone has no mask to take along
        which = recipe, strategy, trial, scale
        with alone(where):
            said.append(_write(where, store, *which, dict(sorted(rounds.items())), {*wanted}))
    if not said:
        names = " ".join(plans)
        raise LotteryError(
            f"{names}: the store {store.folder} has no tickets of it at {scale} scale: python -m "
            f"lottery_nb run {names} --scale {scale}"
        )
    return said


def _write(
    where: Path,
    store: Store,
    recipe: Recipe,
    strategy: str,
    trial: int,
    scale: str,
    rounds: dict[int, Node],
    wanted: set[str],
) -> str:
    """Add a recipe's stored tickets of one trial to their file; what was done, in a line. rounds:
    those in the store; wanted: keys, among which the round after them may be."""
    first = next(iter(rounds.values()))
    which = first.dense.key.rpartition("-")[2][:8]
    name = f"{recipe.network}-{scale}-{strategy}-t{trial}-{which}.safetensors"
    path = where / name
    held = _chain(path) if path.exists() else None
    kept = {each["round"]: each for each in held.rounds} if held else {}
    trained = {round for round, each in kept.items() if each["weights"]}
    last = max(rounds)
    coming = replace(first, round=last + 1)
    finds = strategy == "iterative" and coming.key in wanted and last + 1 not in kept
    if set(rounds) <= trained and not finds:
        return f"{path}: has all rounds"
    fresh, masks = _of_store(rounds, store)
    data_, initial, carried = _beginning(held, first.dense, store)
    if held and (held.initial != initial or _differ(kept, fresh)):
        raise LotteryError(
            f"{path} has other tickets than the store {store.folder}: it stays as it is; delete "
            "the file to replace it"
        )
    if held:
        masks = {round: held.mask(round) for round in kept} | masks
    if finds:
        fresh[last + 1], masks[last + 1] = _found(coming, rounds[last], store)
    told = dict(sorted((kept | fresh).items()))
    layers = {layer.weight: list(layer.shape) for layer in recipe.layers}
    tensors = {
        layer: _planes({each["key"]: masks[round][layer] for round, each in told.items()})
        for layer in layers
    }
    if recipe.identity == lenet.at(scale).identity and strategy == "iterative":
        tensors |= carried
    metadata = {
        "format": FORMAT,
        "network": recipe.network,
        "scale": scale,
        "strategy": strategy,
        "trial": str(trial),
        "recipe": json.dumps(recipe.identity),
        "shapes": json.dumps(layers),
        "data": json.dumps(data_),
        "initial": initial,
        "rounds": json.dumps(list(told.values())),
    }
    with replacing(path) as draft:
        try:
            save_file(tensors, draft, metadata)
        except SafetensorError as error:  # of a full disk, too
            raise OSError(str(error)) from error
    return f"{path}: rounds {', '.join(map(str, told))}, {path.stat().st_size / 1000:,.0f} kB"


def _of_store(
    rounds: dict[int, Node], store: Store
) -> tuple[dict[int, dict], dict[int, dict[str, np.ndarray]]]:
    """What a file tells of each round that a store has, and its masks by layer weight."""
    told, masks = {}, {}
    for round, node in rounds.items():
        record, arrays = store.needed_record(node.key), store.needed_arrays(node.key)
        told[round] = {
            "round": round,
            "key": record["key"],
            "mask": record["mask"],
            "weights": record["weights"],
            "parents": record["made_of"]["parents"],
        }
        masks[round] = {
            layer.weight: unpacked(arrays[f"mask/{layer.weight}"], layer.shape)
            for layer in node.recipe.layers
        }
    return told, masks


def _beginning(held: "Chain | None", dense: Node, store: Store) -> tuple[dict, str, dict]:
    """The data of a chain, the digest of its initial weights, and those weights: of its dense
    network, or of the file where the store has none."""
    if held and dense.key not in store:
        weights = {f"initial/{name}": value for name, value in held.initial_weights().items()}
        return held.data, held.initial, weights
    record, arrays = store.needed_record(dense.key), store.needed_arrays(dense.key)
    weights = {name: value for name, value in arrays.items() if name.startswith("initial/")}
    return record["made_of"]["data"], record["initial"], weights


def _differ(kept: dict[int, dict], fresh: dict[int, dict]) -> bool:
    """Whether a round is told otherwise by a file and by a store; a mask that was found and not
    trained has no weights yet."""
    return any(
        kept[round][name] not in ("", fresh[round][name])
        for round in kept.keys() & fresh.keys()
        for name in ("mask", "weights")
    )


def _planes(masks: dict[str, np.ndarray]) -> np.ndarray:
    """The bits of a layer as a file has them, from its masks round by round, by their trainings'
    keys; `Chain.mask` reads them."""
    alive = np.ones(next(iter(masks.values())).size, bool)
    pruned_in = np.zeros(alive.size, np.uint8)
    for order, (key, mask) in enumerate(masks.items(), 1):
        left = mask.ravel()
        if (left & ~alive).any():
            raise LotteryError(
                f"{key}: its mask is not within that of the round before; run store verify"
            )
        pruned_in[alive & ~left], alive = order, left
    planes = max(len(masks).bit_length(), 1)
    return np.stack([np.packbits(pruned_in >> plane & 1) for plane in range(planes)])


def _found(coming: Node, last: Node, store: Store) -> tuple[dict, dict[str, np.ndarray]]:
    """What pruning a stored ticket gives: what a file tells of the coming round, and its mask."""
    from ..core import tickets
    from .batch import outputs_of

    record = store.needed_record(last.key)
    mask = tickets.prune(coming, outputs_of(store.needed_arrays(last.key)))
    known = record["made_of"]["parents"] | {last.key: digests_of(record)}
    told = {
        "round": coming.round,
        "key": coming.key,
        "mask": tickets.fingerprint(mask),
        "weights": "",
        "parents": {before.key: known[before.key] for before in parents_of(coming)},
    }
    return told, {name: each.numpy() for name, each in mask.items()}
