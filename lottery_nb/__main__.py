"""python -m lottery_nb run | book | status | store | bench"""

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from .analysis import results, tables
from .core.errors import FailedTrainings, LotteryError
from .core.scales import SCALES, check_scale
from .runs import executors, runner, ticket_files
from .runs.plans import Plan, Request, joined
from .runs.store import Store
from .site import notebooks, progress

MOST = 1000  # trials or processes that can be asked for
WORTH_WORKERS = 50_000  # iterations, for which the seconds that workers take to start are nothing


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 a training or a page failed, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return options.do(options) or 0
    except LotteryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, FailedTrainings) else 2
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stdout = None
        return 0
    except KeyboardInterrupt:
        said = "stopped; finished trainings are stored, the same command goes on from there"
        print(f"\n{said}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lottery_nb", description="The Lottery Ticket Hypothesis, figure by figure."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(where, name: str, do, help: str) -> argparse.ArgumentParser:
        added = where.add_parser(name, help=help)
        added.set_defaults(do=do)
        return added

    others = ", ".join(n.name for n in [*notebooks.studies(), *notebooks.chapters()])

    def names_notebooks(parser: argparse.ArgumentParser, scale: str) -> None:
        parser.add_argument(
            "notebooks", nargs="+", metavar="NAME", help=f"fig04, 4, all figures as all; {others}"
        )
        parser.add_argument(
            "--scale", default=scale, help=f"{', '.join(SCALES)} (default: {scale})"
        )
        parser.add_argument(
            "--trials", default=None, help="trials a point (default: the scale's own)"
        )

    run = command(commands, "run", _run, "train what notebooks need and execute them")
    names_notebooks(run, "smoke")
    who = run.add_mutually_exclusive_group()
    who.add_argument(
        "--jobs", metavar="N",
        help="train in N processes of one thread each (default: one a core; short work in this)",
    )  # fmt: skip
    who.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="train on the workers of a Dask scheduler, such as tcp://10.0.0.1:8786",
    )  # fmt: skip
    run.add_argument(
        "--other-versions", default="refuse", metavar="HOW",
        help="workers with another torch than here: refuse (default), record",
    )  # fmt: skip

    command(commands, "book", _book, "build the book from the committed results")

    status = command(commands, "status", _status, "what the book holds, a row a figure")
    status.add_argument("--json", action="store_true", help="as a JSON list")

    bench = command(
        commands, "bench", _bench, "how fast training is here, against a plain PyTorch loop"
    )
    bench.add_argument("--json", action="store_true", help="end in one JSON object")
    instead = bench.add_mutually_exclusive_group()
    instead.add_argument(
        "--growth", action="store_true",
        help="instead: how planning and looking up grow with the store",
    )  # fmt: skip
    instead.add_argument(
        "--cluster", action="store_true",
        help="instead: the hours of the paper's scale on 1 to 512 workers like a core of this",
    )  # fmt: skip

    store = commands.add_parser("store", help="the finished trainings on this machine")
    actions = store.add_subparsers(required=True, metavar="ACTION")
    command(actions, "list", _list, "name them")
    command(
        actions, "verify", _verify,
        "check digests, and every mask against the training it was pruned from",
    )  # fmt: skip
    merge = command(
        actions, "merge", _merge, "copy in those of another store, with all they stand on"
    )
    merge.add_argument("folder", metavar="DIR")
    freeze = command(
        actions, "freeze", _freeze, "write notebooks' tables into book/results, to commit"
    )
    names_notebooks(freeze, "laptop")
    export = command(
        actions, "export", _export, "write the masks of their tickets into book/tickets, to commit"
    )
    names_notebooks(export, "laptop")
    return parser


def _whole(text: str | None, name: str) -> int | None:
    if text is None or text == "None":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise LotteryError(f"{name} is {text!r}: give a whole number of 1 or more")
    if int(text) > MOST:
        raise LotteryError(f"{name} is {text}: {MOST:,} are the most")
    return int(text)


def _run(options) -> None:
    """One bar for all notebooks: their plans are joined, what is missing is trained, then papermill
    draws each."""
    check_scale(options.scale)
    chosen = notebooks.named(options.notebooks)
    trials, jobs = _whole(options.trials, "trials"), _whole(options.jobs, "jobs")
    parameters = {"scale": options.scale, "trials": trials}
    for notebook in chosen:
        notebook.check_parameters(parameters)
    executors.check_others(options.other_versions)
    store = Store()
    wanted = joined(notebook.requests(options.scale, trials) for notebook in chosen)
    missing = [each for each in wanted.values() if not results.readable(store, each)]
    if missing and tables.trains_missing():
        wanted = results.besides(missing) | wanted
        with _executor(options, jobs, missing) as executor:
            runner.train_missing(wanted, store, executor)
    with notebooks.environment(LOTTERY_RESULTS=""):
        for notebook in chosen:
            page = store.folder / "notebooks" / f"{notebook.name}-{options.scale}.ipynb"
            notebooks.execute(notebook, parameters, page)
            print(page)


