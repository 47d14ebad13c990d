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
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import numpy as np
import pandas as pd

from . import claims, graph, paper, plans
from .errors import LotteryError
from .graph import Plan
from .specs import SCALES, STUDIES
from .store import ROOT, Store

SHOWN = (1, 8, 64, 512)  # workers, in the cluster page's table
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
    def notebook(self) -> nbformat.NotebookNode:
        try:
            return nbformat.read(self.path, as_version=4)
        except (ValueError, AttributeError, nbformat.ValidationError) as error:
            raise LotteryError(f"{self.path} is no notebook ({' '.join(str(error).split())[:100]})") from error

    def values(self, *tags: str) -> dict:
        """What its cells with these tags define, run in this process without a kernel."""
        sources = {tag: [cell.source for cell in self.notebook.cells if tag in cell.metadata.get("tags", ())] for tag in tags}
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
        lines = self.notebook.cells[0].source.splitlines() if self.notebook.cells else ()
        title = next((line for line in lines if line.startswith("# ")), None)
        if title is None:
            raise LotteryError(f"{self.path} has no title: its first cell has a line such as # Figure 4: one-shot and iterative pruning")
        return title[2:]

    @cached_property
    def alt(self) -> str:
        """The picture in words."""
        return next((cell.metadata["mystnb"]["image"]["alt"] for cell in self.notebook.cells if "mystnb" in cell.metadata), "")

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
        return any("rounds_of_lenet(" in cell.source for cell in self.notebook.cells)

    @cached_property
    def committed_scale(self) -> str | None:
        """The best scale whose table is committed; a figure that trains nothing is as good as the paper's."""
        return "paper" if not self.plan else (plans.frozen_scales(self.name) or [None])[-1]


def figures(names: list[str] | None = None) -> list[Figure]:
    """All figures that have a notebook, or those named ("fig04", "4", "all"); raises for a name without one."""
    found = {path.name[:5]: Figure(path) for path in sorted((ROOT / "notebooks").glob("fig[0-9][0-9]_*.ipynb"))}
    if names is None or "all" in names:
        return list(found.values())
    wanted = [f"fig{int(name):02d}" if name.isdigit() else name for name in names]
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise LotteryError(f"there is no notebook of {', '.join(unknown)}: choose {', '.join(found)} or all")
    return [found[name] for name in dict.fromkeys(wanted)]


