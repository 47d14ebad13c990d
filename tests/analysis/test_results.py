"""The committed tables: each training once, every pair of lines with the lineage it needs, and no
freeze that spoils a page."""

import re
from dataclasses import replace
from threading import Thread

import pandas as pd
import pytest
from shared import tiny

from lottery_nb import LotteryError, lenet
from lottery_nb.analysis import claims, results, tables
from lottery_nb.core.scales import SCALES, Shrinking
from lottery_nb.core.tickets import CONTROLS
from lottery_nb.runs import graph, runner
from lottery_nb.runs.plans import joined, requests_of
from lottery_nb.runs.store import ROOT, Store, alone
from lottery_nb.site import notebooks

# Controls that have their ticket's mask.
MASKED = [name for name, control in CONTROLS.items() if "mask" in control.needs]
MASKED = [name for name in MASKED if name not in ("winning ticket", "continued training")]


@pytest.fixture
def real(monkeypatch):
    monkeypatch.delenv("LOTTERY_RESULTS")
    return results.committed()


def test_every_committed_control_has_its_tickets_mask(real):
    checked = 0
    for scale in ("laptop", "paper"):
        wanted = graph.with_ancestors(requests_of(notebooks.all_plans(), scale, 5))
        nodes = {key: request.node for key, request in wanted.items()}
        tickets = {
            (node.recipe, node.strategy, node.trial, node.round): key
            for key, node in nodes.items()
            if node.control == "winning ticket"
        }
        for key, node in nodes.items():
            ticket = tickets.get((node.recipe, node.strategy, node.trial, node.round))
            if (
                node.control in MASKED
                and {key, ticket} <= real.held.keys()
                and real.trainings.weights[key] != ""
            ):
                assert real.trainings["mask"][key] == real.trainings["mask"][ticket], key
                checked += 1
    assert checked, "there are controls to check"


def test_every_committed_training_stands_on_its_committed_parents(real):
    for key, parents in real.trainings.parents.items():
        for parent, mask, weights in (told.split() for told in parents.split("; ") if told):
            if parent in real.held:
                assert (real.trainings["mask"][parent], real.trainings.weights[parent]) == (
                    mask,
                    weights,
                ), key


def test_one_data_set_a_chain(real):
    for key, parents in real.trainings.parents.items():
        for parent in (told.split()[0] for told in parents.split("; ") if told):
            assert (
                parent not in real.held
                or real.trainings.dataset[parent] == real.trainings.dataset[key]
            )


# --- freezing -------------------------------------------------------------------------------------

