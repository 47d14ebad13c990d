"""The book: every notebook executed at its best committed scale, the pages' tables and pictures
written beside them, all compiled by Jupyter Book."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from datetime import UTC, datetime
from html import escape
from multiprocessing import get_context
from pathlib import Path
from textwrap import fill

import nbformat
import numpy as np
import pandas as pd

from ..analysis import claims, distances, paper, results, tables
from ..core.errors import LotteryError
from ..core.scales import SCALES
from ..runs.runner import commit
from ..runs.store import ROOT, results_folder
from . import pages, progress, scoreboard
from .notebooks import FOLDER, Notebook, chapters, environment, every, execute, named

PAGES = ROOT / "book" / "figures"  # papermill's output and all else that the book's build makes
STATIC = PAGES / "static"  # what pages load that is made here
FEW_ROUNDS = (0, 1, 3, 5, 7, 10, 13, 16, 20)  # of the first page's slider
PACKAGE = ROOT / "lottery_nb"
# [Figure 4](fig04_one_shot_and_iterative.ipynb), [a study](study_x.ipynb), [a page](../book/x.md)
LINK = re.compile(
    r"\[([^\]]+)\]\((?:(fig\d\d|chapter\d|study_\w+)\w*\.ipynb|\.\./book/(\w+)\.md)\)"
)


def build() -> Path:
    """Execute every notebook at its best committed scale (smoke where none is), and compile the
    book.

    A page made of the same notebook, code and tables as before is kept. Nothing is trained but at
    smoke scale. Returns the first page's path; raises if a notebook fails or Sphinx warns.
    """
    PAGES.mkdir(parents=True, exist_ok=True)
    if not any(PAGES.glob("*.stamp")):
        (PAGES / "built.md").write_text(pages.built(datetime.now(UTC), commit()))
    paths = [notebook.path for notebook in every()]
    a_kernel_a_core = ProcessPoolExecutor(os.cpu_count(), get_context("spawn"))
    with environment(OMP_NUM_THREADS="1"), a_kernel_a_core as workers:
        try:
            list(workers.map(_make_page, paths))
        except BaseException:
            workers.shutdown(cancel_futures=True)  # the first failure, or Ctrl-C, is enough
            raise
    _make_playground(PAGES / "playground.ipynb")
    _draw_pictures()
    sheets = progress.judged()
    for name, markdown in _included(sheets).items():
        (PAGES / f"{name}.md").write_text(markdown)
    judged = scoreboard.as_rows(sheets)
    pd.DataFrame(judged).to_csv(PAGES / "claims.csv", index=False)
    (PAGES / "claims.json").write_text(json.dumps(judged, indent=1))
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", str(ROOT), "-W", "-n", "--keep-going", "-q"]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise LotteryError(
            "the book has warnings, listed above; the pages of the last good build may be mixed "
            "with new ones"
        )
    return ROOT / "_build" / "html" / "index.html"


def _included(sheets: scoreboard.Sheets) -> dict[str, str]:
    """What the prose pages include, as Markdown by name."""
    drawn, left = progress.real_tables(), progress.remaining()
    compared = {
        figure: distances.points(figure.name, figure.plan, table)
        for figure, table in drawn.items()
        if paper.plots(figure.name)
    }
    return {
        "gallery": pages.gallery(sheets, PAGES),
        "chapters": pages.chapters(progress.judged(chapters()), PAGES),
        "totals": "\n".join(
            [scoreboard.summary(sheets), "", "```{raw} html", scoreboard.bar(sheets), "```", ""]
        ),
        "scoreboard": scoreboard.page(sheets),
        "disagreements": pages.disagreements(sheets),
        "scope": pages.scope(progress.iterations()),
        "coverage": pages.coverage(drawn, left),
        "differences": pages.differences(compared),
        "sharing": pages.sharing_table({scale: progress.sharing(scale) for scale in SCALES}),
        "remaining": pages.remaining_table(left),
        "workers": pages.workers_table(progress.simulated()),
    }


def _make_page(path: Path) -> None:
    """Execute a notebook for the book, unless its page is made of what it would be made of now."""
    notebook = Notebook(path)
    scale = tables.BEST if notebook.committed_scale else "smoke"
    page, stamp = PAGES / f"{notebook.name}.ipynb", PAGES / f"{notebook.name}.stamp"
    made_of = _made_of(notebook, scale)
    if page.exists() and stamp.exists() and stamp.read_text() == made_of:
        return
    print(f"{notebook.name} at {notebook.committed_scale or scale} scale", flush=True)
    stamp.unlink(missing_ok=True)
    with _sources(notebook):
        execute(notebook, {"scale": scale}, page)
    as_run = PAGES / "run" / page.name
    as_run.parent.mkdir(exist_ok=True)
    shutil.copyfile(page, as_run)
    _link(page, notebook.name)
    _offer(notebook, scale, page)
    stamp.write_text(made_of)


def _make_playground(page: Path) -> None:
    """The playground's page: the ticket lab, which trains in the reader's browser, then the
    notebook as it runs here."""
    from . import ticket_lab

    execute(Notebook(FOLDER / "playground.ipynb"), {}, page)
    digits = ticket_lab.digits()
    STATIC.mkdir(exist_ok=True)
    (STATIC / "ticket-digits.js").write_text(ticket_lab.digits_script(digits))
    lab = ticket_lab.fragment(ticket_lab.recorded(digits))
    executed = nbformat.read(page, as_version=4)
    block = f"```{{raw}} html\n{lab}\n```"
    executed.cells.insert(1, nbformat.v4.new_markdown_cell(block, id="ticket-lab"))
    nbformat.write(executed, page)
    _link(page, "playground")
    _append(page, pages.launch(os.environ.get("GITHUB_REPOSITORY")))


def _sources(notebook: Notebook):
    """An environment in which a slider is drawn from committed tables alone; a notebook without
    them is rehearsed."""
    return environment(LOTTERY_MISSING="skip" if notebook.committed_scale else "train")


def _made_of(notebook: Notebook, scale: str) -> str:
    """A digest of all that a notebook's page is made of."""
    networks = {line.recipe.network for line in notebook.plan.values()}
    where = results_folder() or PAGES
    files = [notebook.path, claims.FILE, claims.LATER, paper.FILE]
    files += sorted(PACKAGE.rglob("*.py"))
    files += sorted(path for name in networks for path in where.glob(f"{name}-*.parquet"))
    digest = hashlib.sha256(scale.encode())
    for path in files:
        digest.update(path.read_bytes() if path.exists() else b"none")
    return digest.hexdigest()


