"""The preflight: smoke test, step cost, estimate, disk space, packing; and grace epochs."""

from __future__ import annotations

import os
import threading
import time
from collections import namedtuple
from dataclasses import replace

import pytest
import torch
import yaml

from sweeps.config.loading import load_recipe
from sweeps.driver.plan import SweepOptions, plan_sweep
from sweeps.execution import placement as placement_module
from sweeps.execution.placement import Placement, place
from sweeps.execution.ray_session import ray_up
from sweeps.preflight import disk_space as room
from sweeps.preflight import gpu_tasks
from sweeps.preflight import preflight as preflight_module
from sweeps.preflight import smoke_test as smoke_test_module
from sweeps.preflight.choices.probes import ProbeLostError
from sweeps.preflight.disk_space import Need, largest_sizes, needs, require_disk_space
from sweeps.preflight.estimate import estimate_sweep, expected_epochs, trials_per_gpu
from sweeps.preflight.overheads import Overheads, trial_overheads
from sweeps.preflight.preflight import check_in_worker, preflight
from sweeps.preflight.smoke_test import miniature, smoke_configs, smoke_test
from sweeps.preflight.step_cost import (
    Cost,
    Size,
    StepCost,
    climb,
    expected,
    largest_fitting,
    measure_step_cost,
)
from sweeps.state.storage import Storage
from tests.support.data_folders import write_folder_dataset
from unetexp.compute import measured as measured_module
from unetexp.compute.measured import Measured, TimedStep, settings_for
from unetexp.compute.settings import ComputeSettings
from unetexp.data import Folder, open_dataset
from unetexp.errors import ConfigError, UserError
from unetexp.training.state import Checkpoints, TrainState

CPU = torch.device("cpu")
GIB = 2**30
SMALL = {
    "base": {
        "encoder": {"name": "resnet18", "weights": "none"},
        "augment": {"crop_px": 32},
        "batch_size": 4,
        "epochs": 9,
        "batch_norm_images": 0,
    },
    "space": {
        "encoder.freeze": {"kind": "choice", "values": ["none", "all"]},
        "encoder.thaw_epoch": {
            "kind": "choice",
            "values": [1, 2],
            "when": {"encoder.freeze": "all"},
        },
        "loss.kind": {"kind": "choice", "values": ["cross_entropy", "focal"]},
        "loss.gamma": {"kind": "choice", "values": [1, 2], "when": {"loss.kind": "focal"}},
    },
    "budget": {"trials": 9},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"train": 8, "val": 3}, size=(150, 200), classes=3)
    return open_dataset(Folder(root=str(root)))


@pytest.fixture
def recipe(tmp_path):
    def load(changes=None, **parts):
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(SMALL | parts))
        return load_recipe(str(path), changes or {})

    return load


class TestRehearsal:
    def test_every_choice_is_tried_once_with_its_conditions_met(self, recipe):
        found = smoke_configs(recipe())
        assert set(found) == {
            "the base configuration",
            "encoder.freeze=all",
            "encoder.thaw_epoch=1",
            "encoder.thaw_epoch=2",
            "loss.kind=focal",
            "loss.gamma=1",
        }  # loss.gamma=2 is what focal has anyway
        assert list(found).index("loss.kind=focal") < list(found).index("loss.gamma=1")
        assert found["encoder.thaw_epoch=2"].encoder.freeze == "all"
        assert found["loss.gamma=1"].loss.kind == "focal"
        assert found["loss.gamma=1"].encoder.freeze == "none"

    def test_all_choices_of_a_sound_recipe_train(self, recipe, data):
        assert smoke_test(smoke_configs(recipe()), data, CPU, 60, at_once=2) == []

    def test_a_choice_that_fails_is_named_with_its_cause(self, recipe, data, monkeypatch):
        train = smoke_test_module.fit

        def fit(config, *arguments):
            if config.loss.kind == "focal":
                raise RuntimeError("no kernel for it")
            return train(config, *arguments)

        monkeypatch.setattr(smoke_test_module, "fit", fit)
        with pytest.raises(UserError, match=r"loss.kind=focal .*no kernel for it"):
            smoke_test(smoke_configs(recipe()), data, CPU, 60)

    def test_what_there_is_no_time_for_is_returned(self, recipe, data):
        configs = smoke_configs(recipe())
        assert smoke_test(configs, data, CPU, 0) == list(configs)

    def test_a_step_that_blows_up_is_no_failure_of_the_choice(self, recipe, data):
        changes = {"optimizer.lr": 10, "clip_norm": None, "schedule.kind": "constant"}
        assert smoke_test({"base": recipe(changes).base}, data, CPU, 60) == []


