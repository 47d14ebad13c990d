"""The committed results: in `book/results` one table a network and scale, in which no training
stands twice.

Figures and studies select from them by key. A table has one row a measurement: `node` (the
training's key), `strategy`, `control`, `trial`, `draw`, `round`, `density`, `iteration`, `metric`,
`x`, `value`, and where it came from: `commit`, `versions`, `device`, `data`, `started`, `seconds`,
and the digests `dataset`, `mask`, `weights` and `parents`. Trainings older than these digests have
none: what they were made of cannot be checked, and they go as soon as one they may stand on is
trained anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import LotteryError
from ..core.lines import CURVES, PATH, TEST_STOP, Line, Node, any_distribution, in_order
from ..core.scales import SCALES
from ..runs.graph import parents_of, with_ancestors
from ..runs.plans import Plan, Request, needs_of, requests_of
from ..runs.runner import stored
from ..runs.store import Store, alone, replacing, results_folder
from .distributions import distribution
from .paths import accuracy_on_path, error_barrier, similarity

NUMBERS = {"trial", "draw", "round", "density", "iteration", "x", "value", "seconds"}
LINEAGE = (
    "dataset",
    "mask",
    "weights",
    "parents",
)  # digests; parents: "key mask weights" of each, "; " between
PROVENANCE = ("commit", "versions", "device", "data", "started", "seconds", *LINEAGE)
COLUMNS = (
    "strategy",
    "control",
    "trial",
    "draw",
    "round",
    "density",
    "iteration",
    "metric",
    "x",
    "value",
    "node",
    *PROVENANCE,
)
TEXTS = [name for name in COLUMNS if name not in NUMBERS]
POINT = ["node", "metric", "iteration", "x"]  # of which a table has one row
ENOUGH = 3  # trials at which a line is shown at a scale, if the scale itself has no fewer


@dataclass(frozen=True, eq=False)
class Committed:
    """All committed tables: `rows` have the columns of a table and `scale`; tables: their names,
    such as "lenet-laptop"."""

    rows: pd.DataFrame
    tables: frozenset[str] = frozenset()

    @cached_property
    def held(self) -> dict[str, frozenset[str]]:
        """Of each training, the metrics it has beside the usual ones."""
        beside: dict[str, set[str]] = {}
        pairs = self.rows.loc[extra(self.rows), ["node", "metric"]].drop_duplicates()
        for key, metric in zip(pairs.node, pairs.metric):
            beside.setdefault(key, set()).add(metric)
        return {key: frozenset(beside.get(key, ())) for key in self.trainings.index}

    @cached_property
    def trainings(self) -> pd.DataFrame:
        """A row a training, by its key: what is the same in all its rows."""
        return self.rows.drop_duplicates("node").set_index("node")[["scale", "trial", *PROVENANCE]]

    @cache  # noqa: B019
    def _trials(self, network: str) -> int:
        """The most trials that a training of a network has."""
        own = self.trainings.index.str.startswith(f"{network}-")
        return int(self.trainings.trial[own].max()) + 1 if own.any() else 0

    def serves(self, request: Request) -> bool:
        """Whether a training is there with all that is shown of it."""
        return request.node.key in self.held and request.shows <= self.held[request.node.key]

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        codes = self.rows.node.array.codes
        order = np.argsort(codes, kind="stable")
        keys, starts = np.unique(codes[order], return_index=True)
        return dict(zip(self.rows.node.cat.categories[keys], np.split(order, starts[1:])))

    @cached_property
    def _metrics(self) -> tuple[np.ndarray, pd.Index]:
        return self.rows.metric.array.codes, self.rows.metric.cat.categories

    @cached_property
    def _extra(self) -> np.ndarray:
        return extra(self.rows).to_numpy()

    def places(self, keys: Iterable[str], shows: Iterable[str]) -> np.ndarray:
        """The places in `rows` of what is shown of trainings, in their order."""
        found = [self._places[key] for key in keys]
        if not found:
            return np.empty(0, int)
        places = np.concatenate(found)
        chosen = ~self._extra[places]
        if shows := list(shows):
            metrics, names = self._metrics
            chosen |= np.isin(metrics[places], names.get_indexer(shows))
        return places[chosen]

    @cache  # noqa: B019 (as many live as the committed files had states)
    def nodes(self, line: Line, scale: str, trials: int | None = None) -> list[Node]:
        """The trainings that a line shows at a scale: those of so many trials, and, where none are
        named, of every further trial that is there."""
        asked = line.nodes(scale, trials)
        if trials is None and len(self.rows):
            own, shows = line.recipe.at(scale).trials, frozenset(line.shows)
            asked += [
                node
                for trial in range(own, self._trials(line.recipe.network))
                for node in line.of_trial(scale, trial)
                if self.serves(Request(node, shows))
            ]
        return in_order(asked)

    @cache  # noqa: B019
    def best_scale(self, line: Line) -> str | None:
        """The best scale at which a line is whole in three trials, or in as many as the scale has;
        where it is nowhere, the one at which most of it is there; None where nothing is."""
        scales = [s for s in reversed(SCALES) if f"{line.recipe.network}-{s}" in self.tables]
        for scale in scales:
            if self._is_whole(line, scale):
                return scale
        parts = {scale: self._share(line, scale) for scale in scales}
        best = max(parts, key=parts.get, default=None)
        return best if best and parts[best] else None

    def _is_whole(self, line: Line, scale: str) -> bool:
        enough, shows = min(ENOUGH, line.recipe.at(scale).trials), frozenset(line.shows)
        whole = (
            all(self.serves(Request(node, shows)) for node in line.of_trial(scale, trial))
            for trial in range(max(enough, self._trials(line.recipe.network)))
        )
        any_asked = bool(enough and line.nodes(scale, 1))
        return any_asked and len(list(islice(filter(None, whole), enough))) == enough

    def _share(self, line: Line, scale: str) -> float:
        """How much of a line is there."""
        asked, shows = self.nodes(line, scale), frozenset(line.shows)
        return sum(self.serves(Request(node, shows)) for node in asked) / max(len(asked), 1)


def committed() -> Committed:
    """The committed tables as they are now; read once while the files stay as they are."""
    where = results_folder()
    paths = sorted(where.glob("*.parquet")) if where else []
    return _read(tuple((path, path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=4)
def _read(files: tuple[tuple[Path, int], ...]) -> Committed:
    if not files:
        return Committed(pd.DataFrame(columns=[*COLUMNS, "scale"]))
    rows = _joined([_table(path) for path, _ in files], [_scale_of(path) for path, _ in files])
    twice = rows[["node", "scale"]].drop_duplicates()
    twice = twice.node[twice.node.duplicated()]
    if len(twice) or rows.duplicated(POINT).any():
        key = twice.iloc[0] if len(twice) else rows.node[rows.duplicated(POINT)].iloc[0]
        raise LotteryError(
            f"{files[0][0].parent}: {key} stands there twice; restore the tables with git"
        )
    return Committed(rows, frozenset(path.stem for path, _ in files))


def _scale_of(path: Path) -> str:
    scale = path.stem.rpartition("-")[2]
    if scale not in SCALES:
        raise LotteryError(
            f"{path} is no table of results: their names are NETWORK-SCALE.parquet, and scales are "
            f"{', '.join(SCALES)}"
        )
    return scale


def _table(path: Path) -> pa.Table:
    """A committed table; its texts as places in a dictionary, of which a selection copies
    numbers."""
    try:
        lacks = [name for name in COLUMNS if name not in pq.read_schema(path).names]
        if not lacks:
            return pq.read_table(path, columns=list(COLUMNS), read_dictionary=TEXTS)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise _unusable(path, f"cannot be read ({' '.join(str(error).split())[:100]})") from error
    raise _unusable(path, f"lacks {', '.join(lacks)}")


def _joined(tables: list[pa.Table], scales: list[str]) -> pd.DataFrame:
    """All rows of tables, with the scale of each."""
    told = [
        table.append_column("scale", pa.array([scale] * len(table)).dictionary_encode())
        for table, scale in zip(tables, scales)
    ]
    return pa.concat_tables(told).unify_dictionaries().to_pandas()


def _unusable(path: Path, why: str) -> LotteryError:
    return LotteryError(
        f"{path} {why}: restore it with git, or delete it and make it anew with run and store "
        "freeze"
    )


def extra(rows: pd.DataFrame) -> pd.Series:
    """Which rows are shown only by lines that ask for them."""
    return rows.metric.isin((*CURVES, *TEST_STOP, *PATH)) | rows.x.notna()


def readable(store: Store, request: Request) -> bool:
    """Whether the store has all that a training's rows are made of."""
    return stored(store, request) and all(other.key in store for other in made_with(request))


