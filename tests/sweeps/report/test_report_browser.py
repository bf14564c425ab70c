"""The report in a real Chromium: every figure is drawn, nothing is fetched, nothing complains."""

import pytest

from sweeps.report import write_report
from sweeps.tracking.store import open_store
from tests.support.browser import chromium, in_a_browser
from tests.support.planted_sweeps import RECIPE, planted, write_sheets, write_sweep

pytestmark = in_a_browser
FIGURES = {
    *("importance", "slices", "heat", "parallel", "history", "curves"),
    *("classes", "prices", "hours", "endings"),
}
DRAWN = "() => document.documentElement.dataset.plots === 'drawn'"
MARKS = """() => Object.fromEntries([...document.querySelectorAll('.plot')].map(plot =>
    [plot.dataset.key, plot.querySelectorAll('path.point, .point path, .trace, .hm, canvas').length]
))"""
TEXT_COLOUR = """() => [...document.querySelectorAll('.plot .xtick text')].map(
    text => getComputedStyle(text).fill)"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    place = tmp_path_factory.mktemp("seen")
    store = open_store(f"sqlite:///{place}/mlflow.db")
    trials = planted(18)
    hostile = "<img src=x onerror=alert(1)>"
    trials[0]["params"]["decoder.upsampling"] = hostile
    recipe = RECIPE.replace("[bilinear", f'["{hostile}", bilinear')
    recipe = recipe.replace("[dice,", "[lovasz, dice,")  # a choice that was never tried
    write_sweep(
        store, "seen", trials, recipe=recipe, picture=write_sheets(place), classes=("<b>cell</b>",)
    )
    return write_report(store, "seen", place / "report.html")


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


def opened(browser, address, scheme, html=None):
    """The drawn page, what it complained of and what it asked the network for."""
    context = browser.new_context(viewport={"width": 1366, "height": 768}, color_scheme=scheme)
    context.set_default_timeout(60_000)
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    return page, complaints, requests


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_drawn_without_a_complaint_or_a_request(browser, report, scheme):
    page, complaints, requests = opened(browser, report.as_uri(), scheme)
    page.wait_for_function(DRAWN)
    marks = page.evaluate(MARKS)
    assert set(marks) == FIGURES
    assert [key for key, count in marks.items() if not count] == []
    colours = set(page.evaluate(TEXT_COLOUR))
    ink = {"light": "rgb(27, 31, 36)", "dark": "rgb(230, 233, 238)"}[scheme]
    assert colours == {ink}
    outside = [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    assert (complaints, outside) == ([], [])
    page.context.close()


def test_it_runs_in_a_sandboxed_frame_as_mlflow_shows_it(browser, report, tmp_path):
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe sandbox="allow-scripts" src="{report.as_uri()}" width=1000 height=700></iframe>'
    )
    page, complaints, _ = opened(browser, frame.as_uri(), "light")
    inside = page.frames[1]
    inside.wait_for_function(DRAWN)
    assert not [key for key, count in inside.evaluate(MARKS).items() if not count]
    inside.get_by_role("link", name="Learning curves").click()
    inside.wait_for_function("() => scrollY > 0 && document.activeElement.id === 'curves'")
    assert complaints == []
    page.context.close()


def test_it_prints_light_and_whole(browser, report):
    page, complaints, _ = opened(browser, report.as_uri(), "dark")
    page.wait_for_function(DRAWN)
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")
    assert complaints == []
    page.context.close()
