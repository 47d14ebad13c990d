"""CONTRIBUTING.md's own blocks of code, put where it says, do one of each at smoke size."""

import __future__

import re
from dataclasses import replace

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from shared import tiny

from lottery_nb import LotteryError, Recipe, conv6, resnet18
from lottery_nb.analysis import claims, tables
from lottery_nb.core import masks, networks, tickets
from lottery_nb.runs import batch
from lottery_nb.runs.store import ROOT, Store
from lottery_nb.site import scoreboard
from lottery_nb.site.notebooks import Notebook

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
REGISTERS = ((networks, "NETWORKS"), (tickets, "CONTROLS"), (masks, "CRITERIA"))


def block(section: str, language: str = "python") -> str:
    """The first block of code below a heading."""
    _, _, below = PAGE.partition(f"\n## {section}\n")
    return re.search(rf"```{language}\n(.*?)```", below.partition("\n## ")[0], re.DOTALL)[1]


@pytest.fixture(autouse=True)
def added(monkeypatch):
    """The page's network, control and criterion, written at the ends of their files for a test."""
    for module, register in REGISTERS:
        monkeypatch.setattr(module, register, dict(getattr(module, register)))
    for (module, _), section in zip(REGISTERS, ("network", "control", "pruning criterion")):
        code = compile(
            block(f"A {section}"), "CONTRIBUTING.md", "exec", __future__.annotations.compiler_flag
        )
        exec(code, dict(vars(module)))


def trained(line):
    """The first trial of a line and its store."""
    table = tables.run({"added": line}, scale="paper", trials=1, quiet=True)
    assert len(table)
    return [node for node in line.nodes("paper", trials=1) if node.round], Store()


def left_by(node, store):
    return batch.outputs_of(store.arrays(node.key))


def written(section, tmp_path):
    """A copy of the notebook that the page says to copy, with the page's cells."""
    _, _, below = PAGE.partition(f"\n## {section}\n")
    source, target = re.search(r"Copy `(\S+)`\s+to\s+`(\S+)`", below).groups()
    notebook = nbformat.read(ROOT / source, as_version=4)
    cells = {tag: code for code, tag in re.findall(r"(.+?)  # (\w+)\n", block(section), re.DOTALL)}
    for cell in notebook.cells:
        tag = next(iter(cell.metadata.get("tags", ())), None)
        if tag in cells:
            cell.source = cells.pop(tag)
    assert not cells, "a cell that the copied notebook lacks"
    path = tmp_path / target.rpartition("/")[2]
    nbformat.write(notebook, path)
    assert f"- file: book/figures/{Notebook(path).name}`" in below
    return Notebook(path)


def test_the_network_is_built_and_trained():
    assert conv6.but(network="conv8").layers[7].shape == (512, 512, 3, 3)
    assert Recipe(network="conv8", data="cifar10", iterations=30_000).weights > 4_000_000
    small = tiny.but(network="conv8", data="mnist1k", validation=100, width=0.125, sizes=(80, 80))
    nodes, store = trained(small.iterative().at_rounds(1))
    ticket = left_by(nodes[0], store)
    assert [name for name in ticket.mask if name.startswith("conv")][-1] == "conv8.weight"
    assert all(ticket.final[name][mask].all() for name, mask in ticket.mask.items())


def test_the_control_makes_its_ticket_and_is_trained():
    [node], store = trained(tiny.iterative().with_control("negated").at_rounds(2))
    parent, dense = left_by(node.parent, store), left_by(node.origin, store)
    ticket = tickets.make(node, parent, dense)
    assert masks.density(ticket.mask) < masks.density(parent.mask)
    for name, value in ticket.weights.items():
        expected = -dense.initial[name] * ticket.mask[name] if name in ticket.mask else value
        assert torch.equal(value, expected)
    assert node.key in store


