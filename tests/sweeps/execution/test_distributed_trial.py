"""Two ranks: the figures, gradients, weights and checkpoints of one process."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import unetexp
from sweeps.config.budget import Budget
from sweeps.config.loading import load_recipe
from sweeps.execution.distributed_trial import as_trial_error, failure_of
from sweeps.execution.placement import place
from sweeps.execution.trial import RanksLostError, smaller_micro_batch
from sweeps.state.ledger import Ledger
from tests.support.data_folders import write_folder_dataset
from tests.support.ranks import Pair
from tests.support.sweep_command import run_here
from unetexp.component import decode, kinds_of
from unetexp.compute.distributed import ALONE, Group, synchronise_batch_norm
from unetexp.data import Folder, open_dataset
from unetexp.system.cuda_errors import is_out_of_memory
from unetexp.training.config import decode_config
from unetexp.training.experiment import BEST, Experiment, follow
from unetexp.training.loop import fit
from unetexp.training.losses import Loss, create_loss
from unetexp.training.state import TrainState

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SMALL = {
    "encoder": {"name": "resnet18", "weights": "none"},
    "augment": {"crop_px": 64},  # at 32 px batch norm has four values a channel
    "optimizer": {"kind": "sgd", "lr": 1e-2},  # Adam blows rounding of tiny gradients up
    "epochs": 2,
    "batch_size": 4,
    "precision": "fp32",
    "memory_format": "contiguous",
    "batch_norm_images": 0,  # statistics of four images blow rounding up
    "ema_epochs": None,
    "data": {"kind": "mni152"},  # not opened: the tests bring their own
}
CLOSE = {"rtol": 1e-3, "atol": 1e-4}  # moving one weight by 1e-7 moves the others by more


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    two = Pair(tmp_path_factory.mktemp("gloo") / "rendezvous")
    yield two
    two.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"train": 8, "val": 5}, size=(40, 48), classes=3, void=0.2)
    return open_dataset(Folder(root=str(root)))


def config_with(**changes):
    return decode_config(SMALL, changes)


def without_clock(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def assert_same_figures(one, other):
    one, other = without_clock(one), without_clock(other)
    assert one == pytest.approx(other, rel=1e-4, abs=1e-4, nan_ok=True)


def assert_same_weights(one, other):
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], **CLOSE, msg=name)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )


def uneven_batch():
    """Four images; the first two are nearly all void, and class 3 is in the last one only."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 12, 10, generator=generator)
    masks = torch.randint(0, 3, (4, 12, 10), generator=generator)
    masks[0] = 255
    masks[1, 1:] = 255
    masks[3, :4] = 3
    return images, masks


def all_gradients(network):
    return {name: p.grad.clone() for name, p in network.named_parameters()}


def loss_of_a_rank(loss, accumulation):
    ranks, model = Group(), small_network()
    network = ranks.network(model)
    total = 0.0
    for number, (images, masks) in enumerate([uneven_batch()] * accumulation, start=1):
        mine = slice(2 * ranks.rank, 2 * ranks.rank + 2)
        with ranks.accumulating(network, last=number == accumulation):
            value = loss(*ranks.whole_batch(network(images[mine]), masks[mine]))
            value.backward()
        total += value.item()
    return total, all_gradients(model), dict(model.named_buffers())


LOSSES = {
    **{kind: {"kind": kind} for kind in kinds_of(Loss)},
    "balanced": {"kind": "cross_entropy", "class_weights": "balanced"},
    "smoothed": {"kind": "cross_entropy", "label_smoothing": 0.1},
}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_the_value_and_gradients_of_one_process(pair, name, accumulation):
    loss = create_loss(**LOSSES[name])
    model = small_network()
    images, masks = uneven_batch()
    expected = 0.0
    for _ in range(accumulation):
        value = loss(model(images), masks)
        value.backward()
        expected += value.item()
    for total, gradients, buffers in pair.both(loss_of_a_rank, loss, accumulation):
        assert total == pytest.approx(expected, rel=1e-5)
        for parameter, gradient in all_gradients(model).items():
            # the bias before batch norm has the gradient 0
            torch.testing.assert_close(gradients[parameter], gradient, rtol=1e-4, atol=1e-6)
        assert_same_weights(buffers, dict(model.named_buffers()))


