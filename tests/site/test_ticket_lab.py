"""The ticket lab in a real browser, opened from a folder: its mathematics beside PyTorch's and the
engine's, its script by hand, and what a reader sees where it cannot train."""

import shutil

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright
from torch.nn import functional

from lottery_nb.core import masks
from lottery_nb.core.networks import initialise
from lottery_nb.core.seeds import generator
from lottery_nb.runs.store import ROOT
from lottery_nb.site import ticket_lab

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium here: install one (Debian: apt install chromium) to try the lab in it",
)
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
RACERS = {"ticket", "reinit", "random"}
EVERY = 10


@pytest.fixture(scope="module")
def digits():
    return ticket_lab.digits()


@pytest.fixture(scope="module")
def lab(tmp_path_factory, digits):
    """The address of the lab as a page of its own."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("ticket-lab.js", "ticket-lab.css", "ticket-worker.js"):
        shutil.copy(ROOT / "book" / "_static" / name, folder)
    (folder / "ticket-digits.js").write_text(ticket_lab.digits_script(digits))
    curves = ticket_lab.recorded(digits, ticket_lab.RECIPE.but(iterations=30))
    page = f'<meta charset="utf-8"><html lang="en"><body>{ticket_lab.fragment(curves, ".")}'
    (folder / "index.html").write_text(page)
    return f"file://{folder}/index.html"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def opened(browser, address, **how):
    """A page on which every error and every request to elsewhere is told by `page.wrong`."""
    page = browser.new_page(**{"viewport": WIDE} | how)
    page.wrong = []
    page.on("console", lambda said: said.type == "error" and page.wrong.append(said.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            asked.url.startswith(("file:", "blob:", "data:")) or page.wrong.append(asked.url)
        ),
    )
    page.goto(address)
    return page


def do(page, what, state="done"):
    page.click(f"#ticket-lab [data-do={what}]")
    page.wait_for_selector(f"#ticket-lab[data-state={state}]", timeout=120_000)


def worker_ends(page):
    """Whether the page's worker is gone soon."""
    for _ in range(50):
        if not page.workers:
            return True
        page.wait_for_timeout(100)
    return False


def plain(initial, mask, batches, train, unseen):
    """The same training as a plain PyTorch loop: its final weights, and accuracy by iteration."""
    weights = {name: value.clone().requires_grad_() for name, value in initial.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=ticket_lab.RECIPE.learning_rate)

    def logits(images):
        alive = {n: w * mask[n] if n in mask else w for n, w in weights.items()}
        hidden = functional.linear(images, alive["fc1.weight"], alive["fc1.bias"]).relu()
        return functional.linear(hidden, alive["output.weight"], alive["output.bias"])

    def look():
        right = logits(unseen.images.flatten(1) / 255).argmax(1) == unseen.labels
        return float(right.float().mean())

    curve = {0: look()}
    for i, batch in enumerate(batches, 1):
        images, labels = train.images[batch].flatten(1) / 255, train.labels[batch]
        optimiser.zero_grad()
        functional.cross_entropy(logits(images), labels).backward()
        optimiser.step()
        if i % EVERY == 0:
            curve[i] = look()
    alive = {n: (w * mask[n] if n in mask else w).detach() for n, w in weights.items()}
    return alive, curve


@pytest.fixture(scope="module")
def inputs(digits):
    """Initial weights, a mask of a third of the weights, and 50 batches."""
    initial = initialise(ticket_lab.RECIPE, generator("lab", "test"))
    full = masks.ones({name: initial[name] for name in ("fc1.weight", "output.weight")})
    rates = {"fc1.weight": 0.7, "output.weight": 0.35}
    mask = masks.prune_layerwise(masks.magnitude({n: initial[n] for n in full}), full, rates)
    draw = torch.Generator().manual_seed(5)
    batches = [torch.randperm(len(digits.train.labels), generator=draw)[:60] for _ in range(50)]
    return initial, full, mask, batches


@pytest.mark.parametrize("pruned", [False, True])
def test_it_trains_as_pytorch_does(browser, lab, digits, inputs, pruned):
    initial, full, mask, batches = inputs
    mask = mask if pruned else full
    initial = {n: w * mask[n] if n in mask else w for n, w in initial.items()}
    page = opened(browser, lab)
    trained = page.evaluate(
        """async ({ weights, mask, batches, every }) => {
          const typed = (type, of) =>
            Object.fromEntries(Object.entries(of).map(([name, all]) => [name, type.from(all)]));
          const one = { weights: typed(Float32Array, weights), mask: typed(Uint8Array, mask) };
          const curve = [];
          const { one: { weights: last } } = await ticketLab.work(
            { networks: { one }, batches, every },
            ({ iteration, looks }) => curve.push([iteration, looks.one.accuracy]),
          );
          const lists = Object.entries(last).map(([name, all]) => [name, [...all]]);
          return { curve, weights: Object.fromEntries(lists) };
        }""",
        {
            "weights": {name: w.flatten().tolist() for name, w in initial.items()},
            "mask": {name: m.flatten().int().tolist() for name, m in mask.items()},
            "batches": [batch.tolist() for batch in batches],
            "every": EVERY,
        },
    )
    expected, curve = plain(initial, mask, batches, digits.train, digits.validation)
    for name, weights in expected.items():
        ours = np.array(trained["weights"][name]).reshape(weights.shape)
        np.testing.assert_allclose(ours, weights.numpy(), atol=1e-3)
        if name in mask:
            assert not ours[~mask[name].numpy()].any(), "pruned weights are exactly zero"
    assert dict(trained["curve"]) == pytest.approx(curve, abs=1 / 500)
    assert not page.wrong