def _executor(options, jobs: int | None, missing: list[Request]):
    """Who trains: None for this process, or workers."""
    datasets = {request.node.recipe.data for request in missing}
    if jobs is None and options.scheduler is None:
        work = sum(request.node.recipe.iterations for request in missing)
        jobs = min(executors.jobs(), len(missing)) if work >= WORTH_WORKERS else 1
    if jobs == 1 and options.scheduler is None:
        return nullcontext()
    from .runs import cluster  # distributed takes a second to import

    if options.scheduler:
        return cluster.joined(options.scheduler, datasets, options.other_versions)
    return cluster.local_workers(jobs, datasets)


def _book(options) -> None:
    from .site import build  # matplotlib

    page = build.build()
    serve = f"python -m http.server -d {page.parent} 8000, then http://localhost:8000"
    print(f"\nThe book is at {page}\nOpen that file, or serve it: {serve}")


def _status(options) -> None:
    rows = progress.status()
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'figure':>6}  {'scale':6}  {'done':>4} of {'wanted':>6}  {'hours left':>10}  verdicts")
    for row in rows:
        verdicts = _counted(row["verdicts"])
        if reduced := _counted(row["evidence"]["reduced network"]):
            verdicts += f"{'; ' * bool(verdicts)}on reduced networks: {reduced}"
        done = f"{row['done']:>4} of {row['wanted']:>6}  {row['hours_left']:>10.1f}"
        print(f"{row['figure']:>6}  {row['scale'] or '–':6}  {done}  {verdicts}")
    asked, distinct = progress.sharing("laptop")
    print(
        f"At laptop scale the figures ask for {asked:,} trainings, with all that they stand on; "
        f"{distinct:,} are distinct, and trained once."
    )


def _counted(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items() if n)


def _bench(options) -> None:
    from .bench import growth, speed  # torch, and torch's own data loaders
    from .site import pages

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    if options.growth and options.json:
        raise LotteryError("--growth tells its figures as lines only: leave --json out")
    if options.growth:
        print(growth.growth(say))
    elif options.cluster:
        simulated = growth.cluster(say)
        print(json.dumps(simulated) if options.json else pages.workers_table(simulated))
    else:
        measured = speed.measure(say)
        print(json.dumps(measured) if options.json else speed.report(measured))


def _list(options) -> None:
    store = Store()
    for key in _keys(store):
        if record := store.record(key):
            made, began = record["made_of"], record["started"][:16]
            said = f"{record['seconds']:.0f} s  {made['device']}  {made['commit']}"
            print(f"{key}  {began}  {said}")


def _keys(store: Store) -> list[str]:
    """Those of its trainings, with a word where there are none."""
    if not (keys := list(store)):
        print(f"the store {store.folder} has no trainings", file=sys.stderr)
    return keys


def _verify(options) -> int:
    from tqdm import tqdm

    from .runs import lineage  # torch

    store = Store()
    with tqdm(total=len(_keys(store)), desc="trainings", file=sys.stderr, mininterval=0.5) as bar:
        whole, wrong = lineage.verify(store, bar.update)
    for key, said in wrong.items():
        print(f"{key} {said}", file=sys.stderr)
    print(f"{whole} trainings are what they say, {len(wrong)} are not")
    return 1 if wrong else 0


def _merge(options) -> int:
    from .runs import lineage  # torch

    if not Path(options.folder).is_dir():
        raise LotteryError(f"there is no folder {options.folder}: name a store to merge")
    other = Store(options.folder)
    if not list(other):
        raise LotteryError(f"{options.folder} has no trainings: name a store to merge")
    return lineage.report(Path(options.folder), lineage.merge(Store(), other))


def _freeze(options) -> None:
    plans, trials = _chosen(options), _whole(options.trials, "trials")
    for line in results.freeze(plans, options.scale, trials, notebooks.all_plans()):
        print(line)


def _export(options) -> None:
    plans, trials = _chosen(options), _whole(options.trials, "trials")
    for line in ticket_files.export(plans, options.scale, trials):
        print(line)


def _chosen(options) -> dict[str, Plan]:
    """The plans of the notebooks that are named, their sliders included; none of those that train
    nothing."""
    check_scale(options.scale)
    chosen = notebooks.named(options.notebooks)
    plans = {notebook.name: notebook.all_lines for notebook in chosen if notebook.plan}
    if not plans:
        raise LotteryError(f"{', '.join(each.name for each in chosen)}: nothing is trained for it")
    return plans


if __name__ == "__main__":
    sys.exit(main())