def test_a_miniature_is_small_and_keeps_labels_and_class_counts(data):
    with miniature(data, 3, 2, 64) as small:
        assert (len(small["train"]), len(small["val"])) == (3, 2)
        assert max(small["val"].shapes[0]) <= 64
        assert set(small["val"][0].mask.unique().tolist()) <= {0, 1, 2, 255}
        assert (small["train"].class_pixels == data["train"].class_pixels).all()
    with miniature(data, 1, 1) as whole:
        assert torch.equal(whole["val"][0].image, data["val"][0].image)


class TestProbe:
    def test_measures_the_base(self, recipe, data):
        found = measure_step_cost(recipe().base, data, CPU, 4, 20)
        assert found.micro_batch == 4
        assert not found.extrapolated
        assert 0 < found.step_s < 20
        assert 0 < found.val_s < 20
        assert found.peak_bytes > 2**27
        assert found.device_bytes is None

    @pytest.mark.parametrize("seconds_a_pixel", [1e-9, 1.0])
    def test_climbs_to_the_full_size_or_to_where_time_ends(self, seconds_a_pixel):
        ran = []

        def measure(size):
            ran.append(size)
            return Cost(size.pixels, 1 + seconds_a_pixel * size.pixels, GIB + 100 * size.pixels)

        full = Size(512, 16)
        costs = climb(measure, full, 60, 64 * GIB)
        assert (ran[-1] == full) == (seconds_a_pixel < 1)
        assert ran[0].pixels <= 2 * 128**2
        if len(costs) > 1:
            truth = 1 + seconds_a_pixel * full.pixels
            assert expected(costs, full.pixels).seconds == pytest.approx(truth)

    def test_stops_before_memory_ends_and_says_what_fits(self):
        def measure(size):
            assert size.images <= 8, "this would have been killed"
            return Cost(size.pixels, 1e-3, GIB + GIB * size.images)

        full = Size(128, 32)
        costs = climb(measure, full, 60, 12 * GIB)
        assert largest_fitting(costs, full, 12 * GIB) == 8
        assert largest_fitting(costs, full, GIB) == 1