def bf16_of_a_rank():
    logits = torch.full((1, 2, 3, 3), float(Group().rank), dtype=torch.bfloat16)
    gathered, masks = Group().whole_batch(logits, torch.full((1, 3, 3), 255))
    return gathered, masks


def test_logits_of_any_type_and_void_pixels_travel(pair):
    for gathered, masks in pair.both(bf16_of_a_rank):
        assert gathered.dtype == torch.bfloat16
        assert gathered[:, 0, 0, 0].tolist() == [0, 1]
        assert masks.shape == (2, 3, 3)
        assert masks.dtype == torch.int64
        assert (masks == 255).all()


def batch_norm_of_a_rank(norm, images):
    ranks = Group()
    part = images.chunk(ranks.world)[ranks.rank].clone().requires_grad_()
    network = nn.Sequential(norm)
    synchronise_batch_norm(network)
    parameters = [id(p) for p in norm.parameters()] == [id(p) for p in network.parameters()]
    out = network(part)
    (out.sin().sum() * (ranks.rank + 1)).backward()
    evaluated = network.eval()(part).detach()
    return out.detach(), part.grad, dict(network[0].named_buffers()), evaluated, parameters


def test_synchronised_batch_norm_is_batch_norm_of_the_whole_batch(pair):
    norm = nn.BatchNorm2d(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    images = (3 + 2 * torch.randn(4, 5, 6, 7)).requires_grad_()
    first, second = pair.both(batch_norm_of_a_rank, copy.deepcopy(norm), images.detach())
    out = norm(images)
    of_rank = torch.tensor([1.0, 1.0, 2.0, 2.0]).view(-1, 1, 1, 1)
    (out.sin() * of_rank).sum().backward()
    torch.testing.assert_close(torch.cat([first[0], second[0]]), out.detach())
    torch.testing.assert_close(torch.cat([first[1], second[1]]), images.grad, rtol=1e-4, atol=1e-5)
    evaluated = norm.eval()(images).detach()
    torch.testing.assert_close(torch.cat([first[3], second[3]]), evaluated)
    for part in (first, second):
        assert_same_weights(part[2], dict(norm.named_buffers()))
        assert part[4]


VARIANTS = {
    "plain": {},
    "classic": {"decoder.kind": "classic"},
    "ema": {"ema_decay": 0.9},
    # a micro-batch of two images at 32 px has two values a channel: normalised, they are +-1
    "accumulation": {"accumulation": 2, "augment.crop_px": 64},
    "thaw": {"encoder.freeze": "all", "encoder.thaw_epoch": 2},
    "frozen": {"encoder.freeze": "stage2", "encoder.lr_scale": 0.1},
    "lovasz": {"loss.kind": "lovasz"},
    "supervised": {"decoder.deep_supervision": 0.4},
    "dice": {"loss.kind": "dice_ce", "loss.class_weights": "balanced"},
}


def fit_of_a_rank(config, data):
    ranks, state = Group(), TrainState(config, data, CPU)
    reports = list(fit(config, data, state, keep_predictions=range(5), ranks=ranks))
    return (
        [report.metrics for report in reports],
        reports[-1].evaluation,
        state.evaluated_model.state_dict(),
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_of_two_ranks_equals_that_of_one_process(pair, data, variant):
    config = config_with(**VARIANTS[variant])
    state = TrainState(config, data, CPU)
    expected = list(fit(config, data, state, keep_predictions=range(5)))
    for metrics, evaluation, weights in pair.both(fit_of_a_rank, config, data):
        for one, other in zip(metrics, expected, strict=True):
            assert_same_figures(one, other.metrics)
        assert evaluation.confusion.sum() == expected[-1].evaluation.confusion.sum()
        assert set(evaluation.predictions) == set(range(5))
        assert evaluation.image_miou.isfinite().all() and len(evaluation.worst) == 4
        assert_same_weights(weights, state.evaluated_model.state_dict())


def recomputed_statistics(config, data):
    state = TrainState(config, data, CPU)
    ranks = Group() if torch.distributed.is_initialized() else ALONE
    next(fit(config, data, state, ranks=ranks))
    return state.evaluated_model.state_dict()


def test_two_ranks_recompute_the_statistics_of_all_images(pair, data):
    config = config_with(batch_norm_images=8, ema_epochs=0.5, **{"optimizer.lr": 1e-6})
    expected = recomputed_statistics(config, data)
    for weights in pair.both(recomputed_statistics, config, data):
        assert_same_weights(weights, expected)


def experiment_of_a_rank(config, data, folder, stop_after):
    ranks, metrics = Group(), {}
    if ranks.rank == 0:
        reports = Experiment(config, data, folder, CPU, ranks=ranks).run()
    else:
        reports = follow(config, data, CPU, ranks)
    for report in reports:
        metrics[report.epoch] = report.metrics
        if report.epoch == stop_after:
            break
    return metrics


def train_alone(config, data, folder, stop_after=None):
    metrics = {}
    for report in Experiment(config, data, folder, CPU).run():
        metrics[report.epoch] = report.metrics
        if report.epoch == stop_after:
            break
    return metrics


class TestResume:
    """Stopped in epoch 3, so that its checkpoint was never written."""

    CONFIG = config_with(epochs=4, ema_decay=0.9, **{"optimizer.lr": 1e-3})

    @pytest.fixture(scope="class")
    def whole(self, data, tmp_path_factory):
        folder = tmp_path_factory.mktemp("whole")
        return folder, train_alone(self.CONFIG, data, folder)

    def check(self, whole, folder, metrics):
        expected_folder, expected = whole
        assert sorted(metrics) == [3, 4]
        for epoch in (3, 4):
            assert_same_figures(metrics[epoch], expected[epoch])
        assert not list(folder.glob("epoch-*"))
        ours, theirs = (unetexp.load(place / BEST) for place in (folder, expected_folder))
        assert_same_weights(ours.state_dict(), theirs.state_dict())

    def test_two_ranks_go_on_from_two(self, pair, data, whole, tmp_path):
        pair.both(experiment_of_a_rank, self.CONFIG, data, tmp_path, 3)
        for metrics in pair.both(experiment_of_a_rank, self.CONFIG, data, tmp_path, None):
            self.check(whole, tmp_path, metrics)

    def test_one_process_goes_on_from_two_ranks(self, pair, data, whole, tmp_path):
        pair.both(experiment_of_a_rank, self.CONFIG, data, tmp_path, 3)
        self.check(whole, tmp_path, train_alone(self.CONFIG, data, tmp_path))

    def test_two_ranks_go_on_from_one_process(self, pair, data, whole, tmp_path):
        train_alone(self.CONFIG, data, tmp_path, 3)
        for metrics in pair.both(experiment_of_a_rank, self.CONFIG, data, tmp_path, None):
            self.check(whole, tmp_path, metrics)


def refusal_of_a_rank(config, data):
    with pytest.raises(unetexp.ConfigError) as caught:
        next(fit(config, data, TrainState(config, data, CPU), ranks=Group()))
    return str(caught.value)


def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_the_numbers(pair, data):
    config = config_with(batch_size=6, accumulation=2)
    for message in pair.both(refusal_of_a_rank, config, data):
        assert "batch_size is 6 in 2 micro-batches of 3" in message
        assert "2 GPUs cannot share 3 images" in message
        assert "that 4 divides" in message


class TestPlacement:
    def test_a_trial_asks_little_and_its_ranks_a_gpu_each(self):
        placement = place(Budget(gpus_per_trial=2), None, 4)
        assert (placement.ranks, placement.max_concurrent) == (2, 2)
        asked = placement.resources()["CPU"] + 2 * placement.rank_resources()["CPU"]
        assert asked * placement.max_concurrent <= placement.cpus
        assert placement.rank_resources()["GPU"] == 1
        assert "GPU" not in placement.resources()

    @pytest.mark.parametrize(
        ("gpus_per_trial", "message"), [(1.5, "whole number"), (3, "has 2 GPUs")]
    )
    def test_what_cannot_be_is_refused(self, gpus_per_trial, message):
        with pytest.raises(unetexp.UserError, match=message):
            place(decode(Budget, {"gpus_per_trial": gpus_per_trial}), None, 2)

    @pytest.mark.parametrize(
        "changes", [{"batch_size": 5}, {"batch_size": 8, "accumulation": 8}], ids=str
    )
    def test_a_recipe_whose_batch_cannot_be_shared_is_refused(self, changes):
        changes = {"budget.gpus_per_trial": 2, **changes}
        with pytest.raises(unetexp.ConfigError, match="cannot share"):
            load_recipe("quickstart", changes)

    def test_out_of_memory_halves_down_to_one_image_a_rank(self):
        assert smaller_micro_batch(12, 1, ranks=2) == 2
        assert smaller_micro_batch(12, 2, ranks=2) == 6
        assert smaller_micro_batch(12, 6, ranks=2) is None


class TestFailuresOfRanks:
    @pytest.mark.parametrize(
        "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("none left")]
    )
    def test_memory_that_ran_out_is_still_that_in_the_trial(self, error):
        failure = pickle.loads(pickle.dumps(failure_of(error)))
        assert is_out_of_memory(as_trial_error(failure))

    def test_its_own_error_keeps_the_ranks_traceback(self):
        try:
            raise unetexp.DataError("image 7 is torn")
        except unetexp.DataError as error:
            seen = as_trial_error(pickle.loads(pickle.dumps(failure_of(error))))
        assert isinstance(seen, unetexp.DataError)
        assert "test_its_own_error" in seen.__notes__[0]

    def test_an_error_that_cannot_travel_keeps_its_words(self):
        class LocalError(Exception):
            pass

        assert str(as_trial_error(failure_of(LocalError("what happened")))) == "what happened"

    def test_a_rank_whose_peer_is_gone_is_not_at_fault(self):
        gone = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")
        assert isinstance(as_trial_error(failure_of(gone)), RanksLostError)


RECIPE = """
base:
  encoder: {name: resnet18, weights: none}
  augment: {crop_px: 32}
  optimizer: {kind: sgd, lr: 1.0e-2}
  batch_size: 4
  epochs: 2
  precision: fp32
  batch_norm_images: 0
  ema_epochs: null
budget: {trials: 1}
"""


@pytest.mark.slow
class TestSweep:
    """`--gpus-per-trial 2` from the command line, on two pretend GPUs."""

    def epochs_of(self, root, name, *arguments):
        places = ["--tracking-uri", f"sqlite:///{root}/mlflow.db", "--storage", root / "runs"]
        said = run_here(
            root / "small.yaml", "--data", root / "data", *places, "--name", name, *arguments
        )
        events = Ledger(root / "runs" / name / "ledger.jsonl", write=False).of("epoch")
        return [event["metrics"] for event in events], said

    def test_a_trial_on_two_gpus_has_the_figures_of_one_device(self, tmp_path):
        (tmp_path / "small.yaml").write_text(RECIPE)
        write_folder_dataset(tmp_path / "data", splits={"train": 8, "val": 3}, classes=3, void=0.2)
        quick = "--skip-preflight"
        two, said = self.epochs_of(
            tmp_path, "two", "--simulate-gpus", "2", "--gpus-per-trial", "2", quick
        )
        one, _ = self.epochs_of(tmp_path, "one", "--gpus", "0", quick)
        assert "1 completed" in said
        assert len(one) == len(two) == 2
        for ours, theirs in zip(two, one, strict=True):
            assert_same_figures(
                {n: v for n, v in ours.items() if not n.startswith("system/")},
                {n: v for n, v in theirs.items() if not n.startswith("system/")},
            )
        kept = tmp_path / "runs" / "two" / "trials" / "0000"
        assert unetexp.load(kept / BEST).training is False
        assert not list(kept.glob("epoch-*"))
