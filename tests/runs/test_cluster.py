"""Local workers and a Dask cluster, as real processes: the same tables, whatever is killed."""

import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import replace

import pandas as pd
import pytest
from shared import import_path, tiny

from lottery_nb.__main__ import main
from lottery_nb.analysis import tables
from lottery_nb.core.errors import LotteryError
from lottery_nb.runs import cluster, lineage, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store

KILLS = int(os.environ.get("LOTTERY_KILLS", 4))
SMALL = replace(tiny, iterations=120, evaluate_every=20, trials=2 * KILLS)
PLAN = {"ticket": SMALL.iterative(), "reinit": SMALL.iterative().reinitialised(2)}
WANTED = requests_of([PLAN], "paper")

# Python as a worker on another machine has it: torch, numpy, distributed and what they need, but
# neither pandas nor this project.
BARE = (
    f"import sys; sys.path.append({sysconfig.get_path('purelib')!r}); "
    "sys.modules['pandas'] = None; from distributed.cli.dask_%s import main; main()"
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A Dask scheduler and two workers, each a process that can be killed."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self._start("scheduler", "--port", str(self.port))
        self.workers = [self.new_worker() for _ in range(2)]

    def _start(self, what, *options):
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            BARE % what,
            "--host",
            "127.0.0.1",
            "--no-dashboard",
            *options,
        ]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(self.folder / "no-cache"),
        }
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def new_worker(self):
        return self._start(
            "worker",
            self.address,
            "--nthreads",
            "1",
            "--no-nanny",
            "--local-directory",
            str(self.folder / "workers"),
        )

    def kill_worker(self, i):
        self.workers[i].kill()
        self.workers[i].wait()
        self.workers[i] = self.new_worker()

    def kill_scheduler(self):
        self.stop()
        self.scheduler = self._start("scheduler", "--port", str(self.port))
        self.workers = [self.new_worker() for _ in range(2)]

    def stop(self):
        for process in (self.scheduler, *self.workers):
            process.kill()
            process.wait()


@pytest.fixture
def dask_cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What one process makes of the plan, alone."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTERY_STORE", str(store.folder))
        return tables.run(PLAN, scale="paper")


def assert_same(store, undisturbed, monkeypatch):
    monkeypatch.setenv("LOTTERY_STORE", str(store.folder))
    table = tables.run(PLAN, scale="paper")
    beside = ["commit", "started", "seconds"]
    pd.testing.assert_frame_equal(
        table.drop(columns=beside), undisturbed.drop(columns=beside), check_exact=True
    )
    assert lineage.verify(store) == (len(WANTED), {})


def test_local_workers_make_the_same_tables(undisturbed, tmp_path, monkeypatch):
    store = Store(tmp_path / "jobs")
    with cluster.local_workers(2, {"mnist5k"}) as executor:
        runner.train_missing(WANTED, store, executor)
    assert_same(store, undisturbed, monkeypatch)
    assert "1 thread)" in store.record(next(iter(store)))["made_of"]["device"]


def test_workers_need_nothing_of_this_project(undisturbed, tmp_path, monkeypatch, dask_cluster):
    store = Store(tmp_path / "far")
    with cluster.joined(dask_cluster.address, {"mnist5k"}) as executor:
        runner.train_missing(WANTED, store, executor)
    assert not (dask_cluster.folder / "no-cache").exists(), "data came along"
    assert_same(store, undisturbed, monkeypatch)


def test_data_that_a_worker_lacks_end_the_run_in_a_line(tmp_path, dask_cluster):
    hopeless = requests_of(
        [{"hopeless": SMALL.but(data="cifar10").iterative().at_rounds(0)}], "paper", 1
    )
    with (
        cluster.joined(dask_cluster.address, {"mnist5k"}) as executor,
        pytest.raises(LotteryError, match="cifar10.npz cannot be read as cifar10") as raised,
    ):
        runner.train_missing(hopeless, Store(tmp_path / "far"), executor)
    assert type(raised.value) is LotteryError, "and no list of trainings that failed"


def test_bad_input_on_a_worker_is_one_line_as_here(tmp_path):
    asks = replace(SMALL, data="mnist1k", validation=900)
    with (
        cluster.local_workers(1, {"mnist1k"}) as workers,
        pytest.raises(LotteryError, match="validation is 900: mnist1k has 900") as raised,
    ):
        wanted = requests_of([{"ticket": asks.iterative()}], "paper")
        runner.train_missing(wanted, Store(tmp_path), workers, quiet=True)
    assert type(raised.value) is LotteryError, "no training failed twice"