def _offer(notebook: Notebook, scale: str, page: Path) -> None:
    """Put a notebook's picture and numbers beside its page, to download, and name them at the
    page's end.

    Its cells are run once more, in this process: as PNG for slides and the gallery, SVG for print,
    CSV for a table of one's own.
    """
    import matplotlib

    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    code = [f"scale, trials = {scale!r}, None"]
    code += [notebook.source(tag) for tag in ("imports", "plan", "run")]
    code += [notebook.source("picture").partition("plt.show()")[0]]
    values: dict = {}
    with _sources(notebook), redirect_stdout(None), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
        exec(compile("\n".join(code), str(notebook.path), "exec"), values)
    offered, shown = ["csv"], []
    numbers = values["table"].drop(columns=[*results.PROVENANCE], errors="ignore")
    numbers.to_csv(PAGES / f"{notebook.name}.csv", index=False)
    if plt.get_fignums():
        picture = plt.figure(plt.get_fignums()[0])
        picture.savefig(PAGES / f"{notebook.name}.png", dpi=200)
        picture.savefig(PAGES / f"{notebook.name}.svg", metadata={"Date": None})
        offered = ["png", "svg", "csv"]
        if not notebook.is_study:
            _slide(picture, notebook)
            shown = _panels(picture, notebook.name)
    plt.close("all")
    matplotlib.use(backend)
    links = [f"{{download}}`{kind.upper()} <{notebook.name}.{kind}>`" for kind in offered]
    if shown:
        links.append(f"{{download}}`slide, 16:9 <{notebook.name}-slide.png>`")
    links += [f"{{download}}`this notebook as it was run <run/{notebook.name}.ipynb>`"]
    command = (
        f"python -m lottery_nb run {notebook.name} --scale {notebook.committed_scale or scale}"
    )
    again = f"Once more from nothing: `{command if notebook.plan else 'make book'}`"
    _append(page, f"## Take it with you\n\n{' · '.join(links)}\n\n{again}")
    if not notebook.is_study:
        glance = pages.glance(notebook, values["table"])
        _arrange(page, notebook.is_figure, glance, pages.panels(notebook, shown))


