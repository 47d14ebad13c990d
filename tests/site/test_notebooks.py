"""The sources of the figures: their form, and papermill from another folder. nbval executes every
cell (see Makefile)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from lottery_nb.analysis import claims, tables
from lottery_nb.core.scales import SCALES
from lottery_nb.runs.store import ROOT
from lottery_nb.site import pages
from lottery_nb.site.notebooks import Notebook, chapters, execute, figures

NOTEBOOKS = sorted((ROOT / "notebooks").glob("fig*.ipynb"))
CHAPTERS = sorted((ROOT / "notebooks").glob("chapter*.ipynb"))


def name_of(path):
    return path.name.partition("_")[0]


each = pytest.mark.parametrize("path", [*NOTEBOOKS, *CHAPTERS], ids=name_of)


def read(path):
    return nbformat.read(path, as_version=4)


def test_every_figure_has_one():
    numbers = [int(path.name[3:5]) for path in NOTEBOOKS]
    assert numbers == list(range(1, max(numbers) + 1))
    assert max(numbers) >= 45, "the paper's own"


def test_no_two_notebooks_share_five_lines():
    """Of code with a statement on each line, however it is wrapped."""
    seen = {}
    for path in [*NOTEBOOKS, *CHAPTERS]:
        code = "\n".join(cell.source for cell in read(path).cells[3:6])
        lines = ast.unparse(ast.parse(code)).splitlines()
        for block in zip(*(lines[i:] for i in range(5))):
            assert seen.setdefault(block, path.name) == path.name, block


@each
def test_sources_carry_nothing_of_a_run(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@each
def test_the_eight_cell_form(path):
    cells = read(path).cells
    tags = [next(iter(cell.metadata.get("tags", [""]))) for cell in cells]
    assert [cell.cell_type for cell in cells] == ["markdown", *["code"] * 6, "markdown"]
    assert tags[1:5] == ["parameters", "imports", "plan", "run"]
    kind, number = re.fullmatch(r"([a-z]+)(\d+)", name_of(path)).groups()
    title = {"fig": "Figure", "chapter": "Chapter"}[kind]
    assert cells[0].source.startswith(f"# {title} {int(number)}: ")
    assert Notebook(path).finding, "a bold line below the title"
    assert cells[1].source.startswith('scale = "smoke"')
    assert len(cells[5].source.splitlines()) <= 15
    assert cells[6].source == f'compare("{name_of(path)}", table)'
    assert not any(
        word in cell.source
        for cell in cells
        if cell.cell_type == "code"
        for word in ("../", "/home", "os.path")
    )


@each
def test_a_page_stands_in_the_table_of_contents(path):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert f"book/figures/{name_of(path)}" in chapters


@pytest.mark.parametrize("path", CHAPTERS, ids=name_of)
def test_a_chapter_says_what_was_expected_and_its_claims_are_about_its_lines(path):
    chapter = Notebook(path)
    first = chapter.cells[0]["source"]
    assert "**Expected**, written down before the run" in first
    mine = [each for each in claims.load(claims.LATER) if each.notebook == chapter.name]
    assert mine
    claims.check(chapter.name, chapter.plan)
    for each in mine:
        assert each.where == "This book" or re.match(r"\w+ et al\. \d{4}, ", each.where)


@pytest.mark.parametrize("figure", [*figures(), *chapters()], ids=lambda figure: figure.name)
def test_plans_are_read_without_a_kernel(figure):
    assert figure.parameters == {"scale": "smoke", "trials": None}
    for scale in SCALES:
        nodes = [line.nodes(scale) for line in figure.plan.values()]
        assert all(nodes) if figure.is_figure else any(nodes)


def test_papermill_runs_one_from_another_folder(tmp_path):
    [source] = (ROOT / "notebooks").glob("fig03_*.ipynb")
    papermill = Path(sys.executable).with_name("papermill")
    subprocess.run(
        [papermill, source, "out.ipynb", "-p", "scale", "smoke", "-p", "trials", "1"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    outputs = [
        output for cell in read(tmp_path / "out.ipynb").cells for output in cell.get("outputs", ())
    ]
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
    assert any("Not tested" in output.get("data", {}).get("text/html", "") for output in outputs)


def test_figure_46_of_the_page_that_tells_how_to_add_one(tmp_path):
    """The page's own cells, put into a copy of another figure's notebook, run."""
    text = (ROOT / "book" / "adding.md").read_text()
    blocks = text.split("```")[1::2]
    notebook = read(NOTEBOOKS[0])
    notebook.cells[0].source = "# Figure 46: batch sizes"
    cells = [
        block.removeprefix("python\n").strip() for block in blocks if block.startswith("python\n")
    ]
    for cell, source in zip(notebook.cells[2:7], [*cells, 'compare("fig46", table)']):
        cell.source = source
    path = tmp_path / "fig46_batch_sizes.ipynb"
    nbformat.write(notebook, path)
    figure = Notebook(path)
    assert [line.recipe.batch for line in figure.plan.values()] == [30, 60, 120]
    execute(figure, {"scale": "smoke", "trials": 1}, tmp_path / "page.ipynb")
    outputs = [
        output for cell in read(tmp_path / "page.ipynb").cells for output in cell.get("outputs", ())
    ]
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
    claim = yaml.safe_load(
        next(block for block in blocks if "fig46-small" in block).removeprefix("yaml\n")
    )
    assert claims.parse(claim[0], path).figure == 46


@each
def test_links_lead_to_files_and_nothing_is_written_for_sphinx_alone(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)]+)\)", cell.source):
                assert target.startswith("https://") or (path.parent / target).exists(), target
            assert not re.search(r"\{\w+\}`|^\(\w+\)=", cell.source, re.MULTILINE)


STUDIES = sorted((ROOT / "notebooks").glob("study_*.ipynb"))
each_study = pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)


@each_study
def test_the_seven_cell_form_of_a_study(path):
    cells = read(path).cells
    tags = [cell.metadata.get("tags", []) for cell in cells]
    assert [cell.cell_type for cell in cells] == ["markdown", *["code"] * 5, "markdown"]
    assert [of[:1] for of in tags] == [
        [], ["parameters"], ["imports"], ["plan"], ["run"], ["picture"], [],
    ]  # fmt: skip
    assert all("remove-cell" in of for of in tags[1:3])
    assert cells[0].source.startswith("# ")
    assert cells[0].source.splitlines()[0].endswith("?"), "its title is the question"
    assert "**Expected**" in cells[0].source
    assert "written down before the run" in cells[0].source
    assert cells[1].source == read(NOTEBOOKS[0]).cells[1].source
    assert cells[4].source.endswith(f'figure="{path.stem}")')
    assert len(cells[5].source.splitlines()) <= 15
    assert f'"{path.stem}"' in cells[5].source
    assert cells[6].source.startswith("## What we saw\n\n")


@each_study
def test_the_source_of_a_study_carries_nothing_of_a_run(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata == read(NOTEBOOKS[0]).metadata
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@each_study
def test_a_study_answers_its_question_and_stands_in_the_table_of_contents(path):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    [part] = [part for part in toc["parts"] if part.get("caption") == "Studies"]
    assert f"book/figures/{path.stem}" in [chapter["file"] for chapter in part["chapters"]]
    assert Notebook(path).finding
    assert "```{include} figures/studies.md" in (ROOT / "book" / "differences.md").read_text()
    assert f"| {{ref}}`{path.stem}` | {Notebook(path).finding} |" in pages.studies([Notebook(path)])


@each_study
def test_the_plan_of_a_study_is_read_without_a_kernel(path):
    study = Notebook(path)
    assert (study.name, study.is_figure) == (path.stem, False)
    assert study.parameters == {"scale": "smoke", "trials": None}
    for scale in SCALES:
        for line in study.plan.values():
            assert line.nodes(scale)


@each_study
def test_what_a_study_shows_is_committed_at_the_scale_that_its_page_names(path, monkeypatch):
    """Where its lines compare lengths of training, it is written at paper scale, or those lines
    are."""
    monkeypatch.setenv("LOTTERY_RESULTS", str(ROOT / "book" / "results"))
    study = Notebook(path)
    scale = re.search(f'"{path.stem}", "([a-z]+)"', study.source("picture")).group(1)
    assert min(study.scales.values(), key=list(SCALES).index) == scale
    table, missing = tables.of_committed(study.plan)
    assert not missing
    assert set(table.line) == set(study.plan)


def test_make_executes_every_notebook():
    said = re.findall(r"^nbval-\w+: NOTEBOOKS = (.*)$", (ROOT / "Makefile").read_text(), re.M)
    executed = [path for globs in said for glob in globs.split() for path in ROOT.glob(glob)]
    assert sorted(executed) == sorted((ROOT / "notebooks").glob("*.ipynb"))
