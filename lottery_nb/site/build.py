"""The book: every notebook executed at its best committed scale, the pages' tables and pictures
written beside them, all compiled by Jupyter Book."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from html import escape
from multiprocessing import get_context
from pathlib import Path

import nbformat
import pandas as pd

from ..analysis import claims, distances, paper, tables
from ..core.errors import LotteryError
from ..core.scales import SCALES
from ..runs.executors import processors
from ..runs.runner import commit
from ..runs.store import ROOT, results_folder
from . import pages, progress, scoreboard
from .notebooks import FOLDER, Notebook, chapters, environment, every, execute, named, studies
from .pages import PAGES

PLAYGROUND = FOLDER / "playground.ipynb"
STATIC = PAGES / "static"  # what pages load that is made here
PACKAGE = ROOT / "lottery_nb"
# [Figure 4](fig04_one_shot_and_iterative.ipynb), [a study](study_x.ipynb), [a page](../book/x.md)
LINK = re.compile(
    r"\[([^\]]+)\]\((?:(fig\d\d|chapter\d|study_\w+)\w*\.ipynb|\.\./book/(\w+)\.md)\)"
)


def build() -> Path:
    """Execute every notebook at its best committed scale (smoke where none is), and compile the
    book.

    What is made of the same notebook, code and tables as before is kept. Nothing is trained but at
    smoke scale. Returns the first page's path; raises if a notebook fails or Sphinx warns.
    """
    PAGES.mkdir(parents=True, exist_ok=True)
    if not any(PAGES.glob("*.stamp")):
        (PAGES / "built.md").write_text(pages.built(datetime.now(UTC), commit()))
    paths = [PLAYGROUND, *(notebook.path for notebook in every())]  # the longest first
    a_kernel_a_core = ProcessPoolExecutor(processors(), get_context("spawn"))
    with environment(OMP_NUM_THREADS="1"), a_kernel_a_core as workers:
        try:
            drawn, made = workers.submit(_make_pictures), workers.map(_make_page, paths)
            sheets = progress.judged()
            included = _included(sheets)  # meanwhile
            list(made)
            drawn.result()
        except BaseException:
            workers.shutdown(cancel_futures=True)  # the first failure, or Ctrl-C, is enough
            raise
    included["gallery"] = pages.gallery(sheets, PAGES)
    included["chapters"] = pages.chapters(progress.judged(chapters()), PAGES)
    for name, markdown in included.items():
        _write(PAGES / f"{name}.md", markdown)
    judged = scoreboard.as_rows(sheets)
    _write(PAGES / "claims.csv", pd.DataFrame(judged).to_csv(index=False))
    _write(PAGES / "claims.json", json.dumps(judged, indent=1))
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", str(ROOT), "-W", "-n", "--keep-going", "-q"]
    good = False
    try:
        good = not subprocess.run(command, cwd=ROOT).returncode
    finally:
        if not good:  # else what warned is not read, and so not told of, the next time
            shutil.rmtree(ROOT / "_build" / ".doctrees", ignore_errors=True)
    if not good:
        raise LotteryError(
            "the book has warnings, listed above; the pages of the last good build may be mixed "
            "with new ones"
        )
    return ROOT / "_build" / "html" / "index.html"


def _included(sheets: scoreboard.Sheets) -> dict[str, str]:
    """What the prose pages include, as Markdown by name, but for the cards with pictures."""
    drawn, left = progress.real_tables(), progress.remaining()
    compared = {
        figure: distances.points(figure.name, figure.plan, table)
        for figure, table in drawn.items()
        if paper.plots(figure.name)
    }
    return {
        "totals": "\n\n".join(
            [scoreboard.summary(sheets), f"```{{raw}} html\n{scoreboard.bar(sheets)}\n```\n"]
        ),
        "networks": scoreboard.by_network(sheets),
        "scoreboard": scoreboard.page(sheets),
        "disagreements": pages.disagreements(sheets),
        "contradictions": pages.contradictions(scoreboard.of_the_paper(sheets)),
        "scope": pages.scope(*progress.programme()),
        "coverage": pages.coverage(drawn, left),
        "differences": pages.differences(compared),
        "studies": pages.studies(studies()),
        "sharing": pages.sharing_table({scale: progress.sharing(scale) for scale in SCALES}),
        "remaining": pages.remaining_table(left),
        "workers": pages.workers_table(progress.simulated()),
    }


def _write(path: Path, text: str) -> None:
    """Write a file; one that has the text already keeps its date, so that Sphinx need not read it
    again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _unless_made(path: Path, made_of: str, said: str, make: Callable[[Path], None]) -> None:
    """Make a file, and say so, unless it is there and made of what it would be made of now."""
    stamp = path.with_suffix(".stamp")
    if path.exists() and stamp.exists() and stamp.read_text() == made_of:
        return
    print(path.stem, said, flush=True)
    stamp.unlink(missing_ok=True)
    make(path)
    stamp.write_text(made_of)


