"""The notebooks: found by their names, asked for their plans, executed by papermill, compiled by Jupyter Book."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from . import claims, distances, graph, pages, paper, plans, results, running
from .errors import LotteryError
from .graph import Plan
from .specs import SCALES, STUDIES, Recipe
from .store import ROOT, Store, results_folder

PAGES = ROOT / "book" / "figures"  # papermill's output and all else that the book's build makes


@dataclass(frozen=True)
class Figure:
    """A figure of the paper and the notebook that re-runs it."""

    path: Path

    @property
    def name(self) -> str:
        """Such as "fig04"."""
        return self.path.name[:5]

    @property
    def number(self) -> int:
        return int(self.path.name[3:5])

    @cached_property
    def cells(self) -> list[dict]:
        """Its cells, each with "source" as one text and "metadata". Read without nbformat, whose import takes a second."""
        try:
            cells = json.loads(self.path.read_text())["cells"]
            return [{"source": "".join(cell["source"]), "metadata": cell["metadata"]} for cell in cells]
        except (ValueError, KeyError, TypeError) as error:
            raise LotteryError(f"{self.path} is no notebook ({' '.join(str(error).split())[:100]})") from error

    def values(self, *tags: str) -> dict:
        """What its cells with these tags define, run in this process without a kernel."""
        sources = {tag: [cell["source"] for cell in self.cells if tag in cell["metadata"].get("tags", ())] for tag in tags}
        values: dict = {}
        for tag, found in sources.items():
            if not found:
                raise LotteryError(f"{self.path} has no cell tagged {tag}: every figure's notebook has one")
        try:
            exec(compile("\n".join(sum(sources.values(), [])), str(self.path), "exec"), values)
        except LotteryError:
            raise
        except Exception as error:  # whatever a cell may raise
            raise LotteryError(f"{self.path}: its cells tagged {', '.join(tags)} fail: {type(error).__name__}: {error}") from error
        return values

    @cached_property
    def title(self) -> str:
        """Such as "Figure 4: one-shot and iterative pruning"."""
        lines = self.cells[0]["source"].splitlines() if self.cells else ()
        title = next((line for line in lines if line.startswith("# ")), None)
        if title is None:
            raise LotteryError(f"{self.path} has no title: its first cell has a line such as # Figure 4: one-shot and iterative pruning")
        return title[2:]

    @cached_property
    def alt(self) -> str:
        """The picture in words."""
        return next((cell["metadata"]["mystnb"]["image"]["alt"] for cell in self.cells if "mystnb" in cell["metadata"]), "")

    @cached_property
    def parameters(self) -> dict:
        """Its papermill parameters and their defaults."""
        return {name: value for name, value in self.values("parameters").items() if not name.startswith("__")}

    @cached_property
    def plan(self) -> Plan:
        """The plan as its own cells write it, without a kernel; {} for a figure that trains nothing."""
        return self.values("imports", "plan").get("plan", {})

    @property
    def slides(self) -> bool:
        """Whether it shows, beside its plan, the rounds of the study of that name."""
        return any("rounds_of_lenet(" in cell["source"] for cell in self.cells)

    @property
    def committed_scale(self) -> str | None:
        """The scale that its lines are shown at, of several the least; None where nothing is committed. A figure that trains
        nothing is as good as the paper's."""
        if not self.plan:
            return "paper"
        return min(self.scales.values(), key=list(SCALES).index) if self.scales else None

    @property
    def scales(self) -> dict[str, str]:
        """The scale that each line is shown at, of those that are committed at any."""
        held = results.committed()
        found = {label: held.best_scale(line) for label, line in self.plan.items()}
        return {label: scale for label, scale in found.items() if scale}


