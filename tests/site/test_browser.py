"""The built book in a real browser, as a reader meets it: by mouse, touch and keyboard, wide and on
a phone, light and dark."""

import shutil
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from lottery_nb.site.notebooks import chapters, figures

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium here: install one (Debian: apt install chromium) to try the book in it",
)
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
WCAG = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}  # others in the dark
# Docutils gives it the role "list" and its entries another than "listitem".
LEFT_ASIDE = {"exclude": [".citation-list"]}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(built):
    """Address of the built book on a server of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=built)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


class Reader:
    """A page and what went wrong on it."""

    def __init__(self, browser, site, **how):
        self.wrong: list[str] = []
        self.site, self.page = site, browser.new_page(viewport=WIDE, **how)
        self.page.on(
            "console", lambda message: message.type == "error" and self.wrong.append(message.text)
        )
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "response",
            lambda response: (
                response.status >= 400 and self.wrong.append(f"{response.status} {response.url}")
            ),
        )
        self.page.on(
            "request",
            lambda request: (
                self.own(request.url) or self.wrong.append(f"asks another host: {request.url}")
            ),
        )

    def own(self, url):
        return url.startswith((self.site, "file:", "data:", "blob:"))

    def open(self, path):
        self.wrong.clear()
        self.page.goto(path if ":" in path else f"{self.site}/{path}")
        return self.page


@pytest.fixture
def reader(browser, site):
    reader = Reader(browser, site)
    yield reader
    reader.page.close()


def pages(built):
    return sorted(path.relative_to(built).as_posix() for path in built.glob("book/**/*.html"))


@dataclass
class Visited:
    """What was seen on a page, opened once: what went wrong, its own links, what fails an
    accessibility check, and, by window, how wide it is and where its first two panels are (where
    there are none, its first two tables)."""

    wrong: list[str]
    links: list[str]
    violations: dict[str, list[str]]
    width: dict[str, int]
    panels: dict[str, list[dict]]


@pytest.fixture(scope="module")
def visited(browser, site, built):
    """Every page."""
    reader, seen = Reader(browser, site), {}
    for name in pages(built):
        page = reader.open(name)
        links = page.evaluate("[...document.querySelectorAll('main a[href]')].map(a => a.href)")
        width, panels = {}, {}
        for window, size in (("wide", WIDE), ("phone", PHONE)):
            page.set_viewport_size(size)
            width[window] = page.evaluate("document.documentElement.scrollWidth")
            found = page.locator(".panels img").all() or page.locator(".cell_output table").all()
            panels[window] = [each.bounding_box() for each in found[:2]]
        page.set_viewport_size(WIDE)
        own, wrong = [link for link in links if reader.own(link)], [*reader.wrong]
        violations = {} if is_alike(name) else checked(page, "light", WCAG)  # it loads files too
        seen[name] = Visited(wrong, own, violations, width, panels)
    reader.page.close()
    assert len(seen) > 45
    return seen


def is_alike(name):
    """Whether a page is so much like others that its accessibility is not checked again."""
    return "/fig" in name and name[-7:-5] not in ("02", "03", "05", "14", "15", "40")


def checked(page, scheme, rules):
    """What fails an accessibility check, by rule."""
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    found = Axe().run(page, context=LEFT_ASIDE, options={"runOnly": rules}).response["violations"]
    return {each["id"]: [node["html"] for node in each["nodes"]][:3] for each in found}


def test_no_page_errs_or_asks_another_host(visited):
    assert not {name: page.wrong for name, page in visited.items() if page.wrong}


def test_no_page_is_wider_than_its_window(visited):
    for window, size in (("wide", WIDE), ("phone", PHONE)):
        widths = {name: page.width[window] for name, page in visited.items()}
        assert not {name: width for name, width in widths.items() if width > size["width"]}


def test_every_figure_has_its_picture_on_the_first_screen(visited):
    tops = {"wide": {}, "phone": {}}
    for figure in [*figures(), *chapters()]:
        panels = visited[f"book/figures/{figure.name}.html"].panels
        for window, size in (("wide", WIDE), ("phone", PHONE)):
            tops[window][figure.name] = panels[window][0]["y"]
            if figure.plan:
                first = panels[window][0]
                assert first["x"] + first["width"] <= size["width"], figure.name
        if figure.plan:
            first, second = panels["phone"]
            assert second["y"] > first["y"], f"panels of {figure.name} stand below one another"
    for window, most in (("wide", 620), ("phone", 760)):
        assert not {name: top for name, top in tops[window].items() if top > most}


def test_every_link_leads_somewhere(visited, built):
    missing, checked = [], 0
    for name, page in visited.items():
        for address in map(urlsplit, page.links):
            checked += 1
            target = built / address.path.lstrip("/")
            if (
                not target.is_file()
                or address.fragment
                and "=" not in address.fragment  # what the scoreboard filters by
                and f'id="{address.fragment}"' not in target.read_text()
            ):
                missing.append((name, address.geturl()))
    assert checked > 500
    assert not missing


def test_pages_pass_an_accessibility_check(visited):
    assert not {name: page.violations for name, page in visited.items() if page.violations}


def test_colours_are_apart_in_the_dark(browser, site, built):
    reader, found = Reader(browser, site, color_scheme="dark"), {}
    for name in pages(built):
        if not is_alike(name):
            found[name] = checked(reader.open(name), "dark", COLOURS)
    reader.page.close()
    assert len(found) > 20
    assert not {name: wrong for name, wrong in found.items() if wrong}


def test_the_gallery_leads_to_all_figures(reader):
    page = reader.open("book/gallery.html")
    cards = page.locator(".sd-card", has=page.locator("a.sd-stretched-link"))
    assert cards.count() == len(figures())
    cards.filter(has_text="Figure 4:").click()
    page.wait_for_url("**/fig04.html*")
    assert page.locator("h1").first.inner_text().startswith("Figure 4")


def claims_shown(page):
    return page.locator(".scoreboard li:visible").count()


def test_the_scoreboard_is_short_and_filters_by_its_address(reader):
    page = reader.open("book/scoreboard.html")
    assert page.evaluate("document.documentElement.scrollHeight") <= 3000
    assert claims_shown(page) == 0, "groups are closed"
    form = page.locator("form.claims-filter")
    form.locator("[name=network]").select_option("Resnet-18")
    form.locator("[name=outcome]").select_option("not reproduced")
    found = claims_shown(page)
    assert found > 0
    assert form.locator("output").inner_text() == f"{found} of 298 claims."
    assert page.url.endswith("#network=Resnet-18&outcome=not+reproduced")
    form.locator("[name=q]").fill("no such words")
    assert claims_shown(page) == 0
    form.locator("[name=q]").fill("")
    page.goto("about:blank")
    page = reader.open("book/scoreboard.html#network=Resnet-18&outcome=not+reproduced")
    assert claims_shown(page) == found, "the address alone does the same"
    form.locator("button").click()  # the form's fields are empty a moment later
    expect(page.locator(".scoreboard details:visible")).to_have_count(len(figures()))
    assert "#" not in page.url
    assert not reader.wrong


def test_a_part_of_the_bar_leads_to_its_claims(reader):
    page = reader.open("book/intro.html")
    part = page.locator(".verdict-bar a[href*='outcome=not%20reproduced&evidence=reduced']")
    count = int(part.inner_text())
    part.click()
    page.wait_for_url("**/scoreboard.html#*")
    assert claims_shown(page) == count


@pytest.mark.parametrize("scripts", [True, False])
def test_a_link_leads_to_its_claim(browser, site, scripts):
    reader = Reader(browser, site, java_script_enabled=scripts)
    page = reader.open("book/scoreboard.html#fig31-larger-start-at-34k")
    claim = page.locator("#fig31-larger-start-at-34k")
    claim.locator("p").first.wait_for(state="visible")
    assert 0 <= claim.bounding_box()["y"] < WIDE["height"]
    reader.page.close()


def test_a_link_to_a_claim_that_is_gone_says_so(reader):
    page = reader.open("book/scoreboard.html#fig31-no-longer-there")
    assert "There is no claim fig31-no-longer-there" in page.locator("form output").inner_text()
    assert page.locator("#fig31-claims li:visible").count() == 6
    assert claims_shown(page) == 6
    page = reader.open("book/scoreboard.html#outcome=unheard-of")
    assert page.locator(".scoreboard details:visible").count() == len(figures())


def shown(page):
    """Pictures and numbers that the slider shows, and what it calls itself."""
    frame = page.locator(".round-slider .frame:visible")
    assert frame.count() == 1
    slider = page.locator(".round-slider input")
    return (
        frame.locator("img").first.get_attribute("src"),
        frame.locator("table").inner_text(),
        slider.get_attribute("aria-valuetext"),
    )


@pytest.mark.parametrize("from_disk", [False, True])
def test_the_slider_moves_by_key_and_by_drag(reader, built, from_disk):
    page = reader.open(
        (built / "book/figures/fig03.html").as_uri() if from_disk else "book/figures/fig03.html"
    )
    slider = page.locator(".round-slider input")
    first = shown(page)
    slider.focus()
    page.keyboard.press("ArrowRight")
    second = shown(page)
    assert all(now != before for now, before in zip(second, first))
    assert page.locator(".round-slider output").inner_text() == second[2]
    page.keyboard.press("ArrowLeft")
    assert shown(page) == first
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 8, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, middle, steps=5)
    page.mouse.up()
    assert shown(page)[2] not in (first[2], second[2])
    assert page.evaluate(
        "[...document.querySelectorAll('.frame:not([hidden]) img')]"
        ".every(img => img.naturalWidth > 0)"
    )
    assert not reader.wrong


def test_the_slider_on_a_phone(browser, site):
    reader = Reader(browser, site, has_touch=True)
    page = reader.open("book/figures/fig03.html")
    page.set_viewport_size(PHONE)
    first = shown(page)
    page.locator(".round-slider input").scroll_into_view_if_needed()
    box = page.locator(".round-slider input").bounding_box()
    page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    assert shown(page) != first
    left, right = (page.locator(".frame:visible img").nth(i).bounding_box() for i in (0, 1))
    assert right["y"] >= left["y"] + left["height"] - 1, "pictures stand below one another"
    assert left["width"] > 250
    reader.page.close()


def test_pictures_are_dark_in_the_dark_but_for_maps(browser, site):
    reader = Reader(browser, site, color_scheme="dark")

    def look(page, image):
        look = "image => getComputedStyle(document.querySelector(image)).filter"
        return reader.open(page).evaluate(look, image)

    assert look("book/figures/fig04.html", ".panels img") == "invert(0.93) hue-rotate(180deg)"
    assert look("book/figures/fig26.html", ".panels img") == "brightness(0.9)"
    reader.page.close()


def test_search_finds_a_page(reader):
    page = reader.open("search.html?q=dropout")
    page.wait_for_selector("#search-results li a")
    assert "Figure 6" in page.locator("#search-results").inner_text()


def test_a_page_is_light(built):
    """What a page loads beside the theme's own files, in bytes."""
    heavy = {}
    for name in pages(built):
        text = (built / name).read_text()
        images = [
            path
            for path in (built / "_images").iterdir()
            if path.name in text and not path.name.endswith("-small.png")
        ]
        weight = len(text.encode()) + sum(path.stat().st_size for path in images)
        if weight > 1_500_000:
            heavy[name] = weight
    assert not heavy


