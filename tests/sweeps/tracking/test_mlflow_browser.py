"""What a newcomer sees in the MLflow UI: a real Chromium opens the addresses that a sweep prints.

The UI runs as `make ui` starts it, on a store that our tracker wrote.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from PIL import Image

from sweeps.leaderboard.trials import histories, trials_frame
from sweeps.tracking.mlflow_ui import BEST_OVERLAY, BEST_STEP, OVERLAY_SERIES
from sweeps.tracking.store import open_store
from sweeps.tracking.tracker import Tracker
from tests.support.browser import chromium, in_a_browser

pytestmark = in_a_browser
START_S = 60
# What MLflow's own pages complain about: it asks for a login that a local server has not.
MLFLOWS_OWN = ("status of 404", "ResizeObserver loop")
SCORES = {"0000": 0.41, "0001": 0.72, "0002": 0.55, "0003": 0.63}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """Two finished sweeps in one store; the tracker of the second."""
    place = tmp_path_factory.mktemp("tracked")
    picture = place / "overlay.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(picture)
    store = open_store(f"sqlite:///{place}/mlflow.db")
    for name in ("another", "pretend"):
        tracker = Tracker(store)
        tracker.start_sweep(
            name,
            storage=str(place),
            params={"recipe": "quickstart"},
            artifacts={"recipe.yaml": "epochs: 3"},
            note=f"The sweep *{name}* searches four dimensions.",
        )
        for trial, best in SCORES.items():
            write_trial(tracker, trial, f"{name}-{trial}", best, picture)
        tracker.end_sweep("completed")
    return tracker


def write_trial(tracker, trial, name, best, picture):
    params = {
        "encoder.freeze": "stem" if best > 0.6 else "all",
        "decoder.upsampling": "pixel_shuffle" if best > 0.7 else "bilinear",
        "loss.kind": "focal",
        "optimizer.lr": 0.002,
    }
    tracker.start_trial(trial, name, params, note=f"Trial **{trial}** of {name}.")
    epochs = 3 if best > 0.5 else 1
    peak = epochs if name.startswith("pretend") else max(1, epochs - 1)
    for epoch in range(1, epochs + 1):
        score = best - abs(peak - epoch) / 10
        names = ("val/miou", "val/dice", "val/iou/cell", "val/dice/cell")
        losses = {"train/loss": 1 / epoch, "val/loss": 2 / epoch, "train/lr": 0.002}
        figures = dict.fromkeys(names, score) | losses | {"time/train_s": 1.0}
        tracker.log_epoch(trial, epoch, figures)
    for epoch in {1, epochs}:
        tracker.log_image(trial, picture, OVERLAY_SERIES, epoch)
    tracker.log_image(trial, picture, BEST_OVERLAY, BEST_STEP)
    tracker.end_trial(trial, "completed" if epochs == 3 else "asha")


@pytest.fixture(scope="module")
def ui(tracker):
    """The address of `mlflow ui` on the store."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = tracker.store.uri.removeprefix("sqlite:///").removesuffix("/mlflow.db")
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1"]
    command += ["--backend-store-uri", tracker.store.uri, "--host", "127.0.0.1"]
    command += ["--default-artifact-root", f"file://{place}/mlartifacts", "--port", str(port)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(f"{place}/ui.log", "w+") as log:  # noqa: PTH123
        server = subprocess.Popen(
            command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/health", server, log)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(10)


def wait_for(address, server, log):
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            time.sleep(0.3)
    log.seek(0)
    pytest.fail(f"mlflow ui did not start:\n{log.read()}")


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser):
    """A newcomer's page on a laptop's screen; the test fails if it complains of us."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    context.set_default_timeout(30_000)
    page = context.new_page()
    complaints = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert [text for text in complaints if not any(own in text for own in MLFLOWS_OWN)] == []


def close_assistant(page):
    """MLflow opens its chat panel on the first visit from the machine itself."""
    page.get_by_role("button", name="Close", exact=True).click()


def column(page, name):
    """The texts of a column of the runs table, from the top."""
    cells = page.locator(f'.ag-row [col-id="{name}"]')
    rows = cells.evaluate_all(
        "all => all.map(cell => [cell.closest('.ag-row').getAttribute('row-index'), "
        "cell.innerText.split('\\n').pop()])"
    )
    return [text for _, text in sorted(rows, key=lambda row: int(row[0]))]


def test_the_printed_link_lists_the_trials_best_first_with_figures_and_settings(tracker, ui, page):
    page.goto(tracker.trials_url(ui))
    page.get_by_text("pretend-0001").wait_for()
    close_assistant(page)
    page.locator(".ag-header-cell[col-id='tags.`stop_reason`']").wait_for()
    ranking = sorted(SCORES, key=SCORES.get, reverse=True)
    assert column(page, "attributes.`Run Name`") == [f"pretend-{trial}" for trial in ranking]
    shown = {
        "metrics.`best/val/miou`": ["0.72", "0.63", "0.55", "0.41"],
        "metrics.`best/epoch`": ["3", "3", "3", "1"],
        "params.`encoder.freeze`": ["stem", "stem", "all", "all"],
        "params.`decoder.upsampling`": ["pixel_shuffle", "bilinear", "bilinear", "bilinear"],
        "params.`loss.kind`": ["focal"] * 4,
        "params.`optimizer.lr`": ["0.002"] * 4,
        "tags.`stop_reason`": ["completed"] * 3 + ["asha"],
    }
    assert {name: column(page, name) for name in shown} == shown
    for name in shown:
        assert page.locator(f'.ag-header-cell[col-id="{name}"]').is_visible()


def test_the_views_of_all_sweeps_are_listed_by_name(tracker, ui, page):
    page.goto(f"{ui}/#/experiments/{tracker.store.experiment_id}/runs")
    close_assistant(page)
    page.get_by_test_id("saved-views-trigger").click()
    run = tracker.store.sweep_run("another").info.run_id
    page.get_by_test_id(f"saved-views-item-{run}").get_by_text("another").click()
    page.get_by_text("another-0001").wait_for()
    assert column(page, "metrics.`best/val/miou`") == ["0.72", "0.63", "0.55", "0.41"]


def test_the_chart_link_shows_curves_settings_and_pictures(tracker, ui, page):
    page.goto(tracker.trials_url(ui, charts=True))
    close_assistant(page)
    headers = page.get_by_test_id("experiment-view-compare-runs-section-header")
    headers.first.wait_for()
    sections = [text.split("\n")[0] for text in headers.all_inner_texts()]
    assert sections[:3] == ["Learning curves", "Settings and best/val/miou", "Pictures"]
    assert sections[3:] == ["val", "val/iou", "val/dice", "best/val", "best", "train", "time"]
    cards = page.get_by_test_id("experiment-view-compare-runs-card")
    curve = cards.filter(has_text="val/miou").first
    curve.locator(".js-line").nth(2).wait_for(state="attached")
    headers.nth(1).scroll_into_view_if_needed()
    page.get_by_text("Parallel Coordinates").wait_for()
    for series, header, edge in ((BEST_OVERLAY, 2, "start"), (OVERLAY_SERIES, 3, "end")):
        headers.nth(header).evaluate("(header, block) => header.scrollIntoView({block})", edge)
        card = cards.filter(has_text=series).first
        card.wait_for()
        page.wait_for_function(
            "card => [...card.querySelectorAll('.rc-image img')]"
            ".filter(image => image.complete && image.naturalWidth > 1).length == 4",
            arg=card.element_handle(),
        )
    assert not page.get_by_text("No charts in this section").is_visible()


def test_the_page_of_a_sweep_has_its_description_and_its_files(tracker, ui, page):
    run = tracker.store.sweep_run("pretend").info.run_id
    address = f"{ui}/#/experiments/{tracker.store.experiment_id}/runs/{run}"
    page.goto(f"{address}?workflowType=machine_learning")
    page.get_by_text("The sweep pretend searches four dimensions.").wait_for()
    page.goto(f"{address}/artifacts?workflowType=machine_learning")
    page.get_by_text("recipe.yaml").first.click()
    page.get_by_text("epochs: 3").wait_for()


def test_the_page_of_a_trial_has_its_description(tracker, ui, page):
    run = tracker.run_id("0001")
    page.goto(
        f"{ui}/#/experiments/{tracker.store.experiment_id}/runs/{run}?workflowType=machine_learning"
    )
    page.get_by_text("Trial 0001 of pretend-0001.").wait_for()
    page.get_by_text("Best val/miou 0.7200 in epoch 3.").wait_for()


def test_a_tracking_server_gives_the_same_leaderboard_as_its_database(tracker, ui):
    names = ["pretend", "another"]
    frame = trials_frame(tracker.store, names)
    served = open_store(ui)
    assert_frame_equal(trials_frame(served, names), frame)
    assert histories(served, frame["run_id"]) == histories(tracker.store, frame["run_id"])
