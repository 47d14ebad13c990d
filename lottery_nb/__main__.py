"""python -m lottery_nb run | book | status | store | bench"""

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from . import book, pages, results, running, ticket_files
from .errors import FailedTrainings, LotteryError
from .graph import Wanted
from .specs import SCALES, STUDIES, shrinking
from .store import Store

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
        print("\nstopped; finished trainings are stored, the same command goes on from there", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lottery_nb", description="The Lottery Ticket Hypothesis, figure by figure.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="train what figures need and execute their notebooks")
    run.add_argument("figures", nargs="+", metavar="FIG", help=f"fig04, 4, or all; {', '.join(STUDIES)}: trainings beside the figures")
    run.add_argument("--scale", default="smoke", help=f"{', '.join(SCALES)} (default: smoke)")
    run.add_argument("--trials", default=None, help="trials a point (default: the scale's own)")
    run.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="any other parameter of the notebooks")
    who = run.add_mutually_exclusive_group()
    who.add_argument("--jobs", default=None, metavar="N", help="train in N processes of one thread each (default: one a core)")
    who.add_argument("--scheduler", default=None, metavar="ADDRESS", help="train on the workers of a Dask scheduler, such as tcp://10.0.0.1:8786")
    run.add_argument("--other-versions", default="refuse", metavar="HOW", help="workers with another torch than here: refuse (default), record")
    run.set_defaults(do=_run)

    build = commands.add_parser("book", help="build the book from the committed results")
    build.set_defaults(do=_book)

    status = commands.add_parser("status", help="what the book holds, a row a figure")
    status.add_argument("--json", action="store_true", help="as a JSON list")
    status.set_defaults(do=_status)

    bench = commands.add_parser("bench", help="how fast training is here, against a plain PyTorch loop")
    bench.add_argument("--json", action="store_true", help="end in one JSON object")
    instead = bench.add_mutually_exclusive_group()
    instead.add_argument("--growth", action="store_true", help="instead: how planning and looking up grow with the store")
    instead.add_argument("--cluster", action="store_true", help="instead: the hours of the paper's scale on 1 to 512 workers like this machine's cores")
    bench.set_defaults(do=_bench)

    store = commands.add_parser("store", help="the finished trainings on this machine").add_subparsers(required=True, metavar="ACTION")
    listed = store.add_parser("list", help="name them")
    listed.set_defaults(do=_list)
    verify = store.add_parser("verify", help="check digests, and every mask against the training it was pruned from")
    verify.set_defaults(do=_verify)
    merge = store.add_parser("merge", help="copy in those of another store, with all they stand on")
    merge.add_argument("folder", metavar="DIR")
    merge.set_defaults(do=_merge)
    freeze = store.add_parser("freeze", help="write figures' tables into book/results, to commit")
    freeze.add_argument("figures", nargs="+", metavar="FIG")
    freeze.add_argument("--scale", default="laptop")
    freeze.add_argument("--trials", default=None)
    freeze.set_defaults(do=_freeze)
    export = store.add_parser("export", help="write the masks of figures' tickets into book/tickets, to commit")
    export.add_argument("figures", nargs="+", metavar="FIG")
    export.add_argument("--scale", default="laptop")
    export.add_argument("--trials", default=None)
    export.set_defaults(do=_export)
    return parser


def _whole(text: str | None, name: str) -> int | None:
    if text is None or text == "None":
        return None
    if not text.isdigit() or int(text) < 1:
        raise LotteryError(f"{name} is {text!r}: give a whole number of 1 or more")
    return int(text)