TICKETS = tiny.iterative()
PLAN = {"ticket": TICKETS, "reinit": TICKETS.reinitialised(2)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def freeze(plan, trials=None, scale="paper"):
    return results.freeze({"fig99": plan}, scale, trials, [plan])


def test_a_training_of_two_figures_is_committed_once_with_what_both_show(folder):
    tables.run(PLAN, "paper")
    freeze(PLAN)
    curves = {"ticket": TICKETS.at_rounds(0, 2).with_curves()}
    tables.run(curves, "paper")
    freeze(curves)
    held = results.committed()
    assert not held.rows.duplicated(results.POINT).any()
    assert len(held.held) == len(requests_of([PLAN], "paper"))
    table, missing = tables.of_committed(curves, scale="paper")
    assert not missing and set(table.metric) >= {"test_accuracy", "val_loss"}
    table, missing = tables.of_committed(PLAN, scale="paper")
    assert not missing and "test_accuracy" not in set(table.metric), "a line shows what it asks for"


def test_a_freeze_waits_for_another(folder):
    tables.run(PLAN, "paper")
    tickets, reinits = ({label: line} for label, line in PLAN.items())
    with alone(folder):
        second = Thread(target=freeze, args=(reinits,))
        second.start()
        second.join(0.5)
        assert second.is_alive() and not [*folder.glob("*.parquet")]
    second.join()
    freeze(tickets)
    assert len(results.committed().held) == len(requests_of([PLAN], "paper"))


def test_a_few_trainings_at_a_better_scale_never_replace_a_finished_line(folder, monkeypatch):
    """A line needs three trials, or its scale's own number; each line of a figure has a scale of
    its own."""
    short = {"iterations": 0.5, "rounds": 2, "trials": 3}
    monkeypatch.setitem(SCALES, "laptop", {"lenet": Shrinking(**short)})
    recipe = replace(tiny, trials=3)
    plan = {"ticket": recipe.iterative(), "reinit": recipe.iterative().reinitialised()}
    tables.run(plan, "laptop")
    freeze(plan, scale="laptop")
    assert results.committed().best_scale(plan["ticket"]) == "laptop"
    tables.run({"ticket": plan["ticket"].at_rounds(0, 1)}, "paper", 2)
    freeze({"ticket": plan["ticket"].at_rounds(0, 1)}, 2)
    table = tables.run(plan, "committed")
    assert dict(zip(table.line, table.scale)) == {"ticket": "laptop", "reinit": "laptop"}
    assert table.trial.nunique() == 3
    tables.run({"ticket": plan["ticket"]}, "paper")
    freeze({"ticket": plan["ticket"]})
    table = tables.run(plan, "committed")
    assert dict(zip(table.line, table.scale)) == {"ticket": "paper", "reinit": "laptop"}


def test_a_further_trial_that_is_there_in_part_does_not_make_a_line_whole(folder, monkeypatch):
    short = {"iterations": 0.5, "rounds": 2, "trials": 3}
    monkeypatch.setitem(SCALES, "laptop", {"lenet": Shrinking(**short)})
    ticket = replace(tiny, trials=3).iterative()
    for line, scale, trials in (
        (ticket, "laptop", 3),
        (ticket, "paper", 2),
        (ticket.at_rounds(0), "paper", 4),
    ):
        tables.run({"ticket": line}, scale, trials)
        freeze({"ticket": line}, trials, scale)
    assert results.committed().best_scale(ticket) == "laptop"


def test_lines_at_two_scales_are_named_so_and_not_compared(folder, monkeypatch):
    claim = claims.parse(
        {
            "id": "a", "figure": 98, "says": "a", "where": "Figure 4",
            "of": {"line": "ticket", "metric": "test_accuracy_at_end", "density": 1},
            "against": {"line": "other"}, "as": "difference", "unit": "pp", "text": None,
            "plot": None, "rule": {"above": -100}, "scale": "smoke",
        },
        ROOT,
    )  # fmt: skip
    monkeypatch.setattr(claims, "load", lambda: (claim,))
    rows = [
        {"line": line, "metric": "test_accuracy_at_end", "trial": 0, "density": 1.0, "value": 0.9}
        for line in ("ticket", "other")
    ]
    alike = pd.DataFrame(rows).assign(scale="laptop", iteration=4, x=float("nan"))
    mixed = alike.assign(scale=["laptop", "paper"])
    assert claims.verdicts("fig98", alike).outcome.tolist() == ["reproduced"]
    assert claims.verdicts("fig98", mixed).outcome.tolist() == ["not tested"]


def test_committed_trainings_are_not_replaced_by_another_machines(folder, tmp_path, monkeypatch):
    from test_lineage import changed, key_of, nudged

    tables.run(PLAN, "paper")
    freeze(PLAN)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    store, key = Store(), key_of(TICKETS, 3)
    changed(store, key, **nudged(store, key))
    [left_out, _] = freeze(PLAN)
    assert re.match(
        f"left out, .*: 1 of .* trainings. {key} is committed with other weights .* not replaced",
        left_out,
    )
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    for node in TICKETS.nodes("paper"):
        if node.key != key:
            changed(store, node.key, **nudged(store, node.key))
    with pytest.raises(LotteryError, match="is committed with other weights .* LOTTERY_RESULTS"):
        freeze({"tickets": TICKETS})


def test_a_line_of_ones_own_is_committed_beside_one_that_another_machine_trained(folder):
    """Of the shared line nothing is replaced, and nothing that stands on it here is added."""
    from test_lineage import changed, key_of, nudged

    tables.run(PLAN, "paper")
    freeze(PLAN)
    store, key = Store(), key_of(TICKETS, 0)
    changed(store, key, **nudged(store, key))
    own = {"own": tiny.but(learning_rate=0.003).iterative()}
    tables.run(own, "paper")
    said = freeze(PLAN | own)
    assert said[0].startswith("left out, ")
    held = results.committed().held
    assert {node.key for node in own["own"].nodes("paper")} <= held.keys()
    assert results.committed().trainings.weights[key] != store.record(key)["weights"]


def test_what_a_slider_asks_of_one_trial_leaves_no_other_out(folder):
    """The slider shows test accuracy as it is learned of its one trial; the others have none."""
    plan = {"tickets": TICKETS}
    slider = {"slider": TICKETS.with_curves()}
    runner.train_missing(
        joined([requests_of([plan], "paper"), requests_of([slider], "paper", 1)]), Store()
    )
    freeze(plan | slider)
    held = results.committed().held
    assert {node.key for node in TICKETS.nodes("paper")} <= held.keys()
    first, other = TICKETS.nodes("paper")[0], TICKETS.nodes("paper")[-1]
    assert (first.trial, other.trial) == (0, 1)
    assert "test_accuracy" in held[first.key] and "test_accuracy" not in held[other.key]


def test_a_former_training_goes_with_what_stood_on_it_once_its_place_is_taken(folder):
    """Tables of before lineage was recorded have no digests: their tickets are replaced, and
    reinits of other masks go with them."""
    tables.run(PLAN, "paper")
    freeze(PLAN)
    [path] = folder.iterdir()
    former = pd.read_parquet(path).assign(**dict.fromkeys(results.LINEAGE, ""))
    former.to_parquet(path, index=False)
    tickets = {"ticket": TICKETS.at_rounds(0, 1)}
    store = Store()
    for key in store:
        if key not in requests_of([tickets], "paper", 1):
            store.set_aside(key, "is not of this test")
    [said] = results.freeze({"fig99": tickets}, "paper", 1, [PLAN])
    held = results.committed()
    kept = held.trainings.weights
    of_trial = {trial: {key for key in held.held if f"-t{trial}-" in key} for trial in (0, 1)}
    assert said.endswith("of a former lineage went")
    assert of_trial[0] == set(requests_of([tickets], "paper", 1)), (
        "round 2 and the reinits stood on what was replaced"
    )
    assert (kept[list(of_trial[0])] != "").all()
    assert (
        len(of_trial[1]) == len(requests_of([PLAN], "paper")) / 2
        and (kept[list(of_trial[1])] == "").all()
    )


def test_a_key_in_two_tables_is_named(folder):
    tables.run(PLAN, "paper")
    freeze(PLAN)
    pd.read_parquet(folder / "lenet-paper.parquet").to_parquet(folder / "lenet-laptop.parquet")
    with pytest.raises(LotteryError, match="stands there twice; restore the tables with git"):
        results.committed()


def test_a_table_under_another_name_is_named(folder):
    folder.mkdir()
    pd.DataFrame(columns=results.COLUMNS).to_parquet(folder / "fig04-huge.parquet")
    with pytest.raises(
        LotteryError, match=f"NETWORK-SCALE.parquet, and scales are {', '.join(SCALES)}"
    ):
        results.committed()


def test_nothing_is_trained_for_what_is_committed(folder):
    tables.run({"ticket": lenet.iterative().at_rounds(0)}, "smoke", 1)
    freeze({"ticket": lenet.iterative().at_rounds(0)}, 1, "smoke")
    before = list(Store())
    tables.run({"ticket": lenet.iterative()}, "committed")
    assert list(Store()) == before
    assert runner.commit()


def test_a_training_of_two_scales_stays_in_the_table_that_has_it(folder):
    """Where a scale shrinks nothing of a recipe, its trainings are the other scale's too."""
    recipe = tiny.but(iterations=1, evaluate_every=1, rounds=1, trials=1)
    plan, curves = {"ticket": recipe.iterative()}, {"ticket": recipe.iterative().with_curves()}
    tables.run(plan, "laptop", quiet=True)
    freeze(plan, scale="laptop")
    tables.run(curves, "paper", quiet=True)
    freeze(curves, scale="paper")
    assert [path.name for path in folder.iterdir()] == ["lenet-laptop.parquet"]
    assert not tables.of_committed(curves, scale="paper")[1]


def test_what_is_missing_is_told_with_the_scale_that_makes_it(folder, capsys):
    tables.run({"ticket": TICKETS}, "paper", 1, quiet=True)
    freeze({"ticket": TICKETS.at_rounds(0, 1)}, 1)
    capsys.readouterr()
    tables.run(PLAN, "committed", figure="fig99")
    said = capsys.readouterr().out
    assert (
        "missing   6 trainings, not drawn; this makes them:\n"
        "          python -m lottery_nb run fig99 --scale paper" in said
    )
    assert "run fig99 --scale laptop" in said, (
        "of the reinits nothing is committed: laptop scale is the nearer"
    )