class TestForecast:
    STEP_COST = StepCost(micro_batch=4, step_s=2.0, val_s=1.0, peak_bytes=GIB, device_bytes=None)
    TWO = Placement(2, 2, 1.0, 1.0, 2, simulated=True)

    def test_at_most_is_every_trial_to_its_end(self, recipe, data):
        found = estimate_sweep(recipe(), self.TWO, data, self.STEP_COST)
        assert found.epoch_s == 2 * 2.0 + 3 * 1.0  # 8 images in batches of 4, 3 to validate
        assert found.most_wall_s == 5 * 9 * found.epoch_s  # 9 trials, two at once
        assert found.most_device_s == 9 * 9 * found.epoch_s
        assert found.device_s < found.most_device_s
        assert found.wall_s < found.most_wall_s

    def test_an_epoch_counts_the_images_of_batch_norm_and_its_least_steps(self, recipe, data):
        def epoch_s(**changes):
            return estimate_sweep(recipe(changes), self.TWO, data, self.STEP_COST).epoch_s

        assert epoch_s(batch_norm_images=12) == pytest.approx(epoch_s() + 3 * 2.0 / 3)  # forward
        assert epoch_s(min_steps=10) == epoch_s() + 8 * 2.0

    def test_what_is_not_training_counts_too(self, recipe, data):
        bare = estimate_sweep(recipe({"asha.enabled": False}), self.TWO, data, self.STEP_COST)
        beside = Overheads(worker_s=5.0, trial_s=2.0, epoch_s=0.5)
        found = estimate_sweep(
            recipe({"asha.enabled": False}), self.TWO, data, self.STEP_COST, beside
        )
        # Ray, the workers and the end; five rounds of trials of nine epochs
        assert found.most_wall_s - bare.most_wall_s == pytest.approx(2.5 * 5 + 5 * (2 + 9 * 0.5))
        assert found.wall_s == pytest.approx(found.most_wall_s)
        assert found.most_device_s - bare.most_device_s == pytest.approx(9 * (2 + 9 * 0.5))
        assert found.epoch_s == bare.epoch_s

    def test_workers_that_are_more_than_cores_start_after_each_other(self):
        crowd = Placement(8, 2, 1.0, 0.25, 8, simulated=True)
        assert Overheads(worker_s=3.0).start_s(crowd) == 3.0 * (1 + 4)

    def test_a_time_budget_bounds_what_is_expected(self, recipe, data):
        limited = recipe({"budget.time": "30s"})
        found = estimate_sweep(limited, self.TWO, data, self.STEP_COST, Overheads(worker_s=5.0))
        assert found.expected_s(limited) == 30 + 12.5

    def test_a_trial_in_miniature_shows_what_is_not_training(self, recipe, data):
        trial_s, epoch_s = trial_overheads(recipe().base, data, CPU, val_s=0.01)
        assert 0 < epoch_s < 60
        assert 0.09 < trial_s < 60  # nine passes for the latency

    def test_smaller_micro_batches_are_more_of_them(self, recipe, data):
        halved = StepCost(2, 2.0, 1.0, GIB, None)
        assert estimate_sweep(recipe(), self.TWO, data, halved).epoch_s == 4 * 2.0 + 3.0

    def test_without_early_stopping_the_expected_is_the_most(self, recipe):
        assert expected_epochs(recipe({"asha.enabled": False}), 3) == (3 * 9, 9 * 9)

    def test_brackets_stop_fewer(self, recipe):
        together = expected_epochs(recipe(), 2)[1]
        apart = expected_epochs(recipe({"asha.bracket_by": "encoder.freeze"}), 2)[1]
        assert together < apart <= 9 * 9

    def test_a_large_sweep_is_estimated_at_once(self, recipe):
        started = time.monotonic()
        wall, total = expected_epochs(recipe({"budget.trials": 10_000}), 64)
        assert time.monotonic() - started < 5
        assert 3 * 10_000 < total < 9 * 10_000
        assert wall == pytest.approx(total / 64, rel=0.3)

    @pytest.mark.parametrize(
        ("peak_gib", "gpu_gib", "trials"),
        [(30, 80, 2), (20, 80, 3), (10, 80, 4), (1, 80, 4), (60, 80, 1), (79, 80, 1)],
    )
    def test_packs_what_memory_holds_with_a_margin(self, peak_gib, gpu_gib, trials):
        assert trials_per_gpu(StepCost(8, 1, 1, peak_gib * GIB, gpu_gib * GIB)) == trials


class TestRoom:
    def test_sizes_are_those_of_the_files(self, recipe, data, tmp_path):
        config = recipe().base
        state = TrainState(config, data, CPU)
        for parameter in state.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        state.optimizer.step()
        Checkpoints(tmp_path, {}).save(state.state_dict())
        written = sum(file.stat().st_size for file in tmp_path.rglob("*.pt"))
        sizes = largest_sizes([config], data)
        assert sizes.resume_bytes == pytest.approx(written, rel=0.01)

    def test_the_largest_choice_counts(self, recipe, data):
        slim = recipe().base
        classic = recipe({"decoder.kind": "classic"}).base
        assert largest_sizes([slim, classic], data) == largest_sizes([classic], data)

    def test_too_little_is_told_with_numbers(self, tmp_path, monkeypatch):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage(9 * GIB, 0, 3 * GIB))
        fits = Need("checkpoints", tmp_path / "not" / "yet", 2 * GIB)
        require_disk_space([fits])
        with pytest.raises(UserError, match=r"3\.0 GiB free .* up to 4\.0 GiB .*checkpoints"):
            require_disk_space([fits, Need("tracking", tmp_path, 2 * GIB)])

    def test_a_file_in_the_way_is_told(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"file is not a folder .*--storage"):
            require_disk_space([Need("checkpoints", tmp_path / "file" / "runs", 1)])

    def test_what_is_written_elsewhere_is_not_counted(self, recipe, data):
        sizes = largest_sizes([recipe().base], data)
        asked = {"trials": 100, "at_once": 2, "epochs": 9, "kept": 3}
        (scratch,) = needs(sizes, Storage("s3://bucket/x"), None, **asked)
        assert scratch.bytes == 2 * sizes.running_bytes

    def test_what_an_earlier_driver_wrote_is_not_needed_again(self, recipe, data, tmp_path):
        sizes = largest_sizes([recipe().base], data)
        storage, artifacts = Storage(str(tmp_path / "runs")), tmp_path / "artifacts"
        asked = {"trials": 10, "at_once": 2, "epochs": 9, "kept": 3}
        fresh, fresh_artifacts = needs(sizes, storage, artifacts, **asked)
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "model.safetensors").write_bytes(bytes(1000))
        left, left_artifacts = needs(sizes, storage, artifacts, **asked, ended=9)
        assert left.bytes == fresh.bytes - 1000
        assert sizes.model_bytes * 3 < left_artifacts.bytes < fresh_artifacts.bytes
        os.truncate(tmp_path / "runs" / "model.safetensors", fresh.bytes + 1)  # sparse
        assert needs(sizes, storage, None, **asked)[0].bytes == 0


