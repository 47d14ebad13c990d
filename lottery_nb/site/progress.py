"""How far the book is: what is trained and what is left, and what the claims have become."""

import json
from functools import cache, lru_cache

import numpy as np
import pandas as pd

from ..analysis import claims, results, tables
from ..core.recipes import Recipe
from ..runs import graph
from ..runs.plans import Request, joined, requests_of
from ..runs.runner import stored
from ..runs.store import ROOT, Store
from .notebooks import Notebook, figures

SIMULATED = ROOT / "book" / "results" / "simulation.json"
# Of a figure: how many trainings are done, how many it wants, and the seconds of each that is left.
Remaining = dict[Notebook, tuple[int, int, dict[str, float]]]


def judged(notebooks: list[Notebook] | None = None) -> dict[Notebook, pd.DataFrame]:
    """The claims of notebooks, judged by what is committed; None: of every figure."""
    held = results.committed()
    return {
        each: claims.verdicts(each.name, _table(each, held))
        for each in (figures() if notebooks is None else notebooks)
    }


def real_tables() -> dict[Notebook, pd.DataFrame]:
    """The committed table of every figure that is trained, at more than smoke scale."""
    trained = [f for f in figures() if f.plan and f.committed_scale not in (None, "smoke")]
    return {figure: _table(figure, results.committed()) for figure in trained}


@lru_cache(maxsize=200)
def _table(figure: Notebook, held: results.Committed) -> pd.DataFrame:
    """A figure's table of what is committed."""
    if figure.plan:
        return tables.of_committed(figure.plan)[0]
    return figure.values("parameters", "imports", "plan", "run")["table"]


def sharing(scale: str) -> tuple[int, int]:
    """How many trainings the figures ask for at a scale, each with all that it stands on, and how
    many of them are distinct."""
    needed = [graph.with_ancestors(requests_of([figure.plan], scale)) for figure in figures()]
    return sum(map(len, needed)), len(set().union(*needed))


def programme() -> tuple[int, int, int]:
    """How many trainings the paper's figures show here, their iterations, and those of the paper's
    own programme: each training once, without what it stands on."""
    papers = [figure for figure in figures() if figure.plan and not figure.is_added]
    theirs = joined(requests_of([figure.plan], "paper") for figure in papers)
    shown: dict[str, int] = {}
    for figure in papers:
        table = _table(figure, results.committed())
        for label, of in table.groupby("line", observed=True):
            recipe = figure.plan[label].recipe.at(table.attrs["scales"][label])
            shown |= dict.fromkeys(of.node, recipe.iterations)
    programme = sum(each.node.recipe.iterations for each in theirs.values())
    return len(shown), sum(shown.values()), programme


def status() -> list[dict]:
    """A row a figure: figure, notebook, scale (the best committed), done and wanted (trainings at
    that scale, or at laptop scale where none is committed), hours_left (of computing, see
    `remaining`), verdicts (claims by outcome, those of reduced networks apart) and evidence (by
    what they rest on, claims by outcome)."""
    counts = {figure: claims.counts([sheet]) for figure, sheet in judged().items()}
    return [
        {
            "figure": figure.number,
            "notebook": str(figure.path.relative_to(ROOT)),
            "scale": figure.committed_scale,
            "done": done,
            "wanted": wanted,
            "hours_left": round(sum(left.values()) / 3600, 2),
            "verdicts": counts[figure].drop(columns="reduced network").sum(axis=1).to_dict(),
            "evidence": counts[figure][list(claims.EVIDENCE)].to_dict(),
        }
        for figure, (done, wanted, left) in remaining(Store()).items()
    ]


def remaining(store: Store | None = None) -> Remaining:
    """For every figure, each line at the scale it is shown at or at laptop scale: how many of the
    trainings it wants are done, committed or in the store; how many it wants; and of each that is
    to be trained for the rest, those that no figure shows included, the seconds.

    Seconds are judged by the median of those done on a processor's thread whose network is of the
    same width and precision. Where none is, by the speed of the dense network in 32 bits that the
    cluster page is made of (where it lacks the network, of its slowest), in proportion to the
    width: rather too long. A mask that trainings to come stand on counts as done with its training:
    without the store that has it, it is trained once more.
    """
    held = results.committed()
    wanted = {figure: _requests(figure) for figure in figures()}
    took, devices = (held.trainings[name].to_dict() for name in ("seconds", "device"))
    rates: dict[tuple, list[float]] = {}

    def done(request: Request) -> bool:
        key, recipe = request.node.key, request.node.recipe
        if held.serves(request):
            seconds, device = took[key], devices[key]
        elif store and stored(store, request):
            record = store.needed_record(key)
            seconds, device = record["seconds"], record["made_of"]["device"]
        else:
            return False
        if results.on_a_thread(device):  # what a GPU took would tell too few hours
            kind = (recipe.network, recipe.width, recipe.precision)
            rates.setdefault(kind, []).append(seconds / recipe.iterations)
        return True

    found = {figure: sum(map(done, requests.values())) for figure, requests in wanted.items()}
    left = {figure: graph.with_ancestors(requests, done) for figure, requests in wanted.items()}
    dense = simulated()["iteration"]

    @cache
    def seconds_of(recipe: Recipe) -> float:
        rate = rates.get((recipe.network, recipe.width, recipe.precision))
        if rate:
            return recipe.iterations * float(np.median(rate))
        slowest = max(dense.values())
        return recipe.iterations * dense.get(recipe.network, slowest) * recipe.width

    return {
        figure: (
            found[figure],
            len(requests),
            {key: seconds_of(request.node.recipe) for key, request in left[figure].items()},
        )
        for figure, requests in wanted.items()
    }


def _requests(figure: Notebook) -> dict[str, Request]:
    """The trainings that a figure's lines want at the scales they are shown at, by key."""
    scales = figure.scales
    return joined(
        requests_of([{label: line}], scales.get(label, "laptop"))
        for label, line in figure.plan.items()
    )


def simulated() -> dict:
    """What `bench --cluster --json` measured for the cluster page."""
    return json.loads(SIMULATED.read_text())
