"""Workers that train: local processes, or those of a Dask scheduler on any cluster.

Workers need torch, numpy and distributed, and nothing of this project: its code and its data sets
are sent to them, a batch of trainings goes out with all that it stands on, and records come back.
What is sent are functions of functions, which travel by value, so that the scheduler itself needs
distributed alone.
"""

import io
import logging
import pickle
import resource
import sys
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import dask
import torch
from distributed import Client, Nanny, Scheduler, Security, SpecCluster, WorkerPlugin

from ..core import data
from ..core.errors import LotteryError
from .batch import CODE
from .executors import Work, check_others

TOPIC = "lottery-progress"
IN_FLIGHT = 2**31  # bytes of what batches stand on, handed over at a time
# Of VGG-19 a batch is hundreds of megabytes.
QUIET = {"distributed.admin.large-graph-warning-threshold": "1 TiB"}
PACKAGE = Path(__file__).parents[1]
ANSWER = 10  # seconds that a scheduler has to answer
OUR_TORCH = torch.__version__.partition("+")[0]
# What a worker runs as it starts: Ctrl-C is for this process, which stops them.
LEAVE_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
WAIT = 0.05  # seconds between looks at what is finished


@contextmanager
def local_workers(jobs: int, datasets: set[str]) -> Iterator["Workers"]:
    """So many processes of one thread each on this machine, reached over loopback only; of several
    GPUs each process sees one. Raises LotteryError where data is missing."""
    for name in sorted(datasets):
        data.file_of(name)  # here and once, before the workers all look for it
    here, gpus = "127.0.0.1", torch.cuda.device_count()
    environments = [
        {"OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": str(i % gpus)} if gpus > 1 else {})
        for i in range(jobs)
    ]
    options = {"nthreads": 1, "host": here, "memory_limit": 1 / jobs, "dashboard": False}
    options |= {"silence_logs": logging.CRITICAL, "preload": [LEAVE_CTRL_C]}
    workers = {
        i: {"cls": Nanny, "options": options | {"env": environment}}
        for i, environment in enumerate(environments)
    }
    scheduler = {"cls": Scheduler, "options": {"host": here, "dashboard_address": f"{here}:0"}}
    with (
        dask.config.set(QUIET),
        SpecCluster(workers, scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        yield Workers(client, datasets)


@contextmanager
def joined(address: str, datasets: set[str], others: str = "refuse") -> Iterator["Workers"]:
    """The workers of a running Dask scheduler, now and as they come.

    address: such as tcp://10.0.0.1:8786, or tls://…, for which certificates are taken from Dask's
    configuration; others: what to do with workers of another torch than ours, "refuse" | "record".
    Raises LotteryError where no scheduler answers.
    """
    check_others(others)
    try:
        client = Client(
            address, security=Security() if address.startswith("tls") else None, timeout=ANSWER
        )
    except (OSError, ValueError, TypeError) as error:
        raise LotteryError(
            f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, "
            "and give the address that it prints"
        ) from error
    with dask.config.set(QUIET), client:
        yield Workers(client, datasets, others, address)


class Workers:
    """An `Executor` of a Dask client."""

    def __init__(
        self, client: Client, datasets: set[str], others: str = "record", address: str = ""
    ):
        self._client, self._others, self._address = client, others, address
        self._scheduler = client.scheduler_info(n_workers=0)["id"]
        self._known: dict[str, dict] = {}  # what each worker is, by its address
        self._futures: dict = {}
        self._moved: deque = deque()  # (future's key, iterations), as workers tell
        self._looked, self._said = 0.0, False
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a lock is an open file
        logging.getLogger("distributed").setLevel(logging.ERROR)
        client.subscribe_topic(TOPIC, lambda event: self._moved.append(event[1]))
        if address:
            files = {
                f"{Path(name).stem}.npz": data.file_of(name).read_bytes()
                for name in sorted(datasets)
            }
            client.register_plugin(_code_and_data(_package(), files))

    def device(self) -> str:
        workers = self._welcome().values()  # batches go to any of them
        return "cuda" if workers and all(worker["cuda"] for worker in workers) else "cpu"

    def count(self) -> int:
        return max(sum(worker["threads"] for worker in self._welcome().values()), 1)

    def room(self) -> int:
        if not self._welcome() or sum(size for _, size, _ in self._futures.values()) > IN_FLIGHT:
            return 0
        return 2 * self.count() - len(self._futures)

    def train(self, work: Work, commit: str) -> None:
        payload = pickle.dumps((work.requests, work.ancestries, commit, work.folder))
        among = list(self._welcome()) if len(self._welcome()) < len(self._known) else None
        key = f"{work.requests[0].node.key}-{uuid4().hex[:8]}"
        future = self._client.submit(
            _task(), CODE, payload, TOPIC, key=key, pure=False, workers=among
        )
        self._futures[future] = work, len(payload), among

    def finished(
        self, progress: Callable[[Work, int], None]
    ) -> list[tuple[Work, list | Exception]]:
        time.sleep(WAIT)
        by_key = {future.key: work for future, (work, _, _) in self._futures.items()}
        while self._moved:
            key, steps = self._moved.popleft()
            if key in by_key:
                progress(by_key[key], steps)
        self._check()
        done = []
        for future in [future for future in self._futures if future.status != "pending"]:
            work, _, _ = self._futures.pop(future)
            done.append((work, self._result(future)))
            future.release()
        return done

    def _result(self, future) -> list | Exception:
        """What came of a batch; it is fetched from the worker only now, and may get lost on the
        way."""
        if future.status == "lost":
            return ConnectionError("Dask lost it")
        try:
            result = future.exception() or future.result()
        except (OSError, TimeoutError, CancelledError) as error:
            result = error
        if isinstance(result, Exception):
            self._workers_here()  # which fails where it is the scheduler that was lost
        return result

    def _workers_here(self) -> dict[str, dict]:
        """What the scheduler says of its workers, by address."""
        said = self._client.scheduler_info(n_workers=-1)
        self._check(said["id"])
        return said["workers"]

    def _check(self, scheduler: str = "") -> None:
        """Stop where the scheduler is gone, or where another has come in its place: Dask joins that
        one by itself, but it knows nothing of what we gave out, nor do its workers of our code."""
        if self._client.status != "running" or scheduler not in ("", self._scheduler):
            raise LotteryError(
                f"lost the Dask scheduler {self._address}: what was finished is stored; start it "
                "again, and run the same command"
            )

    def _welcome(self) -> dict[str, dict]:
        """The workers that may train, by address; looked up once a second."""
        if time.monotonic() - self._looked < 1:
            return {address: worker for address, worker in self._known.items() if worker["welcome"]}
        self._looked = time.monotonic()
        try:
            here = self._workers_here()
            new = [address for address in here if address not in self._known]
            described = self._client.run(_describe(), workers=new, on_error="return") if new else {}
        except OSError:
            self._check()
            return {}
        self._known = {
            address: worker for address, worker in self._known.items() if address in here
        }
        for address, worker in described.items():
            if isinstance(worker, Exception):
                continue  # it left again
            same = worker["torch"] == OUR_TORCH
            worker["welcome"] = same or self._others == "record"
            if not same:
                said = "its records will say so" if worker["welcome"] else "it is given nothing"
                print(
                    f"worker {address} has torch {worker['torch']}, here is {OUR_TORCH}: {said}",
                    file=sys.stderr,
                )
            self._known[address] = worker
        if not self._known and not self._said:
            print("no workers yet: waiting for them", file=sys.stderr)
        self._said = not self._known
        if self._known and not any(worker["welcome"] for worker in self._known.values()):
            raise LotteryError(
                f"every worker has another torch than {OUR_TORCH}: start some that have it, or add "
                "--other-versions record"
            )
        for future, (_, _, among) in list(self._futures.items()):
            if among and not set(among) & set(self._known):
                future.cancel()  # all that it was meant for have left
        return {address: worker for address, worker in self._known.items() if worker["welcome"]}


def _package() -> bytes:
    """The code of this package as a zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(PACKAGE.rglob("*.py")):
            archive.write(path, path.relative_to(PACKAGE.parent))
    return packed.getvalue()


def _code_and_data(code: bytes, files: dict[str, bytes]) -> WorkerPlugin:
    """What every worker, now or later, unpacks before it works: our code, in place of any other,
    and data sets."""

    class CodeAndData(WorkerPlugin):
        name = "lottery"

        def setup(self, worker):
            import sys
            from pathlib import Path

            folder = Path(worker.local_directory)
            for file, content in files.items():
                (folder / file).write_bytes(content)
            archive = folder / "lottery_nb.zip"
            archive.write_bytes(code)
            sys.path[:] = [str(archive), *(path for path in sys.path if path != str(archive))]
            sys.path_importer_cache.pop(str(archive), None)
            for module in [name for name in sys.modules if name.split(".")[0] == "lottery_nb"]:
                del sys.modules[module]
            from lottery_nb.core import data

            data.sent_along = folder

    return CodeAndData()


def _describe() -> Callable:
    def describe(dask_worker):
        import torch

        from lottery_nb.core import training

        return {
            "torch": torch.__version__.partition("+")[0],
            "cuda": training.pick_device("auto").type == "cuda",
            "threads": dask_worker.state.nthreads,
        }

    return describe


def _task() -> Callable:
    def train(code, payload, topic):
        import pickle

        from distributed import get_worker

        from lottery_nb.runs.batch import CODE, train_anywhere

        if code != CODE:
            raise RuntimeError(
                f"{get_worker().address} has other code of lottery_nb ({CODE}) than the run that "
                f"asks ({code})"
            )
        worker = get_worker()
        name = worker.get_current_task()
        return train_anywhere(
            *pickle.loads(payload), lambda steps: worker.log_event(topic, (name, steps))
        )

    return train