class PretendProbes:
    """Processes that take 0.5 s a step in fp32 and 5 s in bf16, 0.4 s with two threads."""

    def __init__(self, count, environment):
        assert environment["PYTHONPATH"]
        self.count, self.loaded = count, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def up_s(self):
        return 3.0

    def load(self, config, data, count, limit_s):
        assert count <= self.count
        self.loaded.append(config)

    def step_s(self, settings, size, at_once, threads, limit_s):
        assert self.loaded
        slow = 10 if settings.precision == "bf16" else 1
        layout = 1.2 if settings.memory_format == "channels_last" else 1
        return 0.5 * slow * layout * size.pixels / (4 * 32**2) / threads**0.3


class LostProbes(PretendProbes):
    def step_s(self, *_):
        raise ProbeLostError("a process died")


class TestWhole:
    @pytest.fixture(autouse=True)
    def probes(self, monkeypatch):
        monkeypatch.setattr(preflight_module, "Probes", PretendProbes)
        monkeypatch.setattr(preflight_module, "available_cores", lambda: 2)
        monkeypatch.setattr(placement_module, "available_cores", lambda: 2)

    @pytest.fixture
    def plan(self, tmp_path, recipe, data):
        recipe()
        return plan_sweep(
            SweepOptions(
                recipe=str(tmp_path / "small.yaml"),
                name="checked",
                gpus=0,
                tracking_uri=f"sqlite:///{tmp_path}/m.db",
                storage=str(tmp_path / "runs"),
                pack=True,
            )
        )

    @pytest.fixture
    def checked(self, monkeypatch):
        """All choices train, as `test_says_what_it_will_cost_and_makes_nothing` has them do."""
        found = preflight_module.DeviceChecks([], StepCost(4, 0.1, 0.1, 2**20, None))
        monkeypatch.setattr(preflight_module, "_checked", lambda *_: found)

    def test_says_what_it_will_cost_and_makes_nothing(self, plan, data, tmp_path, monkeypatch):
        cost = StepCost(4, 0.1, 0.1, 2**20, None)
        monkeypatch.setattr(preflight_module, "measure_step_cost", lambda *_: cost)
        said = []
        before = set(tmp_path.iterdir())
        checked = preflight(plan, data, said.append)
        assert checked.estimated_s > 0
        (measured,) = checked.measured
        best = ComputeSettings("fp32", "contiguous")
        assert settings_for(checked.measured, plan.recipe.base, CPU) == best
        assert measured.at_once == checked.placement.max_concurrent == 2
        assert checked.placement.threads == 1
        # so that a resume runs as many
        assert checked.options.changes["budget.max_concurrent"] == 2
        text = "\n".join(said)
        for words in (
            "measured",
            "per epoch",
            "CPU core hours",
            "at most",
            "on the CPU here",
            "fp32 contiguous: 0.5 s a step (fp32 channels_last 0.6",
            "2 at once with 1 thread on 2 cores",
            "compile none: a trial's 18 steps take 9 s",
        ):
            assert words in text
        assert set(tmp_path.iterdir()) == before

    @pytest.mark.parametrize(("step_s", "images"), [(1.5, 4), (60.0, 2)])
    def test_steps_are_timed_on_whole_batches_unless_they_take_minutes(
        self, plan, data, monkeypatch, step_s, images
    ):
        cost = StepCost(4, step_s, 0.1, 2**20, None)
        monkeypatch.setattr(preflight_module, "measure_step_cost", lambda *_: cost)
        (measured,) = preflight(plan, data, lambda _: None).measured
        assert (measured.images, measured.side_px) == (images, 32)

    @pytest.mark.usefixtures("checked")
    @pytest.mark.parametrize("given", [{"max_concurrent": 1}, {"cpus_per_trial": 1.0}])
    def test_a_given_number_of_trials_at_once_stays(self, plan, data, given):
        budget = plan.recipe.budget.model_copy(update=given)
        plan = replace(plan, recipe=plan.recipe.model_copy(update={"budget": budget}))
        plan = replace(plan, placement=place(budget, 0, None))
        checked = preflight(plan, data, lambda _: None)
        assert checked.placement == plan.placement
        (measured,) = checked.measured
        assert {step.threads for step in measured.steps} == {plan.placement.threads}

    @pytest.mark.usefixtures("checked")
    def test_a_process_that_dies_is_told_and_the_rule_stands(self, plan, data, monkeypatch):
        monkeypatch.setattr(preflight_module, "Probes", LostProbes)
        said = []
        checked = preflight(plan, data, said.append)
        assert checked.measured == ()
        assert checked.placement == plan.placement
        assert said[0] == "settings not measured: a process died; they follow the rule"

    def test_packing_changes_the_placement_and_the_record(self, plan, data, monkeypatch):
        found = preflight_module.DeviceChecks([], StepCost(4, 1.0, 1.0, 20 * GIB, 80 * GIB))
        monkeypatch.setattr(preflight_module, "_checked", lambda *_: found)
        said = []
        packed = preflight(plan, data, said.append)
        assert packed.recipe.budget.gpus_per_trial == pytest.approx(1 / 3)
        assert packed.options.changes["budget.gpus_per_trial"] == pytest.approx(1 / 3)
        assert place(packed.recipe.budget, None, 2).max_concurrent == 6
        assert "could not be measured, so 3 share a GPU" in said[0]

    @pytest.mark.parametrize(
        ("throughput", "share", "told"),
        [
            ({1: 100.0, 2: 150.0, 3: 155.0}, 0.5, "100 (1), 150 (2), 155 (3), so 2 share a GPU"),
            ({1: 100.0, 2: 104.0, 3: 99.0}, 1.0, "100 (1), 104 (2), 99 (3), so 1 shares a GPU"),
        ],
    )
    def test_packing_follows_what_trials_train_together(
        self, plan, data, monkeypatch, throughput, share, told
    ):
        step_cost = StepCost(4, 1.0, 1.0, 20 * GIB, 80 * GIB)
        found = preflight_module.DeviceChecks([], step_cost, throughput=throughput)
        monkeypatch.setattr(preflight_module, "_checked", lambda *_: found)
        said = []
        packed = preflight(plan, data, said.append)
        assert packed.recipe.budget.gpus_per_trial == share
        assert said[0].endswith(
            f"20.0 of 80.0 GiB, up to 3 fit; images a second of so many together: {told}"
        )

    def test_a_micro_batch_that_does_not_fit_is_told_with_one_that_does(
        self, plan, data, monkeypatch
    ):
        found = preflight_module.DeviceChecks(
            ["loss.kind=focal"], StepCost(1, 1.0, 1.0, GIB, 80 * GIB)
        )
        monkeypatch.setattr(preflight_module, "_checked", lambda *_: found)
        said = []
        preflight(plan, data, said.append)
        # The caller writes `preflight: ` before each line.
        assert said[0].startswith("not tried, for lack of time: loss.kind=focal")
        assert "--set accumulation=4" in said[1]

    def test_memory_for_not_even_one_image_is_a_mistake(self, plan, data, monkeypatch):
        def step_cost(*_):
            raise torch.OutOfMemoryError("out of memory")

        monkeypatch.setattr(preflight_module, "measure_step_cost", step_cost)
        with pytest.raises(UserError, match="single crop of 32 px"):
            preflight(plan, data, print)

    def test_a_worker_hands_back_findings_and_mistakes(self, recipe, data):
        configs = {"base": recipe().base}
        broken = recipe({"batch_size": 1}).base  # batch norm refuses one image of 32 px
        with ray_up(Placement(1, 2, 1.0, 1.0, 1, simulated=True)):
            found = check_in_worker(configs, recipe().base, 2, data, "cpu", 1, 1)
            assert found.step_cost.micro_batch == 2
            with pytest.raises(UserError, match="does not train at full size"):
                check_in_worker(configs, broken, 1, data, "cpu", 1, 1)


