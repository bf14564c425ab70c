"""The comparison of train steps and samples in miniature: what it returns and prints."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import data as data_benchmark
from benchmarks import gpu, train_step
from benchmarks.peers.loops import Combination
from benchmarks.peers.ours import WholeStep, our_config
from benchmarks.peers.report import Group, figures_table
from benchmarks.peers.rounds import Ratio, Spread

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture
def tiny():
    return train_step.Setup(32, 2, rounds=1, steps=1, device=CPU, levels=("none", "all"))


def test_slim_takes_turns_with_both_peers(tiny):
    group = train_step.slim(tiny, (Combination(), Combination("fp32", "channels_last")))
    assert len(group.times) == 4
    assert all(len(values) == 1 and values[0] > 0 for values in group.times.values())
    assert [r.target for r in group.ratios] == [1.25, 1.0, None, None, None]
    plain, tuned = (group.times[name][0] for name in list(group.times)[:2])
    assert group.ratios[0].spread.median == plain / group.times[train_step.GIVEN][0]
    assert group.ratios[3].spread.median == tuned / group.times[train_step.WHOLE][0]
    text = group.markdown()
    assert "fp32 channels_last" in text
    assert "waits" in text


def test_a_frozen_encoder_is_compared_with_an_unfrozen_one(tiny):
    group = train_step.freezing(tiny, (Combination(), Combination()), whole=False)
    assert list(group.times) == ["ours, none", "ours, all", "(c), none", "(c), all"]
    assert [(r.what, r.target) for r in group.ratios] == [
        ("ours, none / ours, all", 1.7),
        ("(c), none / (c), all", None),
    ]


def test_a_whole_step_is_an_epoch_of_fit(tiny):
    setup = train_step.Setup(32, 2, rounds=1, steps=3, device=CPU)
    with setup.data() as data:
        config = our_config(Combination(), px=32, batch=2, encoder="resnet18")
        whole = WholeStep(config, data, CPU)
        seconds = whole()
        assert whole.steps >= 3
        assert seconds == pytest.approx(whole.trained_s[0] / whole.steps)
        whole()
        assert 0 < whole.waiting_share < 1


def test_unknown_levels_are_named(capsys):
    with pytest.raises(SystemExit):
        train_step.read_options(["--levels", "none,stage9"])
    assert "no such level: stage9; there are: none, stem" in capsys.readouterr().err


def test_a_group_says_what_is_met_and_missed():
    ratios = [
        Ratio("a / b", Spread(1.3, 1.2, 1.4), 1.25),
        Ratio("a / c", Spread(0.9, 0.8, 1.0), 1.0),
        Ratio("b / c", Spread(1.0, 1.0, 1.0)),
    ]
    lines = Group("title", {"a": [1.0], "b": [2.0]}, ratios).markdown().splitlines()
    assert "| a / b | 1.30 | 1.20 to 1.40 | 1.25 | met |" in lines
    assert "| a / c | 0.90 | 0.80 to 1.00 | 1 | missed by 10 % |" in lines
    assert "| b / c | 1.00 | 1.00 to 1.00 |  |  |" in lines


def test_a_figure_that_nobody_measured_has_no_verdict():
    text = figures_table([("a", None, "ms", 1.0), ("b", 2.0, "ms", 1.0), ("c", 0.5, "ms", 1.0)])
    assert "| a | not measured | at most 1 ms |  |" in text
    assert "| b | 2 ms | at most 1 ms | missed |" in text
    assert "| c | 0.5 ms | at most 1 ms | met |" in text


def test_samples_of_all_pipelines_are_timed(tmp_path, capsys):
    out = tmp_path / "data.json"
    data_benchmark.main(["--px", "32", "--rounds", "2", "--batches", "1", "--json", str(out)])
    found = json.loads(out.read_text(encoding="utf-8"))
    for arm in (data_benchmark.HOST, data_benchmark.WHOLE, data_benchmark.TORCHVISION):
        assert len(found["seconds_per_sample"][arm]) == 2
    assert 0 <= found["waiting_share"] < 1
    assert "torchvision v2 / ours" in capsys.readouterr().out


def test_torchvisions_sample_is_what_ours_is(tiny):
    with tiny.data() as data:
        window = data_benchmark.geometry(32).window_px
        image, mask = data_benchmark.torchvision_sample(32, window)(data["train"], 0)
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32
    assert mask.shape == (32, 32) and mask.dtype == torch.int64
    assert set(mask.unique().tolist()) <= {0, 1, 2, 3, 255}


def test_without_a_gpu_nothing_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "gpu.md"
    gpu.main(["--out", str(out)])
    assert "no CUDA device here, so nothing was measured" in capsys.readouterr().out
    assert not out.exists()


def test_busy_share_counts_overlaps_once_and_stops_at_the_length():
    kernels = [(0.0, 2.0), (1.0, 3.0), (8.0, 9.0), (12.0, 20.0)]
    assert gpu.busy_share(kernels, 10.0) == pytest.approx(0.4)
    assert gpu.busy_share([], 10.0) == 0


@pytest.mark.slow
def test_the_gpu_program_runs_in_miniature_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.md"
    gpu.main(["--device", "cpu", "--tiny", "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    for what in ("slim against", "frozen encoder", "classic against", "images per second"):
        assert what in text
    assert "GPU idle | not measured" in text  # no figure that nobody measured