def figures(names: list[str] | None = None) -> list[Figure]:
    """All figures that have a notebook, or those named ("fig04", "4", "all"); raises for a name without one."""
    found = {path.name[:5]: _figure(path, path.stat().st_mtime_ns) for path in sorted((ROOT / "notebooks").glob("fig[0-9][0-9]_*.ipynb"))}
    if names is None or "all" in names:
        return list(found.values())
    wanted = [f"fig{int(name):02d}" if name.isdigit() else name for name in names]
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise LotteryError(f"there is no notebook of {', '.join(unknown)}: choose {', '.join(found)} or all")
    return [found[name] for name in dict.fromkeys(wanted)]


@cache
def _figure(path: Path, changed: int) -> Figure:
    """One object a notebook, so that its cells run once, while the file stays as it is."""
    return Figure(path)


def plans_named(names: list[str]) -> dict[str, Plan]:
    """The plans of figures and studies by name, without those that train nothing; raises for a name that is neither."""
    chosen = [name for name in names if name in STUDIES]
    others = [name for name in names if name not in STUDIES]
    found = {figure.name: figure.plan for figure in figures(others)} if others else {}
    return {name: plan for name, plan in (found | {name: STUDIES[name] for name in chosen}).items() if plan}


def all_plans() -> list[Plan]:
    """The plans of all figures and studies."""
    return [*(figure.plan for figure in figures()), *STUDIES.values()]


def wanted_by(names: list[str], scale: str, trials: int | None) -> dict[str, graph.Wanted]:
    """The distinct trainings that the notebooks of figures ask for, or studies, by key; raises for a name that is neither."""
    wanted = graph.wanted_nodes(plans_named(names).values(), scale, trials)
    others = [name for name in names if name not in STUDIES]
    if others and any(figure.slides for figure in figures(others)):
        for key, wish in graph.wanted_nodes([STUDIES["rounds"]], scale, 1).items():
            wanted[key] = wish.also(wanted.get(key))
    return wanted


def check_parameters(figure: Figure, parameters: dict) -> None:
    """Papermill only warns of a parameter that a notebook does not have; we stop."""
    unknown = sorted(set(parameters) - set(figure.parameters)) if parameters else []
    if unknown:
        raise LotteryError(f"{figure.path.name} has no parameter {', '.join(unknown)}: its parameters are {', '.join(figure.parameters)}")