def _run(options) -> None:
    """One bar for all figures: their plans are joined, what is missing is trained, then papermill draws each."""
    shrinking(options.scale)
    figures = [name for name in options.figures if name not in STUDIES]
    chosen = book.figures(figures) if figures else []
    parameters = {name: _literal(value) for name, value in options.parameter}
    for name, option in (("scale", "--scale"), ("trials", "--trials")):
        if name in parameters:
            raise LotteryError(f"{name} is given with {option}, not with -p")
    parameters |= {"scale": options.scale, "trials": _whole(options.trials, "trials")}
    for figure in chosen:
        book.check_parameters(figure, parameters)
    store, wanted = Store(), book.wanted_by(options.figures, options.scale, parameters["trials"])
    jobs = _whole(options.jobs, "jobs")
    if missing := {key: wish for key, wish in wanted.items() if not running.stored(store, wish)}:
        with _hands(options, jobs, missing) as hands:
            running.train_missing(wanted, store, hands)
    with book.environment(LOTTERY_RESULTS=""):
        for figure in chosen:
            page = store.folder / "notebooks" / f"{figure.name}-{options.scale}.ipynb"
            book.execute(figure, parameters, page)
            print(page)


def _hands(options, jobs: int | None, missing: dict[str, Wanted]):
    """Who trains: None for this process, or workers."""
    datasets = {wish.node.recipe.data for wish in missing.values()}
    if jobs is None and options.scheduler is None:
        work = sum(wish.node.recipe.iterations for wish in missing.values())
        jobs = min(running.jobs(), len(missing)) if work >= WORTH_WORKERS else 1
    if jobs == 1 and options.scheduler is None:
        return nullcontext()
    from . import cluster  # distributed takes a second to import

    return cluster.joined(options.scheduler, datasets, options.other_versions) if options.scheduler else cluster.local_workers(jobs, datasets)


def _literal(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


def _book(options) -> None:
    page = book.build()
    print(f"\nThe book is at {page}\nOpen that file, or serve it: python -m http.server -d {page.parent} 8000, then http://localhost:8000")


def _status(options) -> None:
    rows = book.status()
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'figure':>6}  {'scale':6}  {'done':>4} of {'wanted':>6}  {'hours left':>10}  verdicts")
    for row in rows:
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in row["verdicts"].items() if count)
        print(f"{row['figure']:>6}  {row['scale'] or '–':6}  {row['done']:>4} of {row['wanted']:>6}  {row['hours_left']:>10.1f}  {verdicts}")
    asked, distinct = book.sharing("laptop")
    print(f"At laptop scale the figures ask for {asked:,} trainings, with all that they stand on; {distinct:,} are distinct, and trained once.")


def _bench(options) -> None:
    from . import bench  # torch, and torch's own data loaders

    if options.growth and options.json:
        raise LotteryError("--growth tells its figures as lines only: leave --json out")
    if options.growth:
        print(bench.growth(lambda line: print(line, file=sys.stderr)))
        return
    if options.cluster:
        simulated = bench.cluster(lambda line: print(line, file=sys.stderr))
        print(json.dumps(simulated) if options.json else pages.workers_table(simulated))
        return
    measured = bench.measure(lambda line: print(line, file=sys.stderr))
    print(json.dumps(measured) if options.json else bench.report(measured))


def _list(options) -> None:
    for key in (store := Store()):
        record = store.record(key)
        if record:
            print(f"{key}  {record['started'][:16]}  {record['seconds']:.0f} s  {record['made_of']['device']}  {record['made_of']['commit']}")


def _verify(options) -> int:
    from . import lineage  # torch

    store = Store()
    with tqdm(total=len(list(store)), desc="trainings", file=sys.stderr, mininterval=0.5) as bar:
        whole, wrong = lineage.verify(store, bar.update)
    for key, said in wrong.items():
        print(f"{key} {said}", file=sys.stderr)
    print(f"{whole} trainings are what they say, {len(wrong)} are not")
    return 1 if wrong else 0


def _merge(options) -> int:
    from . import lineage  # torch

    if not Path(options.folder).is_dir():
        raise LotteryError(f"there is no folder {options.folder}: name a store to merge")
    return lineage.report(Path(options.folder), lineage.merge(Store(), Store(options.folder)))


def _freeze(options) -> None:
    shrinking(options.scale)
    for line in results.freeze(book.plans_named(options.figures), options.scale, _whole(options.trials, "trials"), book.all_plans()):
        print(line)


def _export(options) -> None:
    shrinking(options.scale)
    for line in ticket_files.export(book.plans_named(options.figures), options.scale, _whole(options.trials, "trials")):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
