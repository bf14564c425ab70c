"""Training: it learns, resumes to the bit after a stop, and reports what goes wrong."""

from __future__ import annotations

import json
import math
import shutil
from typing import get_args

import pytest
import torch

import unetexp
from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.component import decode, kinds_of
from unetexp.data import Folder, open_dataset
from unetexp.models.decoders import Upsampling
from unetexp.training.config import TrainConfig, decode_config
from unetexp.training.experiment import BEST, Experiment, best_figures
from unetexp.training.loop import fit
from unetexp.training.losses import Loss, loss_for
from unetexp.training.optim import Schedule
from unetexp.training.state import TrainState
from unetexp.training.validation import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"train": 4, "val": 3}, size=(40, 48), classes=3)
    return open_dataset(Folder(root=str(root)))


def without_clock(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def train(config, data, folder, stop_after=None, checkpoint_every_s=0.0):
    """Run an experiment in `folder`, killed right after reporting epoch `stop_after`."""
    experiment = Experiment(config, data, folder, CPU)
    metrics = {}
    for report in experiment.run(checkpoint_every_s=checkpoint_every_s):
        metrics[report.epoch] = without_clock(report.metrics)
        if report.epoch == stop_after:
            break
    return experiment, metrics


STATES = {  # settings that have a state of their own, or change what is in it
    "plain": {},
    "classic": {"decoder.kind": "classic"},
    "ema": {"ema_decay": 0.9},
    "accumulation": {"accumulation": 2, "augment.crop_px": 48},
    "thaw": {"encoder.freeze": "all", "encoder.thaw_epoch": 3},
    "frozen": {"encoder.freeze": "stage2", "encoder.lr_scale": 0.1},
    "sgd": {"optimizer.kind": "sgd"},
    "modality": {"augment.modality_dropout": 0.5, "decoder.deep_supervision": 0.4},
    "rare": {"sampler.kind": "rare_classes", "augment.rare_crop": 0.7, "augment.preset": "strong"},
}


def variants():
    """The fewest runs that cover each loss, schedule, upsampling and state."""
    families = {
        "loss.kind": list(kinds_of(Loss)),
        "schedule.kind": list(kinds_of(Schedule)),
        "decoder.upsampling": list(get_args(Upsampling)),
    }
    for number in range(max(map(len, [*families.values(), STATES]))):
        kinds = {path: some[number % len(some)] for path, some in families.items()}
        state = list(STATES)[number % len(STATES)]
        yield pytest.param({**kinds, **STATES[state]}, id="-".join([state, *kinds.values()]))


@pytest.mark.parametrize("changes", variants())
def test_a_stopped_and_resumed_run_equals_one_that_was_not(changes, data, tmp_path):
    config = config_with(**changes)
    whole, expected = train(config, data, tmp_path / "whole", checkpoint_every_s=math.inf)
    # Stopped in epoch 3: its report was seen, its checkpoint was never written.
    train(config, data, tmp_path / "parts", stop_after=3)
    resumed, metrics = train(config, data, tmp_path / "parts")
    assert sorted(metrics) == [3, 4]
    assert metrics == {epoch: expected[epoch] for epoch in (3, 4)}
    assert same_weights(whole.state.model, resumed.state.model)
    assert same_weights(
        unetexp.load(tmp_path / "whole" / BEST), unetexp.load(tmp_path / "parts" / BEST)
    )


def test_training_does_not_depend_on_the_loaders_workers(data):
    config = config_with(epochs=2)
    states = [TrainState(config, data, CPU) for _ in range(2)]
    runs = [
        [without_clock(report.metrics) for report in fit(config, data, state, workers=workers)]
        for state, workers in zip(states, (0, 3), strict=True)
    ]
    assert runs[0] == runs[1]
    assert same_weights(states[0].model, states[1].model)


def test_training_learns(data):
    config = config_with(epochs=12, **{"optimizer.lr": 3e-3, "augment.rotation_deg": 0})
    reports = list(fit(config, data, TrainState(config, data, CPU)))
    assert reports[-1].metrics["train/loss"] < 0.6 * reports[0].metrics["train/loss"]
    assert max(r.metrics["val/miou"] for r in reports) > reports[0].metrics["val/miou"]


def test_a_report_has_the_names_that_users_see(data):
    config = config_with(epochs=1)
    report = next(fit(config, data, TrainState(config, data, CPU)))
    classes = [f"val/{figure}/{name}" for figure in ("iou", "dice") for name in data.class_names]
    expected = {"train/loss", "val/loss", "val/miou", "val/dice", "val/pixel_accuracy", *classes}
    assert expected <= set(report.metrics)
    assert all(isinstance(value, float) for value in report.metrics.values())


def test_metrics_do_not_depend_on_how_images_are_batched(data):
    one, three = config_with(batch_size=1), config_with(batch_size=3)
    state = TrainState(one, data, CPU)
    loss = loss_for(one.loss, data)
    first = evaluate(one, data, data["val"], state.model, loss)
    second = evaluate(three, data, data["val"], state.model, loss)
    assert first.metrics["miou"] == pytest.approx(second.metrics["miou"], abs=2e-3)


def test_accumulated_micro_batches_give_the_batchs_gradient(data):
    # Batch norm in eval (all frozen but the decoder's) would hide it; compare losses instead.
    for accumulation in (1, 2):
        config = config_with(
            epochs=1, accumulation=accumulation, precision="fp32", **{"augment.crop_px": 48}
        )
        report = next(fit(config, data, TrainState(config, data, CPU)))
        assert report.metrics["train/loss"] > 0


def test_a_frozen_part_has_no_gradient_no_state_and_the_same_statistics(data):
    config = config_with(epochs=1, **{"encoder.freeze": "all"})
    state = TrainState(config, data, CPU)
    before = {name: value.clone() for name, value in state.model.encoder.state_dict().items()}
    list(fit(config, data, state))
    after = state.model.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    encoder = set(state.model.encoder.parameters())
    assert all(parameter.grad is None for parameter in encoder)
    assert not encoder & set(state.optimizer.state)


def test_thawing_lets_the_encoder_learn_from_its_epoch_on(data):
    config = config_with(epochs=2, **{"encoder.freeze": "all", "encoder.thaw_epoch": 2})
    state = TrainState(config, data, CPU)
    start = state.model.encoder.conv1.weight.clone()
    reports = fit(config, data, state)
    next(reports)
    assert torch.equal(start, state.model.encoder.conv1.weight)
    next(reports)
    assert not torch.equal(start, state.model.encoder.conv1.weight)


def test_a_loss_that_is_not_finite_names_metric_epoch_and_step(data):
    config = config_with(**{"loss.class_weights": [1e38] * 3})  # their sum overflows
    with pytest.raises(unetexp.NonFiniteLossError, match=r"(train|val)/loss .* epoch \d"):
        list(fit(config, data, TrainState(config, data, CPU)))


class TestCheckpoints:
    def test_the_last_two_are_kept_and_none_after_the_end(self, data, tmp_path):
        train(config_with(), data, tmp_path, stop_after=4)
        kept = sorted(p.name for p in tmp_path.glob("epoch-*"))
        assert kept == ["epoch-00002", "epoch-00003"]
        train(config_with(), data, tmp_path)
        assert not list(tmp_path.glob("epoch-*"))
        assert (tmp_path / BEST / "model.safetensors").is_file()

    @pytest.fixture(scope="class")
    def stopped(self, data, tmp_path_factory):
        """A folder that was stopped in epoch 4, and the metrics of a run that was not."""
        root = tmp_path_factory.mktemp("stopped")
        _, expected = train(config_with(), data, root / "whole", checkpoint_every_s=math.inf)
        train(config_with(), data, root / "parts", stop_after=4)
        return root / "parts", expected

    @pytest.mark.parametrize("damage", ["cut", "flip", "empty", "no manifest"])
    def test_a_damaged_one_is_skipped_with_a_warning(self, stopped, data, tmp_path, damage, caplog):
        folder, expected = shutil.copytree(stopped[0], tmp_path / "parts"), stopped[1]
        state = folder / "epoch-00003" / "state.pt"
        content = state.read_bytes()
        match damage:
            case "cut":
                state.write_bytes(content[: len(content) // 2])
            case "flip":
                middle = len(content) // 2
                state.write_bytes(
                    content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
                )
            case "empty":
                state.write_bytes(b"")
            case "no manifest":
                (folder / "epoch-00003" / "manifest.json").unlink()
        _, metrics = train(config_with(), data, folder)
        assert "epoch-00003 is skipped" in caplog.text
        assert metrics == {epoch: expected[epoch] for epoch in (3, 4)}

    def test_one_of_another_run_is_not_loaded(self, data, tmp_path, caplog):
        train(config_with(seed=1), data, tmp_path / "other", stop_after=3)
        folder = tmp_path / "mine"
        folder.mkdir()
        (tmp_path / "other" / "epoch-00002").rename(folder / "epoch-00002")
        experiment = Experiment(config_with(), data, folder, CPU)
        assert experiment.state.epoch == 0
        assert "belongs to another run" in caplog.text

    def test_a_folder_of_another_configuration_is_refused(self, data, tmp_path):
        Experiment(config_with(), data, tmp_path, CPU)
        with pytest.raises(unetexp.CheckpointError, match="another configuration"):
            Experiment(config_with(epochs=5), data, tmp_path, CPU)


class TestArchive:
    def test_a_loaded_model_gives_the_validated_metrics(self, data, tmp_path):
        config = config_with(ema_decay=0.9)
        _, metrics = train(config, data, tmp_path)
        model = unetexp.load(tmp_path / BEST)
        assert not model.training
        recorded = best_figures(tmp_path)
        again = evaluate(config, data, data["val"], model, loss_for(config.loss, data))
        assert again.metrics["miou"] == pytest.approx(recorded["metrics"]["val/miou"], abs=1e-6)
        assert recorded["metrics"]["val/miou"] == max(m["val/miou"] for m in metrics.values())
        assert unetexp.read_spec(tmp_path / BEST).class_names == data.class_names

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_a_damaged_model_is_a_clear_error(self, data, tmp_path, name):
        train(config_with(epochs=1), data, tmp_path)
        path = tmp_path / BEST / name
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(unetexp.CheckpointError, match=name):
            unetexp.load(tmp_path / BEST)

    def test_a_missing_or_wrong_config_is_a_clear_error(self, tmp_path):
        with pytest.raises(unetexp.CheckpointError, match=r"config\.json"):
            unetexp.load(tmp_path / "nothing")
        (tmp_path / "config.json").write_text(json.dumps({"model": {"clas_names": []}}))
        with pytest.raises(unetexp.CheckpointError, match="class_names"):
            unetexp.load(tmp_path)


def test_every_kind_of_part_decodes_into_a_config():
    for family, path in ((Loss, "loss"), (Schedule, "schedule")):
        for kind in kinds_of(family):
            config = config_with(**{f"{path}.kind": kind})
            assert decode(TrainConfig, config.tree()) == config


def test_while_the_weights_stay_the_score_stays(data):
    """Batch norm's statistics come from the same images before each validation."""
    config = config_with(batch_norm_images=2, ema_epochs=None, **{"augment.crop_px": 32})
    config = decode_config({**config.tree(), "optimizer": {"kind": "sgd", "lr": 1e-30}})
    losses = [
        report.metrics["val/loss"] for report in fit(config, data, TrainState(config, data, CPU))
    ]
    assert len(losses) == 4
    assert len(set(losses)) == 1