def execute(figure: Figure, parameters: dict, to: Path) -> None:
    """Run a figure's notebook; the result replaces `to` only if every cell ran."""
    import nbformat
    import papermill
    from traitlets.config import Config

    check_parameters(figure, parameters)
    with TemporaryDirectory() as folder:
        draft = Path(folder) / to.name
        try:
            papermill.execute_notebook(
                str(figure.path), str(draft), parameters, cwd=folder, progress_bar=False, stderr_file=sys.stderr,
                config=Config(
                    {
                        "KernelManager": {"transport_encryption": "auto"},  # else every kernel warns of plain text on loopback
                        "PapermillNotebookClient": {"extra_arguments": ["--log-level=CRITICAL"]},  # and errs at being told to end
                    }
                ),
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            raise LotteryError(f"{figure.path.name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}") from error
        executed = nbformat.read(draft, as_version=4)
    _tidy(executed)
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_suffix(".draft")
    nbformat.write(executed, draft)
    draft.replace(to)


def _tidy(notebook) -> None:
    """Drop what differs from run to run, and what a page should not show."""
    for key in ("papermill", "widgets"):  # live widgets' state would have the page ask another host for their script
        notebook.metadata.pop(key, None)
    for number, cell in enumerate(notebook.cells):
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.metadata.tags.append("remove-cell")
            cell.id = f"injected-{number}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


@contextmanager
def environment(**variables: str):
    """Environment variables for the notebooks' kernels, put back afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def build() -> Path:
    """Execute every notebook at its best committed scale (smoke where none is), and compile the book.

    A page made of the same notebook, code and tables as before is kept. Nothing is trained but at smoke scale. Returns the
    first page's path; raises if a notebook fails or Sphinx warns.
    """
    from . import plots

    PAGES.mkdir(parents=True, exist_ok=True)
    with environment(OMP_NUM_THREADS="1"), ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as workers:  # a kernel a core
        try:
            list(workers.map(_make_page, [figure.path for figure in figures()]))
        except BaseException:
            workers.shutdown(cancel_futures=True)  # the first failure, or Ctrl-C, is enough
            raise
    execute(Figure(ROOT / "notebooks" / "playground.ipynb"), {}, PAGES / "playground.ipynb")
    _append(PAGES / "playground.ipynb", pages.launch(os.environ.get("GITHUB_REPOSITORY")))
    _first_picture()
    _hypothesis()
    sheets, tables, left = judged(), real_tables(), remaining()
    plots.workers(simulated()["hours"]).savefig(PAGES / "workers.svg", metadata={"Date": None})
    included = {
        "gallery": pages.gallery(sheets, PAGES),
        "totals": pages.totals(sheets),
        "scoreboard": pages.scoreboard(sheets),
        "disagreements": pages.disagreements(sheets),
        "coverage": pages.coverage(tables, left),
        "differences": pages.differences(
            {figure: distances.points(figure.name, figure.plan, table) for figure, table in tables.items() if paper.plots(figure.name)}
        ),
        "splits": pages.splits_table(),
        "length": pages.length_table(),
        "pixels": pages.pixels_table(),
        "inputs": pages.inputs_table(),
        "precision": pages.precision_table(),
        "centred": pages.centred_table(),
        "dropout": pages.dropout_table(),
        "masks": pages.masks_table(),
        "sharing": pages.sharing_table({scale: sharing(scale) for scale in SCALES}),
        "remaining": pages.remaining_table(left),
        "workers": pages.workers_table(simulated()),
    }
    for name, markdown in included.items():
        (PAGES / f"{name}.md").write_text(markdown)
    done = subprocess.run([Path(sys.executable).with_name("jupyter-book"), "build", str(ROOT), "-W", "-n", "--keep-going", "-q"], cwd=ROOT)
    if done.returncode:
        raise LotteryError("the book has warnings, listed above; the pages of the last good build may be mixed with new ones")
    return ROOT / "_build" / "html" / "index.html"


def _make_page(path: Path) -> None:
    """Execute a figure's notebook for the book, unless its page is made of what it would be made of now."""
    figure = Figure(path)
    scale = plans.BEST if figure.committed_scale else "smoke"
    page, stamp = PAGES / f"{figure.name}.ipynb", PAGES / f"{figure.name}.stamp"
    made_of = _made_of(figure, scale)
    if page.exists() and stamp.exists() and stamp.read_text() == made_of:
        return
    print(f"{figure.name} at {figure.committed_scale or scale} scale", flush=True)
    stamp.unlink(missing_ok=True)
    with _sources(figure):
        execute(figure, {"scale": scale}, page)
    _offer(figure, scale, page)
    stamp.write_text(made_of)


def _sources(figure: Figure):
    """An environment in which a figure's slider is drawn from committed tables alone; a figure without them is rehearsed."""
    return environment(LOTTERY_MISSING="skip" if figure.committed_scale else "train")


def _made_of(figure: Figure, scale: str) -> str:
    """A digest of all that a figure's page is made of."""
    networks = {line.recipe.network for line in figure.plan.values()}
    tables = sorted(path for network in networks for path in (results_folder() or PAGES).glob(f"{network}-*.parquet"))
    files = [figure.path, ROOT / "book" / "claims.yml", ROOT / "book" / "paper_curves.csv", *sorted((ROOT / "lottery_nb").glob("*.py")), *tables]
    digest = hashlib.sha256(scale.encode())
    for path in files:
        digest.update(path.read_bytes() if path.exists() else b"none")
    return digest.hexdigest()


def _offer(figure: Figure, scale: str, page: Path) -> None:
    """Put a figure's picture and numbers beside its page, to download, and name them at the page's end.

    The notebook's cells are run once more, in this process: as PNG for slides and the gallery, SVG for print, CSV for a table of one's own.
    """
    import matplotlib

    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    with _sources(figure), redirect_stdout(None), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
        _, *imports_plan_and_run, picture = (cell["source"] for cell in figure.cells[1:6])
        code = [f"scale, trials = {scale!r}, None", *imports_plan_and_run, picture.partition("plt.show()")[0]]
        values: dict = {}
        exec(compile("\n".join(code), str(figure.path), "exec"), values)
    offered = ["csv"]
    values["table"].drop(columns=[*results.PROVENANCE], errors="ignore").to_csv(PAGES / f"{figure.name}.csv", index=False)
    if plt.get_fignums():
        picture = plt.figure(plt.get_fignums()[0])
        for kind, how in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
            picture.savefig(PAGES / f"{figure.name}.{kind}", **how)
        picture.savefig(PAGES / f"{figure.name}-small.png", dpi=50)
        offered = ["png", "svg", "csv"]
    plt.close("all")
    matplotlib.use(backend)
    links = " · ".join(f"{{download}}`{kind.upper()} <{figure.name}.{kind}>`" for kind in offered)
    again = f"`python -m lottery_nb run {figure.name} --scale {figure.committed_scale or scale}`" if figure.plan else "`make book`"
    _append(page, f"## Take it with you\n\n{links} · {{download}}`this notebook as it was run <{figure.name}.ipynb>`\n\nOnce more from nothing: {again}")


def _append(page: Path, markdown: str) -> None:
    """Add a last cell to an executed notebook."""
    import nbformat

    notebook = nbformat.read(page, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell(markdown, id="appended"))
    nbformat.write(notebook, page)


def _first_picture() -> None:
    """The intro's picture: Figure 4's iterative lines, two panels."""
    from . import plots

    [figure] = figures(["fig04"])
    scale = plans.BEST if figure.committed_scale else "smoke"
    lines = {label: line for label, line in figure.plan.items() if line.strategy == "iterative"}
    with _sources(figure), redirect_stdout(None):
        table = plans.run(lines, scale=scale, figure=figure.name)
    picture, axes = plots.panels(1, 2)
    plots.early_stop_vs_density(table, axes[0], paper=figure.name)
    plots.accuracy_vs_density(table, axes[1], paper=figure.name)
    plots.legend(picture, axes)
    picture.savefig(PAGES / "first.svg", metadata={"Date": None})


def _hypothesis() -> None:
    """The intro's five pictures of what the hypothesis says: a drawing, nothing is trained for it."""
    import matplotlib.pyplot as plt

    from . import plots

    draw = np.random.default_rng(4)
    shapes = ((5, 4), (5, 5), (3, 5))
    initial, moves, fresh = ([draw.uniform(0.1, 0.8, shape) * draw.choice((-1, 1), shape) for shape in shapes] for _ in range(3))
    trained = [0.6 * weights + 0.5 * move for weights, move in zip(initial, moves)]
    masks = [abs(weights) >= np.quantile(abs(weights), 0.6) for weights in trained]
    pictures = {
        "drawn": initial,
        "trained": trained,
        "pruned": [weights * mask for weights, mask in zip(trained, masks)],
        "reset": [weights * mask for weights, mask in zip(initial, masks)],
        "reinitialised": [weights * mask for weights, mask in zip(fresh, masks)],
    }
    for name, weights in pictures.items():
        picture = plots.network(weights)
        picture.savefig(PAGES / f"hypothesis-{name}.svg", metadata={"Date": None})
        plt.close(picture)


def judged() -> dict[Figure, pd.DataFrame]:
    """Every figure's claims, judged by what is committed."""
    return {figure: claims.verdicts(figure.name, _table(figure, results.committed())) for figure in figures()}


def real_tables() -> dict[Figure, pd.DataFrame]:
    """The committed table of every figure that is trained, at more than smoke scale."""
    trained = [figure for figure in figures() if figure.plan and figure.committed_scale not in (None, "smoke")]
    return {figure: _table(figure, results.committed()) for figure in trained}


@lru_cache(maxsize=200)
def _table(figure: Figure, held: results.Committed) -> pd.DataFrame:
    """A figure's table of what is committed."""
    return plans.of_committed(figure.plan)[0] if figure.plan else figure.values("parameters", "imports", "plan", "run")["table"]


def sharing(scale: str) -> tuple[int, int]:
    """How many trainings the figures ask for at a scale, each with all that it stands on, and how many of them are distinct."""
    needed = [graph.with_ancestors(graph.wanted_nodes([figure.plan], scale)) for figure in figures()]
    return sum(map(len, needed)), len(set().union(*needed))


def status() -> list[dict]:
    """A row a figure: figure, notebook, scale (the best committed), done and wanted (trainings at that scale, or at
    laptop scale where none is committed), hours_left (of computing, see `remaining`), verdicts."""
    sheets = judged()
    return [
        {
            "figure": figure.number,
            "notebook": str(figure.path.relative_to(ROOT)),
            "scale": figure.committed_scale,
            "done": done,
            "wanted": wanted,
            "hours_left": round(sum(left.values()) / 3600, 2),
            "verdicts": {verdict: int((sheets[figure].verdict == verdict).sum()) for verdict in claims.VERDICTS},
        }
        for figure, (done, wanted, left) in remaining(Store()).items()
    ]


def remaining(store: Store | None = None) -> dict[Figure, tuple[int, int, dict[str, float]]]:
    """For every figure, each line at the scale it is shown at or at laptop scale: how many of the trainings it wants are done,
    committed or in the store; how many it wants; and of each that is to be trained for the rest, those that no figure shows
    included, the seconds.

    Seconds are judged by the median of those done whose network is of the same width and precision. Where none is, by the speed
    of the whole network in 32 bits that the cluster page is made of (where it lacks the network, of its slowest), in proportion to
    the width: rather too long. A mask that trainings to come stand on counts as done with its training: without the store that has
    it, it is trained once more.
    """
    held = results.committed()
    wanted = {figure: _wanted(figure) for figure in figures()}
    rates: dict[tuple, list[float]] = {}

    def done(wish: graph.Wanted) -> bool:
        seconds = held.trainings.seconds[wish.node.key] if held.serves(wish) else None
        if seconds is None and store and running.stored(store, wish):
            seconds = store.record(wish.node.key)["seconds"]
        recipe = wish.node.recipe
        if seconds is not None:
            rates.setdefault((recipe.network, recipe.width, recipe.precision), []).append(seconds / recipe.iterations)
        return seconds is not None

    found = {figure: sum(map(done, wishes.values())) for figure, wishes in wanted.items()}
    left = {figure: graph.with_ancestors(wishes, done) for figure, wishes in wanted.items()}
    whole = simulated()["iteration"]

    @cache
    def seconds_of(recipe: Recipe) -> float:
        rate = rates.get((recipe.network, recipe.width, recipe.precision))
        return recipe.iterations * (float(np.median(rate)) if rate else whole.get(recipe.network, max(whole.values())) * recipe.width)

    return {
        figure: (found[figure], len(wishes), {key: seconds_of(wish.node.recipe) for key, wish in left[figure].items()}) for figure, wishes in wanted.items()
    }


def _wanted(figure: Figure) -> dict[str, graph.Wanted]:
    """The trainings that a figure's lines want at the scales they are shown at, by key."""
    wanted: dict[str, graph.Wanted] = {}
    scales = figure.scales
    for label, line in figure.plan.items():
        for key, wish in graph.wanted_nodes([{label: line}], scales.get(label, "laptop")).items():
            wanted[key] = wish.also(wanted.get(key))
    return wanted


def simulated() -> dict:
    """What `bench --cluster --json` measured for the cluster page."""
    return json.loads((ROOT / "book" / "results" / "simulation.json").read_text())