def on_a_thread(device: str) -> bool:
    """Whether a training's device is a processor's thread, as `batch.device_name` calls it, and no
    GPU."""
    return "thread" in device


def besides(requests: Iterable[Request]) -> dict[str, Request]:
    """What is to be trained besides some trainings, so that their rows can be made, by key."""
    return {node.key: Request(node) for request in requests for node in made_with(request)}


def served(store: Store, request: Request) -> Request | None:
    """What the store can serve of a request: all, or of what it shows besides only some; None where
    it has not the training."""
    if readable(store, request):
        return request
    shown = frozenset(
        each
        for each in request.shows
        if readable(store, Request(request.node, frozenset({each}), needs_of({each})))
    )
    some = Request(request.node, shown, needs_of(shown))
    return some if readable(store, some) else None


def made_with(request: Request) -> list[Node]:
    """Of which trainings the rows of one are made besides: distributions are over what its dense
    network began as, and a path leads from the training in another order."""
    dense = [request.node.dense] if any_distribution(request.shows) else []
    return dense + ([request.node.start_of_path] if request.shows & {*PATH} else [])


def rows_of(node: Node, store: Store, shows: Iterable[str]) -> pd.DataFrame:
    """The rows of a stored training."""
    record = store.needed_record(node.key)
    stop, end = record["early_stop"], record["iterations"]
    rows = [("early_stop_iteration", stop, np.nan, float(stop))]
    for name, value in sorted(record["measures"].items()):
        rows.append((name, _moment(name, record, node), np.nan, value))
    for metric in shows:
        if metric in CURVES:
            arrays = store.needed_arrays(node.key)
            rows += [
                (metric, int(iteration), np.nan, float(value))
                for iteration, value in zip(arrays["iterations"], arrays[metric])
            ]
        elif metric not in (*TEST_STOP, *PATH):
            origin = store.needed_arrays(node.dense.key)
            rows += [
                (metric, end, x, value)
                for x, value in distribution(metric, store.needed_arrays(node.key), origin)
            ]
    if {*PATH} & {*shows}:
        start, arrays = (store.needed_arrays(n.key) for n in (node.start_of_path, node))
        path = accuracy_on_path(node.recipe, start, arrays)
        rows.append((PATH[0], end, np.nan, error_barrier(path)))
        rows.append((PATH[1], end, np.nan, similarity(start, arrays)))
        rows += [(PATH[2], end, place, accuracy) for place, accuracy in path]
    who = {
        name: record[name] for name in ("strategy", "control", "trial", "draw", "round", "density")
    }
    made = record["made_of"]
    told = {name: made[name] for name in ("commit", "versions", "device")} | {
        "data": made["data"]["said"],
        "dataset": made["data"]["digest"],
    }
    told |= {name: record[name] for name in ("started", "seconds", "mask", "weights")}
    told["parents"] = _said_parents(made["parents"])
    return pd.DataFrame(rows, columns=["metric", "iteration", "x", "value"]).assign(
        **who, node=node.key, **told
    )[list(COLUMNS)]


