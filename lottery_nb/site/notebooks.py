"""The notebooks: found by their names, asked for their plans, executed by papermill.

A figure's notebook is `notebooks/figNN_<topic>.ipynb`, a study's
`notebooks/study_<question>.ipynb`, that of a chapter on what came after the paper
`notebooks/chapterN_<topic>.ipynb`.
"""

import ast
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from ..analysis import results
from ..core.errors import LotteryError
from ..core.recipes import lenet
from ..core.scales import SCALES
from ..runs.plans import Plan, Request, joined, requests_of
from ..runs.store import ROOT, replacing

FOLDER = ROOT / "notebooks"
KERNEL = "python3"  # of this interpreter, whatever a notebook was saved with
PLACES = ("LOTTERY_STORE", "LOTTERY_DATA", "LOTTERY_RESULTS")  # variables that name folders
TAGS = ("parameters", "imports", "plan", "run", "picture")  # of the cells that every notebook has

# Every round of Lenet with its learning curves: what `rounds_of_lenet` slides over.
ROUNDS: Plan = {
    "winning ticket": lenet.iterative().with_curves().distribution("map of connections", "fc1"),
    "random reinit": lenet.iterative().reinitialised().with_curves(),
}


@dataclass(frozen=True)
class Notebook:
    """A notebook that trains a plan and draws it: a figure's, a study's or a chapter's."""

    path: Path

    @property
    def is_figure(self) -> bool:
        return self.path.name.startswith("fig")

    @property
    def is_added(self) -> bool:
        """Whether it is a figure that the paper does not have."""
        return self.is_figure and self.number > 45

    @property
    def is_study(self) -> bool:
        """Whether it ends in a table and a finding, where others have a picture and claims."""
        return self.path.name.startswith("study_")

    @property
    def name(self) -> str:
        """Such as "fig04", "study_pixels" or "chapter1"."""
        return self.path.stem if self.is_study else self.path.stem.partition("_")[0]

    @property
    def number(self) -> int:
        """The number of a figure or a chapter."""
        return int(self.name.lstrip("abcdefghijklmnopqrstuvwxyz"))

    @cached_property
    def cells(self) -> list[dict]:
        """Its cells, each with "source" as one text and "metadata". Read without nbformat, whose
        import takes a second."""
        try:
            cells = json.loads(self.path.read_text())["cells"]
            return [{**cell, "source": "".join(cell["source"])} for cell in cells]
        except (ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split())[:100]
            raise LotteryError(f"{self.path} is no notebook ({why})") from error

    def source(self, tag: str) -> str:
        """The code of its cells with a tag; raises LotteryError where there are none."""
        found = [c["source"] for c in self.cells if tag in c["metadata"].get("tags", ())]
        if not found:
            raise LotteryError(
                f"{self.path} has no cell tagged {tag}: every notebook here has cells tagged "
                f"{', '.join(TAGS)}; give the cell that tag in JupyterLab's property inspector"
            )
        return "\n".join(found)

    def values(self, *tags: str) -> dict:
        """What its cells with these tags define, run in this process without a kernel."""
        code = "\n".join(self.source(tag) for tag in tags)
        values: dict = {}
        try:
            exec(compile(_less_unused(ast.parse(code)), str(self.path), "exec"), values)
        except LotteryError as error:
            raise LotteryError(f"{self.path.name}: {error}") from error
        except Exception as error:  # whatever a cell may raise
            said = f"{type(error).__name__}: {error}"
            raise LotteryError(
                f"{self.path}: its cells tagged {', '.join(tags)} fail: {said}"
            ) from error
        return values

    @cached_property
    def title(self) -> str:
        """Such as "Figure 4: one-shot and iterative pruning"."""
        lines = self.cells[0]["source"].splitlines() if self.cells else ()
        title = next((line for line in lines if line.startswith("# ")), None)
        if title is None:
            raise LotteryError(
                f"{self.path} has no title: its first cell has a line such as "
                "# Figure 4: one-shot and iterative pruning"
            )
        return title[2:]

    @cached_property
    def finding(self) -> str:
        """What a figure shows, in a sentence: the bold line below its title; "" without one."""
        _, _, below = self.cells[0]["source"].partition("\n\n")
        first = below.partition("\n\n")[0]
        return first.strip("*") if first.startswith("**") and first.endswith("**") else ""

    @cached_property
    def alt(self) -> str:
        """The picture in words."""
        described = (c["metadata"]["mystnb"] for c in self.cells if "mystnb" in c["metadata"])
        return next((each["image"]["alt"] for each in described), "")

    @cached_property
    def parameters(self) -> dict:
        """Its papermill parameters and their defaults."""
        values = self.values("parameters")
        return {name: value for name, value in values.items() if not name.startswith("__")}

    @cached_property
    def plan(self) -> Plan:
        """The plan as its own cells write it, without a kernel; {} for one that trains nothing."""
        return self.values("imports", "plan").get("plan", {})

    @property
    def slider(self) -> Plan:
        """What its slider shows besides its plan; {} without one, or of the plan alone."""
        return ROUNDS if any("rounds_of_lenet(" in c["source"] for c in self.cells) else {}

    @property
    def all_lines(self) -> Plan:
        """Its plan with what its slider shows besides."""
        return self.plan | {f"slider: {label}": line for label, line in self.slider.items()}

    @property
    def committed_scale(self) -> str | None:
        """The scale that its lines are shown at, of several the least; None where nothing is
        committed. One that trains nothing is as good as the paper's."""
        if not self.plan:
            return "paper"
        return min(self.scales.values(), key=list(SCALES).index) if self.scales else None

    @property
    def scales(self) -> dict[str, str]:
        """The scale that each line is shown at, of those that are committed at any."""
        held = results.committed()
        found = {label: held.best_scale(line) for label, line in self.plan.items()}
        return {label: scale for label, scale in found.items() if scale}

    def requests(self, scale: str, trials: int | None = None) -> dict[str, Request]:
        """What it trains at a scale, by key; of its slider one trial."""
        return joined(
            [requests_of([self.plan], scale, trials), requests_of([self.slider], scale, 1)]
        )

    def check_parameters(self, parameters: dict) -> None:
        """Papermill only warns of a parameter that a notebook does not have; we stop."""
        unknown = sorted(set(parameters) - set(self.parameters)) if parameters else []
        if unknown:
            raise LotteryError(
                f"{self.path.name} has no parameter {', '.join(unknown)}: its parameters are "
                f"{', '.join(self.parameters)}"
            )


