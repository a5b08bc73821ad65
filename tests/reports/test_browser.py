"""The report in a real browser: it loads alone, its tools work, its text can be read by all, nothing in it executes."""

import os
import re
import shutil
from dataclasses import replace
from functools import cache

import pytest
import torch

from stepscope.reports.formats import render, save_phase, save_suite
from stepscope.synthetic.named import named
from stepscope.synthetic.phase import phase_diagram
from stepscope.synthetic.suite import run_suite

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = CHROMIUM is None and "CI" not in os.environ  # there it is an error
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING, reason="needs Chromium, `apt install chromium`")]

HOSTILE = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"'><svg onload=document.title='owned'>",
    "</script><script>document.title='owned'</script>",
    "\u202egnihtyna\u202c",
    "long" * 2500,
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A page that was opened, what it asked the network for, and what it complained of."""

    def __init__(self, browser, path, **context):
        self.page = browser.new_page(**context)
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())


@pytest.fixture
def visit(browser, make, tmp_path):
    """Return a function that opens the report of a run, or of several."""
    visits = []

    def open_report(runs=1, names=None, tensors=3, **context):
        traces = [make(tensors=tensors) for _ in range(runs)]
        names = names or [f"run {i}" for i in range(runs)]
        path = render(list(zip(names, traces, strict=True)), tmp_path / "report.html")
        visits.append(Visit(browser, path, **context))
        return visits[-1]

    yield open_report
    for each in visits:
        each.page.close()


@pytest.fixture(params=["suite", "phase"])
def study(browser, request, tmp_path):
    """Return a function that opens the report of a suite or of a phase diagram, with a hostile name."""
    visits = []

    def open_study(**context):
        path = tmp_path / "report.html"
        save_suite(played(), path) if request.param == "suite" else save_phase(swept(), path)
        visits.append(Visit(browser, path, **context))
        return visits[-1]

    yield open_study
    for each in visits:
        each.page.close()


@cache
def played():
    result = run_suite(torch.optim.Adam, ["reddi theorem 1", "noisy quadratic"], steps=500)
    rows = tuple(replace(result.rows[i % 2], problem=f"{i} {HOSTILE[i % 6]}", notes=HOSTILE[:3]) for i in range(8))
    return replace(result, optimizer=HOSTILE[0], rows=rows)


@cache
def swept():
    spans = ("beta1", 0.0, 0.3), ("beta2", 0.0, 0.9)
    found = phase_diagram(named("theorem1").build(), "adam", *spans, (12, 12), 3000, "0.5/sqrt(t)")
    return replace(found, method=HOSTILE[1], problem=HOSTILE[3])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_study_loads_alone_and_can_be_read_by_all(study, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    opened = study(color_scheme=scheme, viewport={"width": width, "height": 900})
    assert len(opened.requests) == 1
    assert opened.complaints == []
    assert opened.page.title() != "owned"
    found = Axe().run(opened.page).response["violations"]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found] == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    for link in opened.page.locator("a[href^='#']").all():
        assert opened.page.locator(link.get_attribute("href")).count() == 1


def test_the_table_of_a_study_sorts_and_is_searched(study):
    page = study().page
    table = page.locator("table.sortable").first
    head = table.locator("th button").first
    head.click()
    assert table.locator("th").first.get_attribute("aria-sort") == "ascending"
    cells = table.locator("tbody tr td:first-child").all_inner_texts()
    assert cells == sorted(cells, key=first_word)
    word = first_of_one_row(table.locator("tbody tr").all_inner_texts())
    page.get_by_label("Search").first.fill(word)
    assert table.locator("tbody tr:visible").count() == 1
    assert word in table.locator("tbody tr:visible").inner_text()


def first_word(text):
    """Return a cell as the page sorts it: by its number, if it has one."""
    try:
        return float(text.split()[0])
    except ValueError:
        return text


def first_of_one_row(rows):
    """Return a word that stands in one row alone."""
    return next(word for row in rows for word in row.split() if sum(word in other for other in rows) == 1)


@pytest.mark.parametrize("runs", [1, 3])
def test_it_loads_alone_and_in_silence(visit, runs):
    opened = visit(runs)
    assert len(opened.requests) == 1
    assert opened.complaints == []
    assert opened.page.title().endswith("stepscope")


def column(page, number):
    return page.locator(f"#run1-table tbody tr td:nth-child({number})").all_inner_texts()


def test_tables_sort_by_number_and_by_name(visit):
    page = visit().page
    heads = page.locator("#run1-table thead th button")
    names = column(page, 1)
    heads.nth(0).click()
    assert column(page, 1) == sorted(names)
    heads.nth(0).click()
    assert column(page, 1) == sorted(names, reverse=True)
    assert page.locator("#run1-table th").first.get_attribute("aria-sort") == "descending"
    medians = next(i for i in range(heads.count()) if heads.nth(i).inner_text().startswith("e median"))
    heads.nth(medians).press("Enter")
    shown = [float(text.replace("·10", "e").split("\n")[0]) for text in column(page, medians + 1)]
    assert shown == sorted(shown)


def test_the_table_of_tensors_is_searched(visit):
    page = visit(tensors=9).page
    names = column(page, 1)
    page.get_by_label("Search").fill(names[-1][-4:])
    left = page.locator("#run1-table tbody tr:visible")
    assert left.count() == sum(names[-1][-4:] in name for name in names)
    assert page.locator(".search output").inner_text() == f"{left.count()} of {len(names)}"


def test_a_figure_is_enlarged_and_values_are_read_off_it(visit):
    page = visit().page
    picture = page.locator(".panels svg[data-x^=log]").first
    small = picture.bounding_box()["width"]
    key = picture.get_attribute("id")
    page.locator(f".panels > div:has(#{key}) .enlarge").click()
    shown = page.locator("dialog svg")
    assert shown.get_attribute("id") == key
    assert shown.bounding_box()["width"] > 1.5 * small
    box, left, top, right, bottom = shown.bounding_box(), *map(float, shown.get_attribute("data-frame").split())
    width, height = map(float, shown.get_attribute("viewBox").split()[2:])
    scale = min(box["width"] / width, box["height"] / height)  # a picture is as large as fits, and in the middle
    across = box["x"] + box["width"] / 2 + scale * ((left + right) / 2 - width / 2)
    down = box["y"] + box["height"] / 2 + scale * ((top + bottom) / 2 - height / 2)
    page.mouse.move(across, down)
    _, low, high = shown.get_attribute("data-x").split()
    step = float(re.search(r"([\d.e+-]+), value", page.locator("dialog output").inner_text())[1])
    assert step == pytest.approx((float(low) * float(high)) ** 0.5, rel=0.05)  # the middle of a logarithmic side
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()
    assert page.locator(f".panels #{key}").count() == 1


def test_links_lead_to_what_is_shown(visit):
    page = visit(3).page
    links = page.locator("a[href^='#']")
    for i in range(links.count()):
        target = links.nth(i).get_attribute("href")
        assert page.locator(target).count() == 1, target
    page.locator("nav a[href='#run3']").click()
    assert page.locator("#run3").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_can_be_read_by_all(visit, scheme, width):
    """axe-core finds nothing serious, and the page is no wider than the screen."""
    from axe_playwright_python.sync_playwright import Axe

    page = visit(2, color_scheme=scheme, viewport={"width": width, "height": 900}).page
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true }")
    found = Axe().run(page).response["violations"]
    serious = [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found]
    assert serious == []
    assert page.locator("pre").count() > 0  # lines of code are the longest words
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_names_are_names(visit, make):
    opened = visit(len(HOSTILE), names=HOSTILE)
    page = opened.page
    assert "owned" not in page.title()
    assert opened.complaints == []
    assert len(opened.requests) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