class TestLateBloomers:
    def test_the_grace_is_a_third_or_lasts_until_trials_can_be_judged(self, recipe):
        assert recipe().grace_epochs == 3
        assert recipe({"schedule.warmup_epochs": 4.5}).grace_epochs == 5
        thawing = {"encoder.freeze": "all", "encoder.thaw_epoch": 5}
        assert recipe(thawing).grace_epochs == 6
        late = {**SMALL["space"], "encoder.thaw_epoch": {"kind": "int", "low": 1, "high": 7}}
        late["encoder.thaw_epoch"]["when"] = {"encoder.freeze": "all"}
        assert recipe(space=late).grace_epochs == 8

    @pytest.mark.parametrize(
        ("changes", "cause"),
        [
            ({"schedule.warmup_epochs": 3}, "the warm-up"),
            ({"schedule.warmup": 0.4}, "the warm-up"),
            ({"encoder.freeze": "all", "encoder.thaw_epoch": 2}, "thaw_epoch"),
            ({"encoder.freeze": "all", "encoder.thaw_epoch": 5}, "thaw_epoch"),
        ],
    )
    def test_a_grace_that_ends_before_that_is_refused(self, recipe, changes, cause):
        with pytest.raises(ConfigError, match=rf"asha.grace_epochs is 2: .*{cause}"):
            recipe({**changes, "asha.grace_epochs": 2})
        assert recipe({**changes, "asha.grace_epochs": 2, "asha.enabled": False})

    def test_brackets_are_of_a_choice_that_exists(self, recipe):
        with pytest.raises(ConfigError, match="Did you mean 'freeze'"):
            recipe({"asha.bracket_by": "encoder.freze"})
        space = {"optimizer.lr": {"kind": "uniform", "low": 0.1, "high": 1}}
        with pytest.raises(ConfigError, match=r"bracket_by: optimizer.lr .*0\.1 to 1"):
            recipe({"asha.bracket_by": "optimizer.lr"}, space=space)

    def test_a_fixed_setting_makes_one_bracket(self, recipe):
        fixed = recipe({"asha.bracket_by": "encoder.freeze", "encoder.freeze": "none"})
        assert fixed.brackets() == ["encoder.freeze=none"]
        assert fixed.bracket({}) == "encoder.freeze=none"