def _append(page: Path, markdown: str) -> None:
    """Add a last cell to an executed notebook."""
    executed = nbformat.read(page, as_version=4)
    executed.cells.append(nbformat.v4.new_markdown_cell(markdown, id="appended"))
    nbformat.write(executed, page)


def _slide(picture, notebook: Notebook) -> None:
    """A picture as a slide of 16 to 9, with the figure's finding and what to cite. picture: a
    Figure, which is put back as it was."""
    size = picture.get_size_inches().copy()
    picture.set_size_inches(12.8, 7.2)
    said = fill(notebook.finding or notebook.title, 100)
    cited = "The Lottery Ticket Hypothesis (Frankle & Carbin, ICLR 2019)"
    of = notebook.title.partition(":")[0]
    cited = f"{of} of {cited}, re-run" if notebook.is_figure else f"What came after {cited}"
    picture.suptitle(f"{said}\n{cited}", fontsize=13, x=0.01, ha="left")
    picture.savefig(PAGES / f"{notebook.name}-slide.png", dpi=150)
    picture.suptitle("")
    picture.set_size_inches(size)


def _link(page: Path, name: str) -> None:
    """Give an executed notebook the label by which other pages name it, and lead its links to
    notebooks and pages of the book, which work in JupyterLab, to their pages."""
    executed = nbformat.read(page, as_version=4)
    for cell in executed.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(lambda m: f"{{ref}}`{m[1]} <{m[2] or m[3]}>`", cell.source)
    executed.cells[0].source = f"({name})=\n{executed.cells[0].source}"
    nbformat.write(executed, page)


def _panels(picture, name: str) -> list[pages.Panel]:
    """A file of each panel of a picture, with its colour bar, and of its legend, so that a page can
    put them side by side or one below the other; the title of each, and what can be read off it.
    The first is the gallery's picture too. picture: a Figure."""
    from matplotlib.transforms import Bbox

    from . import plots
    from .readings import readings

    inches = picture.dpi_scale_trans.inverted()
    picture.canvas.draw()
    picture.set_layout_engine("none")  # panels stay where they are while others are hidden
    bars = [ax for ax in picture.axes if (ax.get_gid() or "").startswith(plots.BAR_OF)]
    parts = [
        [ax, *(bar for bar in bars if bar.get_gid() == f"{plots.BAR_OF}{number}")]
        for number, ax in enumerate(picture.axes)
        if ax not in bars
    ]
    parts += [[legend] for legend in picture.legends]
    everything = [*picture.axes, *picture.legends]
    boxes = [Bbox.union([each.get_tightbbox() for each in part]) for part in parts]
    of_axes = boxes[: len(parts) - len(picture.legends)]
    widest, highest = max(box.width for box in of_axes), max(box.height for box in of_axes)
    panels = []
    for number, (part, box) in enumerate(zip(parts, boxes), 1):
        for each in everything:
            each.set_visible(each in part)
        if part[0] in picture.legends:  # a short one is not blown up to a panel's width
            box = Bbox.from_extents(box.x0, box.y0, max(box.x1, box.x0 + widest), box.y1)
        else:  # panels of one size are drawn at one scale
            box = Bbox.from_extents(box.x1 - widest, box.y1 - highest, box.x1, box.y1)
        box = box.transformed(inches).padded(0.04)
        kind = "map" if len(part) > 1 else "panel"
        path = PAGES / f"{name}-{kind}{number}.svg"
        picture.savefig(path, bbox_inches=box, metadata={"Date": None})
        path.write_bytes(plots.lighter(path.read_bytes()))
        if number == 1:
            picture.savefig(PAGES / f"{name}-small.png", dpi=100, bbox_inches=box)
        if part[0] in picture.legends:
            panels.append(pages.Panel(path, "Legend", []))
            continue
        shown = box.transformed(picture.dpi_scale_trans)
        title = part[0].get_title(loc="left") or "Legend"
        panels.append(pages.Panel(path, title, readings(part[0], shown)))
    return panels