def plans_named(names: list[str]) -> dict[str, Plan]:
    """The plans of figures and studies by name, without those that train nothing; raises for a name that is neither."""
    chosen = [name for name in names if name in STUDIES]
    others = [name for name in names if name not in STUDIES]
    found = {figure.name: figure.plan for figure in figures(others)} if others else {}
    return {name: plan for name, plan in (found | {name: STUDIES[name] for name in chosen}).items() if plan}


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
    import papermill
    from traitlets.config import Config

    check_parameters(figure, parameters)
    with TemporaryDirectory() as folder:
        draft = Path(folder) / to.name
        try:
            papermill.execute_notebook(
                str(figure.path), str(draft), parameters, cwd=folder, progress_bar=False, stderr_file=sys.stderr,
                config=Config({"KernelManager": {"transport_encryption": "auto"}}),  # else every kernel warns of plain text on loopback
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            raise LotteryError(f"{figure.path.name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}") from error
        executed = nbformat.read(draft, as_version=4)
    _tidy(executed)
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_suffix(".draft")
    nbformat.write(executed, draft)
    draft.replace(to)


def _tidy(notebook: nbformat.NotebookNode) -> None:
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
    PAGES.mkdir(parents=True, exist_ok=True)
    with environment(OMP_NUM_THREADS="1"), ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as workers:  # a kernel a core
        try:
            list(workers.map(_make_page, [figure.path for figure in figures()]))
        except BaseException:
            workers.shutdown(cancel_futures=True)  # the first failure, or Ctrl-C, is enough
            raise
    execute(Figure(ROOT / "notebooks" / "playground.ipynb"), {}, PAGES / "playground.ipynb")
    _append(PAGES / "playground.ipynb", launch(os.environ.get("GITHUB_REPOSITORY")))
    _first_picture()
    _hypothesis()
    sheets = judged()
    (PAGES / "gallery.md").write_text(gallery(sheets))
    (PAGES / "totals.md").write_text(totals(sheets))
    (PAGES / "sharing.md").write_text(sharing_table())
    (PAGES / "inputs.md").write_text(inputs_table())
    (PAGES / "scoreboard.md").write_text(scoreboard(sheets))
    _workers()
    (PAGES / "disagreements.md").write_text(disagreements(sheets))
    done = subprocess.run([Path(sys.executable).with_name("jupyter-book"), "build", str(ROOT), "-W", "-n", "--keep-going", "-q"], cwd=ROOT)
    if done.returncode:
        raise LotteryError("the book has warnings, listed above; the pages of the last good build may be mixed with new ones")
    return ROOT / "_build" / "html" / "index.html"


def _make_page(path: Path) -> None:
    """Execute a figure's notebook for the book, unless its page is made of what it would be made of now."""
    figure = Figure(path)
    scale = figure.committed_scale or "smoke"
    page, stamp = PAGES / f"{figure.name}.ipynb", PAGES / f"{figure.name}.stamp"
    made_of = _made_of(figure, scale)
    if page.exists() and stamp.exists() and stamp.read_text() == made_of:
        return
    print(f"{figure.name} at {scale} scale", flush=True)
    stamp.unlink(missing_ok=True)
    with environment(LOTTERY_MISSING="train" if scale == "smoke" else "skip"):
        execute(figure, {"scale": scale}, page)
    _offer(figure, scale, page)
    stamp.write_text(made_of)


def _made_of(figure: Figure, scale: str) -> str:
    """A digest of all that a figure's page is made of."""
    folder = plans.results_folder() or PAGES
    tables = [folder / f"{name}-{scale}.parquet" for name in (figure.name, *STUDIES)]
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

    with environment(LOTTERY_MISSING="skip"), redirect_stdout(None), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
        _, *imports_plan_and_run, picture = (cell.source for cell in figure.notebook.cells[1:6])
        code = [f"scale, trials = {scale!r}, None", *imports_plan_and_run, picture.partition("plt.show()")[0]]
        values: dict = {}
        exec(compile("\n".join(code), str(figure.path), "exec"), values)
    offered = ["csv"]
    values["table"].drop(columns=[*plans.PROVENANCE], errors="ignore").to_csv(PAGES / f"{figure.name}.csv", index=False)
    if plt.get_fignums():
        picture = plt.figure(plt.get_fignums()[0])
        for kind, how in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
            picture.savefig(PAGES / f"{figure.name}.{kind}", **how)
        picture.savefig(PAGES / f"{figure.name}-small.png", dpi=50)
        offered = ["png", "svg", "csv"]
    plt.close("all")
    matplotlib.use(backend)
    links = " · ".join(f"{{download}}`{kind.upper()} <{figure.name}.{kind}>`" for kind in offered)
    again = f"`python -m lottery_nb run {figure.name} --scale {scale}`" if figure.plan else "`make book`"
    _append(page, f"## Take it with you\n\n{links} · {{download}}`this notebook as it was run <{figure.name}.ipynb>`\n\nOnce more from nothing: {again}")


def _append(page: Path, markdown: str) -> None:
    """Add a last cell to an executed notebook."""
    notebook = nbformat.read(page, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell(markdown, id="appended"))
    nbformat.write(notebook, page)


def launch(repository: str | None) -> str:
    """How to run the playground live, as Markdown. repository: "owner/name" on GitHub, where the book is built from one."""
    here = "## Run it live\n\nOn your own machine: `make lab`, then `playground.ipynb`."
    if not repository:
        return here
    binder = f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/playground.ipynb"
    colab = f"https://colab.research.google.com/github/{repository}/blob/HEAD/binder/colab.ipynb"
    return f"{here} In the browser: [Binder]({binder}), which takes minutes to start, or [Colab]({colab}), which asks for `https://github.com/{repository}`."


def gallery(sheets: dict[Figure, pd.DataFrame]) -> str:
    """A card for every figure, picture and verdicts, as MyST."""
    cards = []
    for figure, sheet in sheets.items():
        counts = sheet.verdict.value_counts()
        said = " ".join(f"{mark} {counts[verdict]}" for verdict, mark in claims.VERDICTS.items() if verdict in counts)
        options = [f":link: {figure.name}", ":link-type: ref"]
        if (PAGES / f"{figure.name}-small.png").exists():
            options += [f":img-top: figures/{figure.name}-small.png", f":img-alt: {figure.alt}"]
        cards.append("\n".join([f":::{{grid-item-card}} {figure.title}", *options, "", f"{figure.committed_scale or 'rehearsal'} · {said}", ":::"]))
    return "\n".join(["::::{grid} 1 2 2 3", ":gutter: 3", "", *cards, "::::", ""])


def _first_picture() -> None:
    """The intro's picture: Figure 4's iterative lines, two panels."""
    from . import plots

    [figure] = figures(["fig04"])
    scale = figure.committed_scale or "smoke"
    lines = {label: line for label, line in figure.plan.items() if line.strategy == "iterative"}
    with environment(LOTTERY_MISSING="skip"), redirect_stdout(None):
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


def _workers() -> None:
    """The cluster page's picture and tables: what `bench --cluster --json` printed, on a machine that it names."""
    from . import plots

    simulated = json.loads((ROOT / "book" / "results" / "simulation.json").read_text())
    (PAGES / "workers.md").write_text(workers_table(simulated))
    plots.workers(simulated["hours"]).savefig(PAGES / "workers.svg", metadata={"Date": None})


def workers_table(simulated: dict) -> str:
    """How long the paper's scale takes on so many workers, and of what that is made, as two Markdown tables.

    simulated: as `bench.cluster` returns it.
    """
    rows = [f"| networks | trainings |{''.join(f' on {count:,} |' for count in SHOWN)} longest chain |", f"| --- | ---: |{' ---: |' * (len(SHOWN) + 1)}"]
    for name, hours in simulated["hours"].items():
        times = [_duration(hours["on"][str(count)]) for count in SHOWN]
        rows.append(f"| {name} | {hours['trainings']:,} | {' | '.join(times)} | {_duration(hours['chain'])} |")
    machine, iteration = simulated["machine"], simulated["iteration"]
    on = f"{machine['device']}, Python {machine['python']}, torch {machine['torch']}"
    rows += ["", f"Milliseconds of an iteration, its share of validation included, measured on one worker ({on}):", "", "| network | ms |", "| --- | ---: |"]
    rows += [f"| {network} | {1000 * seconds:,.{2 * (seconds < 0.01)}f} |" for network, seconds in iteration.items()]
    return "\n".join([*rows, ""])


def _duration(hours: float) -> str:
    for unit, size in (("years", 24 * 365), ("days", 24), ("hours", 1)):
        if hours >= 2 * size:
            return f"{hours / size:,.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{60 * hours:,.0f}\N{NO-BREAK SPACE}minutes"


def judged() -> dict[Figure, pd.DataFrame]:
    """Every figure's claims, judged by its best committed table."""
    all_judged = {}
    for figure in figures():
        scale = figure.committed_scale or "smoke"
        table = plans.frozen_table(figure.name, scale) if figure.plan else figure.values("parameters", "imports", "plan", "run")["table"]
        all_judged[figure] = claims.verdicts(figure.name, table, scale)
    return all_judged


def totals(sheets: dict[Figure, pd.DataFrame]) -> str:
    """How many claims have which verdict, as a Markdown table."""
    counts = pd.concat(sheets.values()).verdict.value_counts()
    rows = [f"| {mark} {verdict} | {counts.get(verdict, 0)} |" for verdict, mark in claims.VERDICTS.items()]
    return "\n".join(["| verdict | claims |", "| --- | ---: |", *rows, ""])


def scoreboard(sheets: dict[Figure, pd.DataFrame]) -> str:
    """All claims and their verdicts, figure by figure, as Markdown."""
    lines = [totals(sheets)]
    for figure, sheet in sheets.items():
        scale = figure.committed_scale
        said = f"At {scale} scale." if scale else f"No results are committed yet: `python -m lottery_nb run {figure.name} --scale laptop` makes them."
        lines += [f"## Figure {figure.number}", "", f"{said} The page: {{ref}}`{figure.name}`.", ""]
        lines += ["```{raw} html", claims.as_html(sheet, figure.name), "```", ""]
    return "\n".join(lines)


def disagreements(sheets: dict[Figure, pd.DataFrame]) -> str:
    """The claims for which the paper's text and its plot give different numbers, and which of them ours are nearer to, as Markdown."""
    rows: dict[tuple, str] = {}
    for figure, sheet in sheets.items():
        for row in sheet.itertuples():
            if row.claim.disagrees and (figure, row.claim.text, row.claim.plot) not in rows:
                claim, tested = row.claim, row.verdict != "not tested at this scale"
                nearer = "the plot" if tested and abs(row.ours - claim.plot) < abs(row.ours - claim.text) else "the text" if tested else "–"
                ours = claim.show(row.ours) if tested else "–"
                rows[figure, claim.text, claim.plot] = (
                    f"| {{ref}}`{figure.number} <{figure.name}>` | {claim.says} | {claim.show(claim.text)} | {claim.show(claim.plot)} | {ours} | {nearer} |"
                )
    head = ["| figure | claim | text | plot | ours | ours is nearer to |", "| --- | --- | ---: | ---: | ---: | --- |"]
    return "\n".join([*head, *rows.values(), ""]).replace(" %", "\N{NO-BREAK SPACE}%").replace(" pp", "\N{NO-BREAK SPACE}pp")


def sharing(scale: str) -> tuple[int, int]:
    """How many trainings the figures ask for at a scale, each with all that it stands on, and how many of them are distinct."""
    needed = [graph.with_ancestors(graph.wanted_nodes([figure.plan], scale)) for figure in figures()]
    return sum(map(len, needed)), len(set().union(*needed))


def sharing_table() -> str:
    """`sharing` at every scale, as a Markdown table."""
    rows = [f"| `{scale}` | {asked:,} | {distinct:,} |" for scale in SCALES for asked, distinct in [sharing(scale)]]
    return "\n".join(["| scale | trainings that the figures ask for | distinct |", "| --- | ---: | ---: |", *rows, ""])


def inputs_table() -> str:
    """Whole Conv-2 networks under each input scaling beside the paper's, as a Markdown table."""
    table = plans.frozen_table("inputs", "laptop")
    columns = ("early_stop_iteration", *(f"{split}_accuracy_at_early_stop" for split in ("val", "test", "train")))
    rows = {line: {metric: rows[rows.metric == metric].value.mean() for metric in columns} for line, rows in table.groupby("line", sort=False)}
    for line, figure, theirs in (("Adam, 0.0002, the paper", "fig05", "Conv-2"), ("SGD, 0.0005, the paper", "fig33", "Conv-2 0.0005")):
        points = paper.curves(figure)
        points = points[(points.line == theirs) & (points["round"] == 0)].drop_duplicates("metric").set_index("metric")["mean"]
        rows[line] = {metric: points.get(metric) for metric in columns}
    said = ["| learning rate, pixels | early stop | validation accuracy | test accuracy | training accuracy |", "| --- | ---: | ---: | ---: | ---: |"]
    for line, values in sorted(rows.items(), key=lambda row: row[0].split(", ")[0]):
        cells = ["–" if pd.isna(value) else f"{value:,.0f}" if value > 1 else f"{100 * value:.1f} %" for value in values.values()]
        said.append(f"| {line} | {' | '.join(cells)} |")
    return "\n".join([*said, ""])


def status() -> list[dict]:
    """A row a figure: figure, notebook, scale (the best committed), done and wanted (trainings at that scale, or at
    laptop scale where none is committed), hours_left (None where nothing tells how long one takes), verdicts."""
    store, sheets = Store(), judged()
    rows = []
    for figure in figures():
        scale = figure.committed_scale
        wanted = graph.wanted_nodes([figure.plan], scale or "laptop")
        done, left = plans.progress(wanted, figure.name, scale or "laptop", store)
        verdicts = sheets[figure].verdict.value_counts()
        rows.append(
            {
                "figure": figure.number,
                "notebook": str(figure.path.relative_to(ROOT)),
                "scale": scale,
                "done": done,
                "wanted": len(wanted),
                "hours_left": None if left is None else round(left / 3600, 2),
                "verdicts": {verdict: int(verdicts.get(verdict, 0)) for verdict in claims.VERDICTS},
            }
        )
    return rows