@pytest.mark.parametrize("screen", [WIDE, PHONE])
def test_numbers_are_read_off_a_panel_by_mouse_and_by_keys(browser, site, screen):
    reader = Reader(browser, site)
    reader.page.set_viewport_size(screen)
    page = reader.open("book/figures/fig04.html")
    panel, card = page.locator(".panels img").first, page.locator(".reading")
    assert not card.is_visible()
    panel.hover()
    assert "winning ticket (iterative)" in card.inner_text()
    here, there = card.bounding_box(), page.locator(".bd-article").bounding_box()
    assert there["x"] <= here["x"]
    assert here["x"] + here["width"] <= there["x"] + there["width"] + 1
    panel.focus()
    page.keyboard.press("Escape")
    assert not card.is_visible()
    before = panel.get_attribute("data-reading")
    page.keyboard.press("ArrowRight")
    assert int(panel.get_attribute("data-reading")) == int(before) + 1
    assert card.is_visible()
    assert not reader.wrong


def test_the_address_keeps_a_sliders_place(browser, site):
    reader = Reader(browser, site)
    page = reader.open("book/figures/fig04.html#weights=51.3")
    said = page.locator(".round-slider output")
    assert said.inner_text().startswith("51.3 %")
    page.locator(".round-slider input").press("ArrowRight")
    assert not said.inner_text().startswith("51.3 %")
    assert page.evaluate("location.hash") == f"#weights={said.inner_text().split()[0]}"
    page.emulate_media(media="print")
    frames = page.locator(".round-slider .frame")
    assert all(frames.nth(i).is_visible() for i in range(frames.count()))
    assert not reader.wrong