def _make_page(path: Path) -> None:
    """A notebook's page."""
    notebook = Notebook(path)
    if path == PLAYGROUND:
        made_of = _made_of([path], set(), os.environ.get("GITHUB_REPOSITORY", ""))
        said, make = "as it trains here", partial(_make_playground, notebook)
    else:
        scale = tables.BEST if notebook.committed_scale else "smoke"
        networks = {line.recipe.network for line in notebook.plan.values()}
        made_of = _made_of([path], networks, scale)
        said = f"at {notebook.committed_scale or scale} scale"
        make = partial(_make_notebook, notebook, scale)
    _unless_made(PAGES / f"{notebook.name}.ipynb", made_of, said, make)


def _make_notebook(notebook: Notebook, scale: str, page: Path) -> None:
    """The page of what a notebook shows at a scale."""
    ours = "from lottery_nb.site import pictures"
    first, last = f"{ours}; pictures.watch()", f"{ours}; pictures.keep({notebook.name!r}, table)"
    with _sources(notebook):
        kept = json.loads(execute(notebook, {"scale": scale}, page, first, last))
    as_run = PAGES / "run" / page.name
    as_run.parent.mkdir(exist_ok=True)
    shutil.copyfile(page, as_run)
    _link(page, notebook.name)
    _offer(notebook, scale, page, kept)


def _make_playground(notebook: Notebook, page: Path) -> None:
    """The playground's page: the ticket lab, which trains in the reader's browser, then the
    notebook as it runs here."""
    from . import ticket_lab

    execute(notebook, {}, page)
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


def _made_of(own: list[Path], networks: set[str], said: str) -> str:
    """A digest of all that a page is made of: files of its own, what is `said` to them, the
    package, and what is committed of networks and of the paper."""
    where = results_folder() or PAGES
    files = [*own, claims.FILE, claims.LATER, paper.FILE, *sorted(PACKAGE.rglob("*.py"))]
    files += sorted(path for name in networks for path in where.glob(f"{name}-*.parquet"))
    digest = hashlib.sha256(said.encode())
    for path in files:
        digest.update(path.read_bytes() if path.exists() else b"none")
    return digest.hexdigest()


def _offer(notebook: Notebook, scale: str, page: Path, kept: dict) -> None:
    """Name at a page's end what lies beside it, and put the page into a reader's order; kept: what
    `pictures.keep` told."""
    links = [f"{{download}}`{kind.upper()} <{notebook.name}.{kind}>`" for kind in kept["kinds"]]
    if kept["panels"]:
        links.append(f"{{download}}`slide, 16:9 <{notebook.name}-slide.png>`")
    links += [f"{{download}}`this notebook as it was run <run/{notebook.name}.ipynb>`"]
    command = (
        f"python -m lottery_nb run {notebook.name} --scale {notebook.committed_scale or scale}"
    )
    again = f"Once more from nothing: `{command if notebook.plan else 'make book'}`"
    _append(page, f"## Take it with you\n\n{' · '.join(links)}\n\n{again}")
    panels = [pages.Panel(Path(path), *rest) for path, *rest in kept["panels"]]
    _arrange(page, notebook, kept["glance"], pages.panels(notebook, panels))


