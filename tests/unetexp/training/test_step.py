"""One optimiser step: equal to a plain loop; fp16 with its scale; compiled, or failing to be."""

from __future__ import annotations

import copy
from itertools import islice

import pytest
import torch

from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with as small_config_with
from unetexp.compute.compiled import TrainForward
from unetexp.data import Folder, open_dataset
from unetexp.models.weights.resolution import input_normalization
from unetexp.training.batches.train_batches import TrainBatches, augmented
from unetexp.training.loop import fit
from unetexp.training.losses import loss_for
from unetexp.training.state import TrainState
from unetexp.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def config_with(**changes):
    return small_config_with(**{"memory_format": "contiguous", "precision": "fp32"} | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"train": 2, "val": 1}, size=(32, 32), classes=3)
    return open_dataset(Folder(root=str(root)))


def parts(config, data):
    loss, normalization = loss_for(config.loss, data), input_normalization(config.encoder, 3)
    return loss, normalization, list(TrainBatches(data["train"], config).epoch(1))


def weights(state):
    return [value.clone() for value in state.model.parameters()]


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_a_step_is_that_of_a_plain_loop(clip_norm, data):
    config = config_with(clip_norm=clip_norm, batch_size=4, accumulation=2)
    state = TrainState(config, data, CPU)
    loss, normalization, batches = parts(config, data)
    model = copy.deepcopy(state.model)
    optimizer = config.optimizer.build(
        [
            {**group, "params": [copied_of(state.model, model, p) for p in group["params"]]}
            for group in state.optimizer.param_groups
        ],
        fused=False,
    )
    expected = torch.zeros(())  # in fp32, as a step adds
    for raw in batches[:2]:
        images, labels = augmented(raw, data, 32, normalization, CPU)
        value = loss(model(images), labels) / 2
        value.backward()
        expected += value.detach()
    if clip_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    value = TrainStep(config, data, state, loss, normalization)(islice(batches, 2))
    assert value == expected
    for one, other in zip(state.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is None


def copied_of(model, copied, parameter):
    """The parameter of `copied` with the name that `parameter` has in `model`."""
    name = next(name for name, value in model.named_parameters() if value is parameter)
    return copied.get_parameter(name)


class TestFp16:
    config = config_with(
        precision="fp16", epochs=2, batch_norm_images=0
    )  # a CPU takes seconds for a step in fp16

    def test_a_step_whose_gradients_overflow_is_left_out(self, data):
        state = TrainState(self.config, data, CPU)
        loss, normalization, batches = parts(self.config, data)
        scale = 2.0**40
        state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": scale})
        before = weights(state)
        value = TrainStep(self.config, data, state, loss, normalization)(batches[:1])
        assert value.isfinite()
        assert all(map(torch.equal, before, weights(state)))
        assert state.scaler.get_scale() == scale / 2

    def test_a_resumed_run_equals_one_that_was_not_stopped(self, data):
        config = self.config
        whole, stopped = TrainState(config, data, CPU), TrainState(config, data, CPU)
        for state in (whole, stopped):  # a scale that moves in each step
            moving = {**state.scaler.state_dict(), "growth_interval": 1, "scale": 2.0**10}
            state.scaler.load_state_dict(moving)
        list(fit(config, data, whole))
        list(islice(fit(config, data, stopped), 1))
        resumed = TrainState(config, data, CPU)
        resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
        list(fit(config, data, resumed))
        assert all(map(torch.equal, weights(whole), weights(resumed)))
        assert whole.scaler.state_dict() == resumed.scaler.state_dict()
        assert whole.scaler.get_scale() > 2.0**10

    def test_a_checkpoint_without_a_scale_is_loaded(self, data):
        state = TrainState(self.config, data, CPU)
        older = state.state_dict()
        del older["scaler"]
        state.load_state_dict(older)
        assert state.scaler.get_scale() == 2.0**16


def losses(config, data, backend, tmp_path, notes):
    state = TrainState(config, data, CPU)
    state.forward = TrainForward(state.compute.compile, tmp_path, backend)
    reports = list(fit(config, data, state))
    notes.extend(note for report in reports for note in report.notes)
    return [report.metrics["train/loss"] for report in reports], state.compute.compile


def failing(*_):
    raise RuntimeError("the kernel does not compile")


def test_a_compiled_run_learns_the_same_through_a_thaw(data, tmp_path):
    frozen = {"encoder.freeze": "all", "encoder.thaw_epoch": 2, "epochs": 2}
    notes = []
    eager = losses(config_with(**frozen), data, "eager", tmp_path, notes)[0]
    config = config_with(compile="default", **frozen)
    compiled = losses(config, data, "eager", tmp_path, notes)[0]
    assert compiled == pytest.approx(eager, rel=1e-4)
    assert notes == []


def test_where_compiling_fails_training_goes_on_and_says_so_once(data, tmp_path, caplog):
    notes = []
    config = config_with(compile="default", epochs=2)
    failed, mode = losses(config, data, failing, tmp_path, notes)
    assert failed == losses(config_with(epochs=2), data, "eager", tmp_path, [])[0]
    assert len(notes) == 1 and "does not compile" in notes[0]
    assert notes[0] in caplog.text
    assert mode == "none"  # which is what the run records
