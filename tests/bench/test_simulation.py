"""The clock of the graph, on plans small enough to count by hand."""

from pytest import approx
from shared import tiny

from lottery_nb import conv2, lenet
from lottery_nb.bench import simulation
from lottery_nb.runs import graph
from lottery_nb.runs.plans import requests_of
from lottery_nb.site import notebooks, progress


def pending(*lines):
    return graph.with_ancestors(
        requests_of([{str(i): line for i, line in enumerate(lines)}], "paper")
    )


def test_a_chain_is_no_faster_on_many_workers():
    rounds = pending(conv2.but(rounds=3, trials=1).iterative())
    assert [simulation.makespan(rounds, lambda recipe: 5.0, workers) for workers in (1, 2, 64)] == [
        20,
        20,
        20,
    ]
    assert simulation.critical_path(rounds, lambda recipe: 5.0) == 20


def test_trials_and_controls_share_the_workers():
    both = pending(
        conv2.but(rounds=1, trials=2).iterative(),
        conv2.but(rounds=1, trials=2).iterative().reinitialised(),
    )
    assert len(both) == 6
    assert [
        simulation.makespan(both, lambda recipe: 1.0, workers) for workers in (1, 2, 4, 99)
    ] == [6, 3, 2, 2]


def test_a_batch_of_lenets_takes_turns_on_its_worker():
    whole = pending(tiny.but(rounds=1, trials=4).iterative().at_rounds(0))
    assert [simulation.makespan(whole, lambda recipe: 1.0, workers) for workers in (1, 2, 4)] == [
        4,
        2,
        1,
    ]


def test_times_come_from_iterations_and_sizes():
    iteration = {"lenet": 0.001, "conv2": 0.1}
    assert simulation.seconds_of(lenet, iteration) == approx(50)
    assert simulation.seconds_of(lenet.but(sizes=(150, 50)), iteration) == approx(
        50 * (784 * 150 + 150 * 50 + 50 * 10) / 266_200
    )
    assert simulation.seconds_of(conv2, iteration) == approx(2000)
    told = simulation.hours(
        pending(conv2.but(rounds=1, trials=2).iterative()), iteration, workers=(1, 2)
    )
    assert told == {
        "trainings": 4,
        "work": approx(8000 / 3600),
        "chain": approx(4000 / 3600),
        "on": {"1": approx(8000 / 3600), "2": approx(4000 / 3600)},
    }


def test_the_committed_hours_are_of_the_plans_as_they_are():
    pending = graph.with_ancestors(
        requests_of((figure.plan for figure in notebooks.figures()), "paper")
    )
    assert progress.simulated()["hours"]["the whole book"]["trainings"] == len(pending), (
        "bench.growth.hours_of_the_papers_scale(progress.simulated()['iteration']) makes them anew"
    )