def test_the_preflight_of_the_quickstart_has_all_its_choices():
    found = smoke_configs(load_recipe("quickstart", {}))
    assert len(found) == 9  # the base, and 1 + 2 + 3 + 2 choices that it has not got


NODES = [
    {"Alive": alive, "NodeID": name, "Resources": {"CPU": 8, **resources}}
    for name, alive, resources in [
        ("a", True, {"GPU": 2, "accelerator_type:H100": 1}),
        ("b", True, {"GPU": 1, "accelerator_type:T4": 1}),
        ("c", True, {"GPU": 2, "accelerator_type:H100": 1}),
        ("d", True, {}),
        ("e", False, {"GPU": 1, "accelerator_type:A100": 1}),
    ]
]


class TestKindsOfGpu:
    """A cluster whose nodes have different GPUs."""

    def checks(self, device, settings, gib, step_s):
        measured = Measured(device, "slim", 4, 32, 1, (TimedStep(settings, 1, 2, step_s),))
        cost = StepCost(4, step_s, 0.1, 10 * GIB, gib * GIB)
        return preflight_module.DeviceChecks([], cost, measured=(measured,), node=device)

    def test_one_node_of_each_kind_is_asked(self, monkeypatch):
        monkeypatch.setattr(gpu_tasks.ray, "nodes", lambda: NODES)
        assert gpu_tasks.nodes_by_kind() == ["a", "b"]

    def test_each_has_its_own_choice_and_the_smallest_counts_for_the_estimate(self, monkeypatch):
        bf16 = ComputeSettings("bf16", "channels_last", "reduce-overhead")
        fp16 = ComputeSettings("fp16", "contiguous")
        by_node = {
            "a": self.checks("H100", bf16, 80, 0.1),
            "b": self.checks("T4", fp16, 16, 0.9),
        }
        found = preflight_module.on_every_kind(by_node.__getitem__, list(by_node))
        assert found.step_cost == by_node["b"].step_cost
        assert found.node == "T4"
        for kind, settings in (("H100", bf16), ("T4", fp16)):
            monkeypatch.setattr(measured_module, "device_kind", lambda _, kind=kind: kind)
            config = load_recipe("quickstart", {}).base
            assert settings_for(found.measured, config, CPU) == settings

    def test_a_single_kind_is_checked_in_this_thread(self):
        threads = []

        def check(node):
            threads.append((node, threading.current_thread()))
            return self.checks("H100", ComputeSettings("bf16", "channels_last"), 80, 0.1)

        preflight_module.on_every_kind(check, ["a"])
        assert threads == [("a", threading.main_thread())]
