"""The report of a sweep: its statistics, its sentences, its plots and its page."""

import itertools
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import scipy.stats
from PIL import Image
from sklearn.ensemble import ExtraTreesRegressor  # noqa: F401  imported once, not in a timed test

from sweeps.report import write_report
from sweeps.report.effects import effects, holm, mean_difference, permutation_p
from sweeps.report.findings import caveats, findings
from sweeps.report.importance import importances
from sweeps.report.page import embedded, plots
from sweeps.report.plots_tradeoffs import pareto
from sweeps.report.searched_settings import Setting, searched_settings
from sweeps.report.sweep_data import EQUAL, load_sweep_data
from sweeps.tracking.store import open_store
from tests.support.planted_sweeps import RECIPE, planted, write_sheets, write_sweep
from unetexp.errors import UserError
from unetexp.training.pictures import class_colours, cut_grid

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('report')}/mlflow.db")


@pytest.fixture(scope="session")
def sheets(tmp_path_factory):
    return write_sheets(tmp_path_factory.mktemp("sheets"))


@pytest.fixture(scope="session")
def made(store, sheets):
    """The name of a sweep of about 30 trials with a planted effect."""
    write_sweep(store, "planted", planted(), picture=sheets)
    return "planted"


@pytest.fixture(scope="session")
def sweep_data(store, made):
    return load_sweep_data(store, made)


@pytest.fixture(scope="session")
def html(store, made, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report(store, made, path) == path
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


# Statistics


def test_the_interval_agrees_with_welchs_on_normal_scores():
    rng = np.random.default_rng(1)
    ours, others = rng.normal(0.6, 0.02, 14), rng.normal(0.57, 0.03, 17)
    found = mean_difference(ours, others, rng)
    welch = scipy.stats.ttest_ind(ours, others, equal_var=False).confidence_interval()
    assert found.value == pytest.approx(ours.mean() - others.mean())
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), abs=0.003)


def test_the_interval_covers_the_truth_for_few_trials():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        found = mean_difference(rng.normal(0, 1, 5), rng.normal(1, 1, 6), rng)
        hits += found.low <= -1 <= found.high
    assert 0.91 <= hits / 300 <= 0.99


def test_the_permutation_test_agrees_with_scipys():
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 1, 24)
    mask = np.arange(24) < 10
    scores[mask] += 0.8
    reference = scipy.stats.permutation_test(
        (scores[mask], scores[~mask]),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(4),
    )
    assert permutation_p(scores, mask, rng) == pytest.approx(reference.pvalue, abs=0.02)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_the_pareto_front_by_hand():
    assert pareto([1, 2, 3, 4, 1], [0.5, 0.4, 0.7, 0.7, 0.2]) == [0, 2]
    assert pareto([], []) == []


# Sweep data and findings


def test_equal_budget_is_the_last_epoch_of_all_completed_and_stopped_trials(sweep_data):
    assert sweep_data.equal_epoch == 2
    assert sweep_data.budget == 3
    assert len(sweep_data.comparable) == 30  # the two failed ones did not get there
    best = sweep_data.trials.iloc[0]
    curve = dict(sweep_data.curves[best["run_id"]])
    assert best[EQUAL] == max(score for epoch, score in curve.items() if epoch <= 2)


def test_conditional_settings_count_only_where_they_were_searched(sweep_data):
    gamma = next(s for s in sweep_data.settings if s.path == "loss.gamma")
    focal = (sweep_data.trials["loss.kind"] == "focal").to_numpy()
    assert (gamma.active(sweep_data.trials) == focal).all()


def test_findings_recover_a_planted_effect_with_its_numbers(sweep_data):
    found = effects(sweep_data.comparable, sweep_data.settings)
    clear = [effect for effect in found if effect.clear]
    assert [effect.setting for effect in clear] == ["encoder.freeze"]
    trials = sweep_data.comparable
    by = trials.groupby("encoder.freeze")[EQUAL]
    (effect,) = clear
    assert abs(effect.difference.value) == pytest.approx(by.mean()["none"] - by.mean()["all"])
    sentence = next(f.sentence for f in findings(sweep_data, found) if f.kind == "clear")
    assert re.fullmatch(
        r"encoder\.freeze = none gained \d\.\d points of mIoU at equal budget, 95 % interval "
        r"\d\.\d to \d\.\d, 15 against 15 trials \(encoder\.freeze = all\)\.",
        sentence,
    )
    assert any("no random sample" in text for text in caveats(sweep_data, found))


def test_findings_stay_silent_on_noise():
    claims = 0
    settings = [Setting(f"part.{i}", ("a", "b", "c")) for i in range(4)]
    settings.append(Setting("optimizer.lr", log=True))
    for seed in range(24):
        rng = np.random.default_rng(seed)
        columns = {s.path: rng.choice(["a", "b", "c"], 40) for s in settings[:4]}
        columns |= {"optimizer.lr": rng.uniform(size=40), EQUAL: rng.normal(0.6, 0.03, 40)}
        found = effects(pd.DataFrame(columns), settings, seed)
        claims += any(effect.clear for effect in found)
    assert claims <= 4  # 1 of 24 is expected at 5 %


def test_too_few_trials_are_said_to_be_too_few(store):
    write_sweep(store, "few", planted(8))
    sweep_data = load_sweep_data(store, "few")
    found = findings(sweep_data, effects(sweep_data.comparable, sweep_data.settings))
    assert {f.kind for f in found} == {"fact", "open"}
    assert all("not enough trials to tell" in f.sentence for f in found if f.kind == "open")
    assert importances(sweep_data.comparable, sweep_data.settings) == []