def _arrange(page: Path, is_figure: bool, glance: str, panels: str) -> None:
    """Put the cells of an executed figure or chapter into a reader's order: title, glance, picture,
    caption, what to see, slider, what else is to be known, claims, and last, folded, how it was
    made.

    panels: the picture's panels as Markdown, in place of it; "" leaves what the cell shows.
    """
    from nbformat.v4 import new_code_cell, new_markdown_cell

    executed = nbformat.read(page, as_version=4)
    title, *_, words, appended = executed.cells
    tagged = {tag: cell for cell in executed.cells for tag in cell.metadata.get("tags", ())}
    picture, run, claims = tagged["picture"], tagged["run"], tagged["claims"]
    heading, _, caption = title.source.partition("\n\n")
    if caption.startswith("**"):  # the finding
        finding, _, caption = caption.partition("\n\n")
        heading = f"{heading}\n\n{finding}"
    caption, _, about = caption.partition("\n\n")  # one paragraph stays below the picture
    about = about and f"## {'About this figure' if is_figure else 'What we expected'}\n\n{about}"
    claimed = "What the paper claims, and what we find" if is_figure else "Claims, and what we find"
    code = new_code_cell(picture.source, id="code", metadata={"tags": ["hide-input"]})
    slider = new_code_cell("rounds_of_lenet(scale)", id="slider", outputs=picture.outputs[1:])
    slider.metadata.tags = picture.metadata.tags = ["remove-input"]
    picture.outputs = picture.outputs[:1]
    picture = new_markdown_cell(panels, id="picture") if panels else picture
    tagged["plan"].metadata.tags.append("hide-input")
    run.metadata.tags.append("hide-cell")
    run.outputs = [_as_table(output) for output in run.outputs]
    names = {
        "The plan": tagged["plan"],
        "The run, and what it is made of": run,
        "The picture": code,
    }
    for name, cell in names.items():
        cell.metadata.mystnb = {"code_prompt_show": name, "code_prompt_hide": name}
    executed.cells = [
        new_markdown_cell(heading, id="heading"),
        new_markdown_cell(glance, id="glance"),
        picture,
        new_markdown_cell(caption, id="caption"),
        words,
        *([slider] if slider.outputs else []),
        *([new_markdown_cell(about, id="about")] if about else []),
        new_markdown_cell(f"## {claimed}", id="claims-heading"),
        claims,
        new_markdown_cell("## How it was made", id="made"),
        tagged["imports"], tagged["plan"], run, code,
        appended,
    ]  # fmt: skip
    nbformat.write(executed, page)


def _as_table(output):
    """What `run` prints, a name and a fact a line, as a table; any other output as it is."""
    if output.output_type != "stream":
        return output
    rows = []
    for line in output.text.splitlines():
        name, fact = line[:10].strip(), escape(line[10:].strip())
        rows.append(f"<tr><th>{name}</th><td>{fact}</td></tr>")
    html = f'<table class="made">{"".join(rows)}</table>'
    return nbformat.v4.new_output("display_data", {"text/html": html})


def _draw_pictures() -> None:
    """The pictures of prose pages."""
    from . import plots

    how_long = plots.workers(progress.simulated()["hours"])
    how_long.savefig(PAGES / "workers.svg", metadata={"Date": None})
    _first_picture()
    _hypothesis()


def _first_picture() -> None:
    """The intro's picture, two panels of Figure 4's iterative lines, and its slider."""
    from . import plots, widgets

    [figure] = named(["fig04"])
    scale = tables.BEST if figure.committed_scale else "smoke"
    lines = {label: line for label, line in figure.plan.items() if line.strategy == "iterative"}
    with _sources(figure), redirect_stdout(None):
        table = tables.run(lines, scale=scale, figure=figure.name)
    picture, axes = plots.panels(1, 2)
    plots.early_stop_vs_density(table, axes[0], paper=figure.name)
    plots.accuracy_vs_density(table, axes[1], paper=figure.name)
    plots.legend(picture, axes)
    picture.savefig(PAGES / "first.svg", metadata={"Date": None})
    with _sources(figure):
        slider = widgets.rounds_of_lenet(scale, FEW_ROUNDS)
    (PAGES / "first.html").write_text(slider._repr_html_() if slider else "")


def _hypothesis() -> None:
    """The intro's five pictures of what the hypothesis says: a drawing, nothing is trained for
    it."""
    import matplotlib.pyplot as plt

    from . import plots

    draw = np.random.default_rng(4)
    shapes = ((5, 4), (5, 5), (3, 5))
    initial, moves, fresh = (
        [draw.uniform(0.1, 0.8, shape) * draw.choice((-1, 1), shape) for shape in shapes]
        for _ in range(3)
    )
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