def _less_unused(code: ast.Module) -> ast.Module:
    """Code without the imports that it does not use: matplotlib takes half a second, and a plan
    draws nothing."""
    used = {node.id for node in ast.walk(code) if isinstance(node, ast.Name)}
    for line in code.body:
        if isinstance(line, ast.Import | ast.ImportFrom):
            line.names = [n for n in line.names if (n.asname or n.name.partition(".")[0]) in used]
    code.body = [line for line in code.body if getattr(line, "names", True)]
    return code


def figures() -> list[Notebook]:
    """The notebooks of figures, by number."""
    return _found("fig[0-9][0-9]_*.ipynb")


def studies() -> list[Notebook]:
    """The notebooks of studies, by name."""
    return _found("study_*.ipynb")


def chapters() -> list[Notebook]:
    """The notebooks of chapters on what came after the paper, by number."""
    return _found("chapter[0-9]_*.ipynb")


def every() -> list[Notebook]:
    """The notebooks of figures, studies and chapters."""
    return [*figures(), *studies(), *chapters()]


def _found(pattern: str) -> list[Notebook]:
    """Raises LotteryError for two of one name."""
    found: dict[str, Notebook] = {}
    for path in sorted(FOLDER.glob(pattern)):
        notebook = _notebook(path, path.stat().st_mtime_ns)
        if other := found.get(notebook.name):
            raise LotteryError(
                f"{other.path.name} and {path.name} are both {notebook.name}: give one of them "
                "another number, or delete it"
            )
        found[notebook.name] = notebook
    return list(found.values())


@cache
def _notebook(path: Path, changed: int) -> Notebook:
    """One object a notebook, so that its cells run once, while the file stays as it is."""
    return Notebook(path)


def named(names: list[str]) -> list[Notebook]:
    """The notebooks of names ("fig04", "4", "study_pixels", or "all" figures); raises LotteryError
    for a name without one."""
    found = {notebook.name: notebook for notebook in every()}
    if "all" in names:
        names = [*(figure.name for figure in figures()), *(n for n in names if n != "all")]
    asked = [f"fig{int(name):02d}" if name.isdigit() else name for name in names]
    if unknown := [name for name in asked if name not in found]:
        raise LotteryError(
            f"there is no notebook of {', '.join(unknown)}: choose {', '.join(found)} or all"
        )
    return [found[name] for name in dict.fromkeys(asked)]


def all_plans() -> list[Plan]:
    """The plans of all notebooks, what their sliders show included."""
    return [notebook.all_lines for notebook in every()]


def execute(notebook: Notebook, parameters: dict, to: Path, first: str = "", last: str = "") -> str:
    """Run a notebook; the result replaces `to` only if every cell ran. first, last: code to run in
    its kernel before and after its cells; what the latter prints is returned."""
    import nbformat
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    notebook.check_parameters(parameters)
    named = {name: os.environ.get(name) for name in PLACES}
    whole = {name: str(Path(place).absolute()) for name, place in named.items() if place}
    kernel = ["--log-level=CRITICAL"]  # else it warns of its end
    kernel += [f"--IPKernelApp.exec_lines={first}"] if first else []
    config = {
        "KernelManager": {"transport_encryption": "auto"},  # else it warns of plain loopback
        "PapermillNotebookClient": {"extra_arguments": kernel},
    }
    cells = nbformat.read(notebook.path, as_version=4)
    cells.cells.append(nbformat.v4.new_code_cell(last))
    with TemporaryDirectory() as folder, environment(**whole):  # the kernel works in that folder
        draft = Path(folder) / to.name
        try:
            papermill.execute_notebook(
                cells,
                str(draft),
                parameters,
                kernel_name=KERNEL,
                cwd=folder,
                progress_bar=False,
                stderr_file=sys.stderr,
                config=Config(config),
            )
        except papermill.PapermillExecutionError as error:
            raise LotteryError(
                f"{notebook.path.name} failed in cell {error.exec_count}: {error.ename}: "
                f"{error.evalue}"
            ) from error
        except DeadKernelError as error:
            raise LotteryError(
                f"{notebook.path.name}: its kernel died, as one does that runs out of memory"
            ) from error
        except NoSuchKernel as error:
            raise LotteryError(
                f"{notebook.path.name}: Jupyter has no kernel {KERNEL}: make installs one, as "
                "python -m ipykernel install --sys-prefix does"
            ) from error
        executed = nbformat.read(draft, as_version=4)
    said = "".join(output.text for output in executed.cells.pop().outputs)
    _tidy(executed)
    with replacing(to) as draft:
        nbformat.write(executed, draft)
    return said


def _tidy(notebook) -> None:
    """Drop what differs from run to run, and what a page should not show."""
    for key in ("papermill", "widgets"):  # live widgets' state would have a page ask another host
        notebook.metadata.pop(key, None)
    for number, cell in enumerate(notebook.cells):
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.metadata.tags.append("remove-cell")
            cell.id = f"injected-{number}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables for the notebooks' kernels, put back afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
