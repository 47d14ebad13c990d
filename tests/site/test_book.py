"""The command line and the book as a person meets them, in processes of their own."""

import json
import os
import re

import nbformat
import pandas as pd
import pytest

from lottery_nb import LotteryError
from lottery_nb.__main__ import main
from lottery_nb.analysis import claims, results, tables
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import ROOT, Store
from lottery_nb.site import build, pages, progress
from lottery_nb.site.notebooks import ROUNDS, Notebook, every, execute, figures, named


def lines(capsys):
    return capsys.readouterr().err.strip().splitlines()


def test_missing_data_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path / "nowhere"))
    assert main(["run", "fig03", "--scale", "laptop"]) == 2
    assert "LOTTERY_DATA is" in lines(capsys)[-1]


def test_run_trains_draws_and_says_where(capsys, monkeypatch, tmp_path):
    """Into a store named from where the command is given; nothing is left for the notebooks, also
    of one whose distributions need dense networks that it does not draw."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOTTERY_STORE", "mine")
    assert main(["run", "3", "19", "--trials", "1"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("LOTTERY_MISSING", "skip")
    assert main(["run", "3", "19", "--trials", "1"]) == 0
    pages = capsys.readouterr().out.split()
    assert pages == [f"{tmp_path}/mine/notebooks/{name}-smoke.ipynb" for name in ("fig03", "fig19")]
    for page in pages:
        assert "image/svg+xml" in page_text(page) and "missing  " not in page_text(page)
    assert main(["store", "verify"]) == 0
    assert (
        capsys.readouterr().out == f"{len(list(Store()))} trainings are what they say, 0 are not\n"
    )
    assert main(["store", "list"]) == 0
    assert "lenet-mnist5k-iterative-winning-ticket-t0-r00" in capsys.readouterr().out


def page_text(page):
    return "".join(str(cell.get("outputs", "")) for cell in nbformat.read(page, as_version=4).cells)


def test_status(capsys):
    assert main(["status", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["figure"] for row in rows] == [figure.number for figure in figures()]
    for row in rows:
        assert set(row) == {
            "figure",
            "notebook",
            "scale",
            "done",
            "wanted",
            "hours_left",
            "verdicts",
            "evidence",
        }
        assert (ROOT / row["notebook"]).exists()
    by_figure = {row["figure"]: row for row in rows}
    assert by_figure[2]["verdicts"] == {
        "reproduced": 6,
        "not reproduced": 1,
        "direction holds": 0,
        "open": 0,
        "not tested": 0,
    }
    assert by_figure[2]["evidence"]["counting"] == by_figure[2]["verdicts"]
    assert by_figure[4]["verdicts"]["not tested"] == 15
    assert not any(by_figure[4]["evidence"]["laptop scale"].values())
    assert [by_figure[4][name] for name in ("scale", "done", "wanted")] == [None, 0, 335]
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "335" in said
    asked, distinct = progress.sharing("laptop")
    assert f"ask for {asked:,} trainings" in said
    assert f"{distinct:,} are distinct" in said


def test_figures_share_their_trainings(monkeypatch):
    monkeypatch.setattr(
        progress,
        "figures",
        lambda: [Notebook(path) for path in sorted((ROOT / "notebooks").glob("fig1[12]_*.ipynb"))],
    )
    ladder, reinits = 5 * 21, 5 * 20
    one_shot = 2 * 5 * 13
    curves = 5 * 19 + 2 * 5  # Figure 11 stands on all rounds up to the 18th
    assert progress.sharing("laptop") == (
        ladder + reinits + one_shot + curves,
        ladder + reinits + one_shot,
    )


def test_a_committed_figure_is_drawn_from_its_table_alone(monkeypatch, tmp_path):
    figure = named(["fig04"])[0]
    with build._sources(figure):
        assert (Store().folder, os.environ["LOTTERY_MISSING"]) == (tmp_path / "store", "train")
    monkeypatch.setenv("LOTTERY_RESULTS", str(ROOT / "book" / "results"))
    with build._sources(Notebook(figure.path)):
        assert not Store().folder.exists()
        assert os.environ["LOTTERY_MISSING"] == "skip"


def test_what_is_committed_for_other_figures_is_done_and_what_no_figure_shows_is_left(
    monkeypatch, tmp_path
):
    others = [named(["fig04"])[0].plan, ROUNDS]
    monkeypatch.setattr(
        progress,
        "figures",
        lambda: [Notebook(path) for path in sorted((ROOT / "notebooks").glob("fig11_*.ipynb"))],
    )
    [before] = progress.remaining().values()
    assert before[:2] == (0, 40)
    assert len(before[2]) > 40, "Figure 11 stands on rounds that it does not show"
    monkeypatch.setenv("LOTTERY_RESULTS", str(ROOT / "book" / "results"))
    rows = pd.concat([tables.of_committed(plan, scale="laptop")[0] for plan in others])
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path))
    rows[list(results.COLUMNS)].drop_duplicates(results.POINT).to_parquet(
        tmp_path / "lenet-laptop.parquet"
    )
    [now] = progress.remaining().values()
    assert now[0] > 0
    assert len(now[2]) < len(before[2])


def test_what_a_slider_shows_is_trained_with_the_rest():
    assert [figure.name for figure in figures() if set(figure.all_lines) > set(figure.plan)] == [
        "fig03",
        "fig04",
    ]
    rounds = requests_of([ROUNDS], "smoke", 1)
    assert set(rounds) <= set(named(["fig03"])[0].requests("smoke", 1))
    assert not set(rounds) <= set(named(["fig16"])[0].requests("smoke", 1))


def test_the_playground_says_how_to_run_it_live():
    assert "http" not in pages.launch(None)
    live = pages.launch("someone/fork")
    for path in ("notebooks/playground.ipynb", "binder/colab.ipynb"):
        assert path in live
        assert (ROOT / path).exists()
    assert live.count("someone/fork") == 3


def test_a_failed_notebook_keeps_the_last_good_page(tmp_path):
    notebook = nbformat.read(named(["fig02"])[0].path, as_version=4)
    source, page = tmp_path / "fig02_broken.ipynb", tmp_path / "pages" / "fig02.ipynb"
    nbformat.write(notebook, source)
    execute(Notebook(source), {"scale": "smoke"}, page)
    good = page.read_bytes()
    last = "print(len(table), os.getpid())"
    rows, process = execute(Notebook(source), {"scale": "smoke"}, page, "import os", last).split()
    assert int(rows) > 5 and int(process) != os.getpid(), "it runs in the notebook's own kernel"
    assert page.read_bytes() == good, "an executed page is the same each time, and has no cell more"
    notebook.cells[4].source = "table = 1 / 0"
    nbformat.write(notebook, source)
    with pytest.raises(LotteryError, match="ZeroDivisionError"):
        execute(Notebook(source), {"scale": "smoke"}, page)
    assert page.read_bytes() == good
    assert not list(page.parent.glob("*.draft"))


def test_the_command_says_where_the_book_is_and_how_to_serve_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build, "build", lambda: tmp_path / "index.html")
    assert main(["book"]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "index.html") in said
    assert f"http.server -d {tmp_path}" in said


def test_every_page_is_there_and_asks_no_other_host(built):
    pages = {path.relative_to(built).as_posix(): path.read_text() for path in built.rglob("*.html")}
    assert {
        f"book/{name}.html"
        for name in (
            "intro",
            "gallery",
            "reading",
            "disagreements",
            "adding",
            "glossary",
            "method",
            "scoreboard",
            "bench",
            "references",
            "after",
            *(f"figures/{each.name}" for each in every()),
        )
    } <= set(pages)
    for name, text in pages.items():
        assert not re.findall(
            r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+', text
        ), name


def test_pages_show_results_not_machinery(built):
    page = (built / "book" / "figures" / "fig04.html").read_text()
    assert "reinitialised" in page, "the plan is readable"
    assert "<img" in page
    assert 'class="mark ' in page and "number-line" in page
    assert "of the iterations that the paper’s figure stands for" in page
    for hidden in ("# Parameters", "matplotlib.pyplot as plt", "Traceback", "trainings:"):
        assert hidden not in page
    intro = (built / "book" / "intro.html").read_text()
    assert "nan" not in re.sub(r"<[^>]+>", " ", intro).split()
    assert "{glue" not in intro
    assert "last built from nothing on" in intro
    scoreboard = (built / "book" / "scoreboard.html").read_text()
    assert scoreboard.count('class="number-line"') == len(claims.load())
    offered = {path.name: path for path in built.glob("_downloads/*/claims.*")}
    assert len(pd.read_csv(offered["claims.csv"])) == len(claims.load())
    assert len(json.loads(offered["claims.json"].read_text())) == len(claims.load())


def test_the_gallery_leads_to_every_figure(built):
    gallery = (built / "book" / "gallery.html").read_text()
    for figure in figures():
        assert f'href="figures/{figure.name}.html' in gallery
        if figure.number != 2:  # a table
            assert f"{figure.name}-small.png" in gallery


def test_a_figure_can_be_taken_along(built):
    page = (built / "book" / "figures" / "fig04.html").read_text()
    offered = {path.name: path for path in built.glob("_downloads/*/fig04*")}
    kinds = ("fig04.png", "fig04.svg", "fig04.csv", "fig04.ipynb", "fig04-slide.png")
    assert set(offered) == set(kinds)
    order = [cell.id for cell in nbformat.read(offered["fig04.ipynb"], as_version=4).cells]
    assert order.index("run") < order.index("figure"), "the notebook as it was run, not the page"
    for name in offered:
        assert re.search(rf'href="[^"]*_downloads/[^"]*/{re.escape(name)}"', page), name
    assert offered["fig04.png"].read_bytes().startswith(b"\x89PNG")
    numbers = pd.read_csv(offered["fig04.csv"])
    assert {"line", "trial", "round", "density", "metric", "value"} <= set(numbers.columns)
    assert len(numbers) > 1000
    assert "python -m lottery_nb run fig04 --scale" in re.sub(r"<[^>]+>", "", page)


def test_disagreements_of_text_and_plots_are_told_with_ours(built):
    page = (built / "book" / "disagreements.html").read_text()
    assert "2.51×" in page
    assert "2.16×" in page
    assert re.search(r"the (text|plot)</p></td>", page), "ours sides with one of them at least once"


def test_building_trains_nothing_that_is_committed_at_a_real_scale(built):
    store = Store(os.environ.get("LOTTERY_REHEARSED") or built.parents[1] / "results")
    trained = {key.split("-")[1] for key in store}
    assert trained and trained <= {"mnist5k", "mnist1k"}