def test_it_prunes_as_the_engine_does(browser, lab, inputs):
    initial, full, mask, _ = inputs
    page = opened(browser, lab)
    for rate in (0.1, 0.865, 0.99):
        rates = {"fc1.weight": rate, "output.weight": rate / 2}
        scores = masks.magnitude({name: initial[name] for name in full})
        expected = masks.prune_layerwise(scores, mask, rates)
        ours = page.evaluate(
            """({ weights, mask, rate }) => {
              const typed = (type, of) =>
                Object.fromEntries(Object.entries(of).map(([name, all]) => [name, type.from(all)]));
              const of = [typed(Float32Array, weights), typed(Uint8Array, mask)];
              const lists = Object.entries(ticketMaths().prune(...of, rate));
              return Object.fromEntries(lists.map(([name, all]) => [name, [...all]]));
            }""",
            {
                "weights": {name: initial[name].flatten().tolist() for name in full},
                "mask": {name: m.flatten().int().tolist() for name, m in mask.items()},
                "rate": rate,
            },
        )
        for name, layer in expected.items():
            assert ours[name] == layer.flatten().int().tolist()


def test_the_digits_are_those_that_were_packed(browser, lab, digits):
    page = opened(browser, lab)
    assert page.evaluate("ticketDigits.labels") == "".join(
        str(label) for part in (digits.train, digits.validation) for label in part.labels.tolist()
    )
    assert len(digits.train.labels) == ticket_lab.TRAINING
    assert np.bincount(digits.validation.labels).tolist() == [50] * 10


@pytest.mark.parametrize(
    ("screen", "scheme"), [(WIDE, "light"), (PHONE, "light"), (WIDE, "dark")]
)  # fmt: skip
def test_the_whole_script(browser, lab, screen, scheme):
    page = opened(browser, lab, viewport=screen, color_scheme=scheme, reduced_motion="reduce")
    root = page.locator("#ticket-lab")
    page.wait_for_selector("#ticket-lab[data-state=ready]")
    assert page.locator(".chart .curves .line").count() == 4, "a recorded race stands there"
    do(page, "train")
    before = root.locator(".keep p").inner_text()
    slider = root.locator("[name=keep]")
    slider.fill("100")
    assert root.locator(".keep output").inner_text() == "10 %"
    assert root.locator(".keep p").inner_text() != before
    do(page, "race")
    do(page, "zero")
    do(page, "again")
    assert "of 2" in root.locator(".said").inner_text()
    do(page, "prune")
    races = page.evaluate("ticketLab.races")
    assert [(race["seed"], race["keep"]) for race in races] == [(1, 10), (2, 10), (2, 5)]
    for race in races:
        assert race["curves"].keys() == RACERS
        ticket, reinit = race["curves"]["ticket"], race["curves"]["reinit"]
        assert [point["iteration"] for point in ticket] == list(range(0, 151, 5))
        assert ticket[0]["accuracy"] > 0.5 > reinit[0]["accuracy"], "the mask has learnt"
    assert page.evaluate("document.documentElement.scrollWidth") <= screen["width"]
    assert page.evaluate("location.hash") == "#seed=2&keep=10,5&step=race"
    assert not page.wrong


def test_a_link_leads_to_the_very_same_race(browser, lab):
    found = []
    for _ in range(2):
        page = opened(browser, f"{lab}#seed=7&keep=20&step=race", reduced_motion="reduce")
        page.wait_for_selector("#ticket-lab[data-state=done]", timeout=120_000)
        page.wait_for_function("ticketLab.races.length === 1")
        found.append(page.evaluate("ticketLab.races"))
    assert found[0] == found[1]
    assert (found[0][0]["seed"], found[0][0]["keep"]) == (7, 20)


def test_a_page_that_is_left_in_the_middle_stops(browser, lab):
    page = opened(browser, lab)
    page.click("#ticket-lab [data-do=train]")
    page.wait_for_selector("#ticket-lab[data-state=training]")
    page.wait_for_function("document.querySelectorAll('.curves .line').length === 1")
    assert len(page.workers) == 1
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    page.wait_for_selector("#ticket-lab[data-state=ready]")
    assert worker_ends(page)
    do(page, "train")
    page.click("#ticket-lab [data-do=race]")
    page.click("#ticket-lab [data-do=stop]")
    page.wait_for_selector("#ticket-lab[data-state=done]")
    assert worker_ends(page)
    assert page.evaluate("ticketLab.races") == []
    assert not page.wrong


def test_where_nothing_can_be_trained_the_recorded_race_stays_and_the_page_says_why(browser, lab):
    page = opened(browser, lab, java_script_enabled=False)
    assert page.locator(".chart").is_visible()
    assert "Scripts are switched off" in page.inner_text("body")
    page = browser.new_page()
    page.add_init_script("delete window.Worker")
    page.goto(lab)
    assert page.locator(".chart").is_visible()
    assert "no web workers" in page.inner_text("#ticket-lab .why")