def _moment(measure: str, record: dict, node: Node) -> int:
    """The iteration at which a measure was taken."""
    if measure.endswith("_at_start"):
        return 0
    if measure in TEST_STOP:
        return int(record["measures"]["early_stop_iteration_test"])
    if "_at_checkpoint_" in measure:
        return node.recipe.checkpoints[int(measure.rpartition("_")[2]) - 1]
    return record["early_stop"] if measure.endswith("_early_stop") else record["iterations"]


def _said_parents(parents: dict[str, dict[str, str]]) -> str:
    return "; ".join(
        f"{key} {parent['mask']} {parent['weights']}" for key, parent in sorted(parents.items())
    )


def freeze(
    plans: dict[str, Plan], scale: str, trials: int | None = None, book: Iterable[Plan] = ()
) -> list[str]:
    """Add what the store has of plans' trainings, those they stand on included, to the committed
    tables; what was done, in lines.

    Nothing that is committed is replaced by other weights, and nothing goes, save trainings older
    than lineage that may stand on one that is trained anew; book: all plans there are, to know
    those. What the store has with other weights than are committed is left out, with what stands on
    it. Raises LotteryError, and writes nothing, where that is all.
    """
    where, store = results_folder(), Store()
    if where is None:
        raise LotteryError(
            "LOTTERY_RESULTS is empty: unset it, or name the folder that the tables go to"
        )
    shown = requests_of(plans.values(), scale, trials)
    wanted = {
        key: request
        for key, request in with_ancestors(shown).items()
        if key in shown or request.node.control == "winning ticket"
    }
    there = {key: served(store, request) for key, request in wanted.items()}
    fresh = {key: request for key, request in there.items() if request}
    if not fresh:
        names = " ".join(plans)
        raise LotteryError(
            f"{names}: the store {store.folder} has none of the {len(wanted)} trainings at {scale} "
            f"scale: python -m lottery_nb run {names} --scale {scale}"
        )
    with alone(where):
        return _added(where, store, scale, fresh, wanted, book)