def _append(page: Path, markdown: str) -> None:
    """Add a last cell to an executed notebook."""
    executed = nbformat.read(page, as_version=4)
    executed.cells.append(nbformat.v4.new_markdown_cell(markdown, id="appended"))
    nbformat.write(executed, page)


def _link(page: Path, name: str) -> None:
    """Give an executed notebook the label by which other pages name it, and lead its links to
    notebooks and pages of the book, which work in JupyterLab, to their pages."""
    executed = nbformat.read(page, as_version=4)
    for cell in executed.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(lambda m: f"{{ref}}`{m[1]} <{m[2] or m[3]}>`", cell.source)
    executed.cells[0].source = f"({name})=\n{executed.cells[0].source}"
    nbformat.write(executed, page)


def _arrange(page: Path, notebook: Notebook, glance: str, panels: str) -> None:
    """Put the cells of an executed notebook into a reader's order: title and finding, glance,
    picture, caption, what to see, slider, what else is to be known, claims, and last, folded, how
    it was made. A study has a table for a picture, and no glance, caption and claims.

    panels: the picture's panels as Markdown, in place of it; "" leaves what the cell shows.
    """
    from nbformat.v4 import new_code_cell, new_markdown_cell

    executed = nbformat.read(page, as_version=4)
    title, *_, words, appended = executed.cells
    tagged = {tag: cell for cell in executed.cells for tag in cell.metadata.get("tags", ())}
    picture, run = tagged["picture"], tagged["run"]
    heading, _, caption = title.source.partition("\n\n")
    if notebook.finding:
        finding, _, caption = caption.partition("\n\n")
        heading = f"{heading}\n\n{finding}"
    if notebook.is_study:
        caption, about = "", f"## What was asked, and what we expected\n\n{caption}"
    else:  # one paragraph stays below the picture
        caption, _, about = caption.partition("\n\n")
        told = "About this figure" if notebook.is_figure else "What we expected"
        about = about and f"## {told}\n\n{about}"
    claimed = "Claims, and what we find"
    if notebook.is_figure:
        claimed = "What the paper claims, and what we find"
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
        "The table" if notebook.is_study else "The picture": code,
    }
    for name, cell in names.items():
        cell.metadata.mystnb = {"code_prompt_show": name, "code_prompt_hide": name}
    if "claims" in tagged:
        judged = [new_markdown_cell(f"## {claimed}", id="claims-heading"), tagged["claims"]]
    else:
        judged = []

    def prose(name: str, text: str) -> list:
        return [new_markdown_cell(text, id=name)] if text else []

    executed.cells = [
        *prose("heading", heading), *prose("glance", glance),
        picture, *prose("caption", caption),
        words,
        *([slider] if slider.outputs else []),
        *prose("about", about),
        *judged,
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


def _make_pictures() -> None:
    """The pictures of prose pages."""
    shown = named(["fig01", "fig04"])
    scale = tables.BEST if all(figure.committed_scale for figure in shown) else "smoke"
    plans = [figure.plan for figure in shown]
    made_of = _made_of([progress.SIMULATED], {"lenet"}, f"{scale} {plans}")
    said = "page's pictures, and those of other pages of words"
    _unless_made(PAGES / "first.html", made_of, said, partial(_draw, shown, scale))


def _draw(shown: list[Notebook], scale: str, slider: Path) -> None:
    from . import prose_pictures

    with _sources(shown[0]):
        prose_pictures.draw(*shown, scale, slider)