def test_importance_finds_what_matters_and_how_sure_that_is(sweep_data):
    found = importances(sweep_data.comparable, sweep_data.settings)
    assert found[0].setting == "encoder.freeze"
    assert found[0].clear
    assert not any(item.clear for item in found[1:])
    for item in found:
        assert item.share.low <= item.share.value <= item.share.high


def test_without_a_recipe_what_differs_was_searched():
    trials = pd.DataFrame({"a.kind": ["x", "y"], "b.lr": [0.1, 0.2], "c": [1, 1], "seed": [0, 1]})
    assert [s.path for s in searched_settings(trials, None, {})] == ["a.kind", "b.lr"]
    only = searched_settings(trials, "not: [a recipe", {"searched": "b.lr", "space.b.lr": "0 to 1"})
    assert [(s.path, s.choices) for s in only] == [("b.lr", ())]


# Pictures


def test_a_sheet_is_cut_back_into_its_tiles(sheets):
    with Image.open(sheets[0]) as sheet:
        rows = cut_grid(sheet)
    assert len(rows) == 2
    sizes = {tile.size for tile in (rows[0].image, rows[0].truth, rows[0].errors)}
    assert sizes == {(147, 220)}  # 20 x 30, fitted into a tile of 220
    assert rows[0].image.getextrema() == ((255, 255),) * 3
    assert rows[0].errors.getpixel((70, 200)) == (255, 0, 80)
    assert cut_grid(Image.new("RGB", (80, 60))) == []
    assert class_colours(["a", "b"])[0] == ("b", "#e69f00")


# Figures and page


def test_plotly_takes_every_figure(sweep_data):
    charts = plots(sweep_data, importances(sweep_data.comparable, sweep_data.settings))
    assert [chart.key for chart in charts] == [
        *("importance", "slices", "heat", "parallel", "history", "curves"),
        *("classes", "prices", "hours", "endings"),
    ]
    for chart in charts:
        assert chart.data, chart.key
        go.Figure(chart.data, chart.layout)  # checks every name and value


class Reader(HTMLParser):
    """The tags of a page, and what would be fetched from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets, self.images, self.fetched = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        if tag == "a":
            self.targets.append(found["href"])
        if tag == "img":
            self.images.append(found)
        address = found.get("src") or (found.get("href") if tag == "link" else None)
        if address and not address.startswith("data:"):
            self.fetched.append(address)


def test_the_page_is_whole_in_itself(html):
    page = Reader(html)
    assert page.fetched == []
    assert all(target.removeprefix("#") in page.ids for target in page.targets)
    assert page.images
    assert all(image["alt"] for image in page.images)
    for word in ("points of mIoU at equal budget", "prefers-color-scheme", "@media print"):
        assert word in html
    assert len(html) < 15e6


def test_partial_budget_trials_are_marked(html, sweep_data):
    stopped = sweep_data.trials.loc[sweep_data.trials["stop_reason"] == "asha", "trial"]
    assert all(f"<td>{trial}*</td>" in html for trial in stopped)


def test_hostile_names_are_harmless(store, tmp_path):
    trials = planted(12)
    for trial in trials:
        trial["params"]["loss.kind"] = HOSTILE
    recipe = RECIPE.replace("[dice, focal]", f'["{HOSTILE}", focal]')
    write_sweep(store, "hostile", trials, recipe=recipe, classes=(HOSTILE,))
    html = write_report(store, "hostile", tmp_path / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html
    assert json.loads(embedded({"a": HOSTILE, "b": math.nan})) == {"a": HOSTILE, "b": None}
    assert not set("<>&") & set(embedded([HOSTILE, "&amp;"]))


def degenerate():
    """Sweeps that went wrong or are very small, by name."""
    one = planted(3)[0]
    constant = [{**trial, "curve": [0.5, 0.5]} for trial in planted(17)]
    alone = [{**t, "params": {"optimizer.lr": t["params"]["optimizer.lr"]}} for t in planted(15)]
    failed = [{**trial, "curve": [], "reason": "crash"} for trial in planted(6)]
    holes = [{**trial, "curve": [math.nan, *trial["curve"][1:]]} for trial in planted(17)]
    return {
        "no-trials": [],
        "one-trial": [one],
        "all-failed": failed,
        "none-completed": [{**t, "reason": "asha", "curve": t["curve"][:1]} for t in planted(9)],
        "all-the-same": constant,
        "one-dimension": alone,
        "holes": holes,
    }


@pytest.mark.parametrize("name", degenerate())
def test_odd_sweeps_have_a_sensible_page(store, tmp_path, name):
    write_sweep(store, name, degenerate()[name])
    html = write_report(store, name, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Findings</h2>" in html
    assert not re.search(r"\bnan\b", re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))
    sweep_data = load_sweep_data(store, name)
    if len(sweep_data.trials):
        for chart in plots(sweep_data, importances(sweep_data.comparable, sweep_data.settings)):
            go.Figure(chart.data, chart.layout)


def test_forty_classes(store, tmp_path):
    classes = [f"class {number}" for number in range(40)]
    write_sweep(store, "forty", planted(6), classes=classes)
    html = write_report(store, "forty", tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(name in html for name in itertools.islice(classes, 3))


def test_an_unknown_sweep_is_the_users_mistake(store, tmp_path):
    with pytest.raises(UserError, match="no sweep"):
        write_report(store, "nothing", tmp_path / "report.html")