def test_a_control_that_forgets_a_need_trains_no_other_network(monkeypatch):
    monkeypatch.setitem(
        tickets.CONTROLS, "negated", tickets.Control(tickets.CONTROLS["negated"].make)
    )
    with pytest.raises(LotteryError, match="'negated' uses what is not .* needs: add 'mask'"):
        tables.run({"negated": tiny.iterative().with_control("negated")}, "paper", quiet=True)


def test_a_network_takes_the_scales_of_its_family_or_is_refused():
    class Narrow(networks.Resnet18, name="narrow"):
        pass

    class Alone(networks.Resnet18, name="alone"):
        family = ""

    narrow, alone = (replace(resnet18, network=name) for name in ("narrow", "alone"))
    assert narrow.at("smoke").iterations == resnet18.at("smoke").iterations < 20
    assert alone.at("paper").iterations == resnet18.iterations
    with pytest.raises(LotteryError, match="smoke scale does not say what it shrinks of alone"):
        alone.at("smoke")


def test_the_criterion_prunes_by_its_score():
    [node], store = trained(tiny.but(criterion="movement").iterative().at_rounds(1))
    dense, ticket = left_by(node.parent, store), left_by(node, store)
    for name, mask in ticket.mask.items():
        moved = (dense.final[name] - dense.initial[name]).abs()
        assert moved[~mask].max() <= moved[mask].min()
    by_magnitude = tickets.prune(replace(node, recipe=tiny), dense)
    assert not all(torch.equal(mask, by_magnitude[name]) for name, mask in ticket.mask.items())


def test_the_figure_has_its_plan_and_its_claim(tmp_path, monkeypatch):
    figure = written("A figure", tmp_path)
    assert (figure.is_figure, figure.number) == (True, 47)
    assert [line.recipe.network for line in figure.plan.values()] == ["conv6", "conv8"]
    assert figure.requests("smoke")
    [row] = yaml.safe_load(block("A claim", "yaml"))
    claim = claims.parse(row, tmp_path)
    assert claim.notebook == figure.name
    assert {place["line"] for place in claim.places} <= set(figure.plan)
    recipe = figure.plan[claim.of["line"]].recipe.at(claim.scale)
    shares = [recipe.remaining(r) / recipe.weights for r in range(recipe.rounds + 1)]
    assert min(abs(share - claim.of["density"]) for share in shares) < 0.001
    monkeypatch.setattr(claims, "load", lambda *_: (claim,))
    sheets = {figure: claims.verdicts(figure.name, pd.DataFrame())}
    assert scoreboard.networks_of(figure, sheets[figure]) == {claim.id: "conv8"}
    assert "| conv8 | 1 |" in scoreboard.by_network(sheets)
    assert '<option value="conv8">' in scoreboard.page(sheets)
    assert "Of the paper’s 0 checkable claims" in scoreboard.summary(sheets)


def test_the_study_has_its_plan_and_its_table(tmp_path, monkeypatch):
    study = written("A study", tmp_path)
    assert (study.is_figure, study.name) == (False, "study_criterion")
    assert {line.recipe.criterion for line in study.plan.values()} == {"magnitude", "movement"}
    small = {
        label: replace(line, recipe=tiny.but(criterion=line.recipe.criterion), rounds=(0, 1))
        for label, line in study.plan.items()
    }
    table = tables.run(small, scale="smoke", trials=1, quiet=True)
    monkeypatch.setattr(tables, "run", lambda plan, **_: table)
    values = study.values("parameters", "imports", "plan", "run", "picture")
    assert values["table"] is table


NAMED = re.findall(r"`((?:lottery_nb|book|tests|notebooks)/[\w/.]+)`", PAGE)


@pytest.mark.parametrize("path", sorted(set(NAMED)))
def test_what_the_page_names_is_there(path):
    to_come = ("fig47_depth", "study_criterion", "chapter7_criteria")
    there = (ROOT / path).exists() or path.startswith("book/figures/")
    assert there or path in {f"notebooks/{name}.ipynb" for name in to_come}