def _added(
    where: Path,
    store: Store,
    scale: str,
    fresh: dict[str, Request],
    wanted: dict[str, Request],
    book: Iterable[Plan],
) -> list[str]:
    """What `freeze` does to the tables, in lines."""
    before = committed()
    fresh, said = _less_other_weights(before, store, fresh)
    # One scale's training may be another's too.
    places = {key: before.trainings.scale[key] if key in before.held else scale for key in fresh}
    for network, place in sorted(
        {(request.node.recipe.network, places[key]) for key, request in fresh.items()}
    ):
        path = where / f"{network}-{place}.parquet"
        old = _table(path).to_pandas() if path.exists() else pd.DataFrame(columns=COLUMNS)
        own = {
            key: request
            for key, request in fresh.items()
            if (request.node.recipe.network, places[key]) == (network, place)
        }
        new = pd.concat(
            [rows_of(request.node, store, sorted(request.shows)) for request in own.values()]
        )
        kept = old[~(old.weights.eq("") & old.node.isin(own))]
        gone = _made_of_former(kept, new, place, book)
        kept = kept[~kept.node.isin(gone)]
        table = (
            pd.concat([part for part in (new, kept) if len(part)])
            .drop_duplicates(POINT)
            .sort_values(POINT, ignore_index=True)
        )
        with replacing(path) as draft:
            table.to_parquet(draft, index=False, compression="zstd")
        lost = f", {len(gone)} of a former lineage went" if gone else ""
        asked = sum(request.node.recipe.network == network for request in wanted.values())
        part = sum(request.shows < wanted[key].shows for key, request in own.items())
        lacking = f" ({part} without all that is shown of them)" * bool(part)
        in_all = f"{table.node.nunique()} in all{lost}"
        said.append(f"{path}: {len(own)} of {asked} trainings{lacking}, {in_all}")
    return said


def _less_other_weights(
    before: Committed, store: Store, fresh: dict[str, Request]
) -> tuple[dict[str, Request], list[str]]:
    """What can be added: less what is committed with other weights, as of another machine, and what
    stands on that; what was left out, in lines. Raises LotteryError where that is all."""
    others = [
        key
        for key in fresh
        if key in before.held
        and before.trainings.weights[key] not in ("", store.needed_record(key)["weights"])
    ]
    if not others:
        return fresh, []
    left = set(others)
    for key, request in with_ancestors(fresh).items():  # parents come first
        if any(parent.key in left for parent in parents_of(request.node)):
            left.add(key)
    kept = {key: request for key, request in fresh.items() if key not in left}
    first = others[0]
    why = (
        f"{first} is committed with other weights ({before.trainings.device[first]}, "
        f"{before.trainings.versions[first]}) than the store {store.folder} has: committed "
        "trainings are not replaced"
    )
    if not kept:
        raise LotteryError(
            f"{why}. Use the store that has them, or LOTTERY_RESULTS for tables of your own"
        )
    count = len(left & fresh.keys())
    return kept, [f"left out, with what stands on it: {count} of {len(fresh)} trainings. {why}"]


def _made_of_former(
    kept: pd.DataFrame, new: pd.DataFrame, scale: str, book: Iterable[Plan]
) -> set[str]:
    """The committed trainings whose lineage is not known and some parent of which is trained
    anew."""
    unknown, anew = set(kept.node[kept.weights.eq("")]), set(new.node)
    if not unknown:
        return set()
    known = with_ancestors(
        requests_of(book, scale, 1 + int(max(kept.trial.max(), new.trial.max())))
    )
    gone: set[str] = set()
    for key, request in known.items():  # parents come first
        if key in unknown and any(
            parent.key in anew or parent.key in gone for parent in parents_of(request.node)
        ):
            gone.add(key)
    return gone