def test_a_worker_of_another_torch_is_named_and_refused_or_recorded(
    tmp_path, monkeypatch, dask_cluster, capsys
):
    monkeypatch.setattr(cluster, "OUR_TORCH", "9.9.9")
    one = requests_of([{"one": SMALL.iterative().at_rounds(0)}], "paper", 1)
    with (
        cluster.joined(dask_cluster.address, {"mnist5k"}) as executor,
        pytest.raises(LotteryError, match="--other-versions record"),
    ):
        runner.train_missing(one, Store(tmp_path / "far"), executor)
    with cluster.joined(dask_cluster.address, {"mnist5k"}, others="record") as executor:
        runner.train_missing(one, Store(tmp_path / "far"), executor)
    assert "here is 9.9.9: its records will say so" in capsys.readouterr().err
    assert lineage.verify(Store(tmp_path / "far")) == (1, {})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--jobs", "0"], "jobs is '0': give a whole number of 1 or more"),
        (["--jobs", "two"], "jobs is 'two'"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
        (["--scheduler", "nonsense://"], "no Dask scheduler answers at nonsense://"),
        (
            ["--scheduler", "tcp://127.0.0.1:1", "--other-versions", "maybe"],
            "choose refuse or record",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER", 1)
    assert main(["run", "fig03", "--trials", "1", *arguments]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said in line


RUN = """from lottery_nb.runs import cluster, runner
from lottery_nb.runs.store import Store
from test_cluster import WANTED

if __name__ == "__main__":
    with cluster.{how} as executor:
        runner.train_missing(WANTED, Store({store!r}), executor)
"""


def start_run(folder, how):
    """A run in a process of its own, as the command line would start it."""
    script = folder / "run.py"
    script.write_text(RUN.format(how=how, store=str(folder / "store")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": import_path(__file__)}
    return subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_done(folder, how, disturb=lambda run: None):
    """Start runs until one ends well, disturbing it so many times; what is stored is never trained
    again."""
    store, kept, kills = Store(folder / "store"), {}, 0
    for _ in range(KILLS + 2):
        run = start_run(folder, how)
        while run.poll() is None and kills < KILLS:
            before, soon = len(list(store)), time.monotonic() + 15
            while run.poll() is None and len(list(store)) == before and time.monotonic() < soon:
                time.sleep(0.05)
            time.sleep(random.uniform(0, 0.5))
            if run.poll() is None:
                kills += 1
                disturb(run)
            now = {key: record["started"] for key in store if (record := store.record(key))}
            assert {key: now.get(key) for key in kept} == kept, (
                "what was stored stays, and is not trained again"
            )
            kept = now
        said, _ = run.communicate(timeout=120)
        if run.returncode == 0:
            assert not list(store.folder.glob(".damaged/*"))
            return store, kills
        assert (
            "Traceback" not in said
            or "LotteryError: lost the Dask scheduler" in said
            or run.returncode < 0
        ), said
    raise AssertionError(f"not done after {KILLS + 2} starts: {said}")


def test_kills_of_run_worker_and_scheduler_lose_nothing(
    undisturbed, tmp_path, monkeypatch, dask_cluster
):
    """LOTTERY_KILLS sets how many, each after some progress."""

    def disturb(run):
        victim = random.choice(["run", "worker", "scheduler"])
        print(
            f"{len(list(Store(tmp_path / 'store')))} of {len(WANTED)} stored: "
            f"kill -9 of the {victim}"
        )
        match victim:
            case "run":
                run.kill()
            case "worker":
                dask_cluster.kill_worker(random.randrange(2))
            case "scheduler":
                dask_cluster.kill_scheduler()

    random.seed(KILLS)
    store, kills = until_done(tmp_path, f"joined({dask_cluster.address!r}, {{'mnist5k'}})", disturb)
    assert kills
    assert_same(store, undisturbed, monkeypatch)


def test_a_scheduler_that_came_back_while_a_record_was_written_is_another(
    tmp_path, monkeypatch, dask_cluster
):
    """Dask joins the new one by itself, but none of its workers has our code, nor our trainings."""
    store, write = Store(tmp_path / "store"), Store.write

    def slow_write(self, *record):
        write(self, *record)
        monkeypatch.setattr(Store, "write", write)
        dask_cluster.kill_scheduler()
        while executor._client.status == "running":
            time.sleep(0.05)
        while executor._client.status != "running":
            time.sleep(0.05)

    monkeypatch.setattr(Store, "write", slow_write)
    with (
        cluster.joined(dask_cluster.address, {"mnist5k"}) as executor,
        pytest.raises(LotteryError, match=f"lost the Dask scheduler {dask_cluster.address}"),
    ):
        runner.train_missing(WANTED, store, executor)
    assert len(list(store)) > 0


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_run_on_local_workers_can_be_stopped(sign, undisturbed, tmp_path, monkeypatch):
    run = start_run(tmp_path, "local_workers(2, {'mnist5k'})")
    store = Store(tmp_path / "store")
    while len(list(store)) < 3 and run.poll() is None:
        time.sleep(0.05)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(run.pid)], capture_output=True, text=True
    ).stdout.split()
    assert children
    run.send_signal(sign)
    run.communicate(timeout=60)
    for _ in range(100):
        left = subprocess.run(
            ["ps", "-o", "pid=,stat=", "-p", ",".join(children)], capture_output=True, text=True
        ).stdout.splitlines()
        if not [line for line in left if "Z" not in line]:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"workers live on: {left}")
    store, _ = until_done(tmp_path, "local_workers(2, {'mnist5k'})")
    assert_same(store, undisturbed, monkeypatch)
