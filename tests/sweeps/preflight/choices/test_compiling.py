"""Compiling by measurement: tried where a trial could win it back, and chosen where it does."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter

from sweeps.preflight.choices import compiling as compiling_module
from sweeps.preflight.choices.combinations import describe
from sweeps.preflight.choices.compiling import (
    MODES,
    judged_on_cpu,
    judged_on_gpu,
    trial_steps,
    tried,
    without_trying,
)
from sweeps.preflight.choices.probes import ProbeFailedError, ProbeLostError
from sweeps.preflight.gpu_tasks import TaskLostError
from sweeps.preflight.step_cost import Size
from tests.support.data_folders import write_folder_dataset
from tests.support.pretend_probes import PretendProbes
from unetexp.compute.device import device_kind
from unetexp.compute.measured import (
    Compiling,
    Measured,
    TimedStep,
    chosen_by,
    settings_for,
)
from unetexp.compute.settings import ComputeSettings, resolved
from unetexp.data import Folder, open_dataset
from unetexp.training.config import decode_config

CPU = torch.device("cpu")
FP32, BF16 = ComputeSettings("fp32", "channels_last"), ComputeSettings("bf16", "channels_last")
COMPILED = ComputeSettings("fp32", "channels_last", "default")
PAYS = Compiling(1000, 0.3, "default", 0.2, 60.0)
LONG = {"epochs": 1000, "augment.crop_px": 96}
TINY = {
    "encoder": {"name": "resnet18", "weights": "none"},
    "augment": {"crop_px": 32},
    "batch_size": 2,
}


def measured_with(found, device=None, steps=None):
    steps = steps or (TimedStep(FP32, 2, 1, 0.6), TimedStep(BF16, 2, 1, 0.9))
    encoder = config_of().encoder.name
    device = device or device_kind(CPU)
    return Measured(device, "slim", 8, 96, 2, steps, compiling=found, encoder=encoder)


def config_of(**changes):
    return decode_config({}, changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_folder_dataset(root, splits={"train": 4, "val": 2}, size=(40, 48), classes=3)
    return open_dataset(Folder(root=str(root)))


class Machine:
    """A pretend one: the first compiled step takes `compile_s` more; its clock runs along."""

    def __init__(self, eager_s, compiled_s, compile_s):
        self.seconds = {"none": eager_s, **dict(zip(MODES["cuda"], compiled_s, strict=False))}
        self.compile_s, self.now, self.seen = compile_s, 0.0, set()

    def time_step(self, settings):
        step_s = self.seconds[settings.compile]
        if isinstance(step_s, Exception):
            raise step_s
        first = settings.compile != "none" and settings not in self.seen
        self.seen.add(settings)
        self.now += step_s + first * self.compile_s
        return step_s + first * self.compile_s

    def tried(self, steps, modes=MODES["cpu"]):
        return tried(FP32, modes, steps, self.time_step, lambda: self.now)


class TestVerdict:
    def test_seconds_of_compiling_count_against_those_a_whole_trial_gains(self):
        assert Machine(0.3, [0.2], 60).tried(1000).chosen == "default"
        assert Machine(0.3, [0.2], 60).tried(500).chosen == "none"
        assert Machine(0.3, [0.31], 0).tried(10**6).chosen == "none"

    def test_figures_are_told_either_way(self):
        said = Machine(0.3, [0.2], 60).tried(1000).describe()
        assert said == (
            "compile default takes 0.2 s a step instead of 0.3, which saves 100 s in a trial's "
            "1000 steps, and compiles for 60.2 s"
        )
        said = Machine(0.3, [0.4], 60).tried(1000).describe()
        assert said.startswith("compile none: default takes 0.4 s a step instead of 0.3")
        assert "saves nothing" in said

    def test_the_better_mode_is_chosen_with_what_both_have_compiled(self):
        found = Machine(0.3, [0.2, 0.1], 60).tried(2000, MODES["cuda"])
        assert (found.mode, found.chosen) == ("reduce-overhead", "reduce-overhead")
        assert found.compile_s == pytest.approx(120.3)
        assert Machine(0.3, [0.2, 0.19], 60).tried(2000, MODES["cuda"]).chosen == "default"

    def test_a_mode_that_fails_leaves_the_one_before(self):
        broken = RuntimeError("no graph for it")
        assert Machine(0.3, [0.2, broken], 60).tried(2000, MODES["cuda"]).chosen == "default"

    def test_where_it_fails_nothing_is_compiled_and_the_reason_told(self):
        found = Machine(0.3, [ProbeFailedError("no C++ compiler found")], 60).tried(10**6)
        assert found.chosen == "none"
        assert found.describe() == "compile none: it fails here: no C++ compiler found"

    def test_a_trial_too_short_to_win_it_back_is_not_tried(self):
        found = without_trying("cpu", 0.8, 99)  # the quickstart on two cores
        assert found.chosen == "none"
        assert "99 steps take 79.2 s" in found.describe()
        assert "at least 60 s" in found.describe()
        assert without_trying("cpu", 0.8, 99_000) is None

    def test_steps_are_those_of_all_epochs_in_the_measured_size(self):
        config = config_of(**{"epochs": 9, "batch_size": 8, "augment.crop_px": 96})
        assert trial_steps(config, 91, Size(96, 8)) == 99
        assert trial_steps(config, 91, Size(96, 4)) == 198
        assert trial_steps(config, 91, Size(96, 4), devices=2) == 99


class TestOnARun:
    def test_what_pays_is_compiled(self):
        found = [measured_with(PAYS)]
        assert settings_for(found, config_of(), CPU) == COMPILED
        assert resolved(config_of(), CPU, COMPILED).compile == "default"
        assert found[0].best.step_s == pytest.approx(0.4)  # as much faster as alone

    def test_what_does_not_pay_is_not(self):
        found = [measured_with(replace(PAYS, steps=10))]
        assert settings_for(found, config_of(), CPU) == FP32

    @pytest.mark.parametrize("asked", ["none", "default", "reduce-overhead"])
    def test_an_explicit_setting_wins(self, asked):
        config = config_of(compile=asked)
        for verdict in (PAYS, replace(PAYS, steps=10)):
            settings = settings_for([measured_with(verdict)], config, CPU)
            assert resolved(config, CPU, settings) == replace(FP32, compile=asked)

    def test_it_holds_for_the_settings_it_was_measured_with(self):
        config = config_of(precision="bf16")
        assert settings_for([measured_with(PAYS)], config, CPU) == BF16

    def test_each_kind_of_device_has_its_own(self):
        elsewhere = measured_with(replace(PAYS, steps=10), "another GPU")
        assert settings_for([elsewhere, measured_with(PAYS)], config_of(), CPU) == COMPILED

    def test_it_is_kept_for_a_resume(self):
        kept = TypeAdapter(tuple[Measured, ...])
        found = (measured_with(PAYS), measured_with(None))
        assert kept.validate_json(kept.dump_json(found)) == found
        earlier = b'[{"device": "x", "decoder": "slim", "images": 8, "side_px": 96, "at_once": 1,'
        assert kept.validate_json(earlier + b'"steps": []}]')[0].compiling is None

    def test_the_record_tells_how_it_was_chosen(self):
        fixed = config_of(precision="fp32", memory_format="channels_last")
        assert chosen_by(fixed, COMPILED) == "measurement"
        assert chosen_by(fixed, None) == "configuration"
        whole = config_of(precision="fp32", memory_format="channels_last", compile="none")
        assert chosen_by(whole, COMPILED) == "configuration"

    def test_the_verdict_is_among_the_lines(self):
        assert PAYS.describe() in describe(measured_with(PAYS), 2, Size(96, 8))
        assert PAYS.describe() in measured_with(PAYS).describe()


class CompilingFails(PretendProbes):
    def __init__(self, count, environment):
        super().__init__(count, environment)
        assert count == 1
        assert "unetexp-compiled-" in environment["TORCHINDUCTOR_CACHE_DIR"]

    def step_s(self, settings, size, at_once, threads, limit_s):
        assert (size, at_once, threads) == (Size(96, 8), 1, 1)
        assert limit_s <= 120
        if settings.compile != "none":
            raise self.error
        return 1.0


class TestInAProcess:
    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (ProbeLostError("killed"), "had not ended after 120 s"),
            (ProbeFailedError("no compiler"), "it fails here: no compiler"),
        ],
    )
    def test_one_that_hangs_or_fails_is_told(self, data, monkeypatch, error, told):
        monkeypatch.setattr(compiling_module, "Probes", CompilingFails)
        monkeypatch.setattr(CompilingFails, "error", error, raising=False)
        found = judged_on_cpu(measured_with(None), config_of(**LONG), data, {})
        assert found.compiling.chosen == "none"
        assert told in found.compiling.describe()

    def test_none_starts_for_a_short_trial_or_a_given_setting(self, data, monkeypatch):
        monkeypatch.setattr(compiling_module, "Probes", None)
        short = judged_on_cpu(measured_with(None), config_of(epochs=2), data, {})
        assert "at least 60 s" in short.compiling.describe()
        given = config_of(**LONG, compile="none")
        assert judged_on_cpu(measured_with(None), given, data, {}).compiling is None

    @pytest.mark.skipif(
        not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler here"
    )
    @pytest.mark.slow
    def test_a_small_network_is_compiled_in_earnest(self, data, monkeypatch):
        monkeypatch.setitem(compiling_module._LEAST_S, "cpu", 0.0)
        monkeypatch.setattr(compiling_module, "_limit_s", lambda *_: 600.0)
        step = TimedStep(FP32, 1, 1, 0.1)
        tiny = Measured(device_kind(CPU), "slim", 2, 32, 1, (step,))
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
        found = judged_on_cpu(tiny, decode_config(TINY), data, environment).compiling
        assert found.mode == "default", found.describe()
        assert found.compile_s > found.step_s > 0
        assert found.eager_s > 0
        assert found.chosen == "none"  # a trial of some steps does not win it back


class TestOnGpus:
    def judged(self, data, monkeypatch, in_worker, **changes):
        monkeypatch.setattr(compiling_module, "in_worker", in_worker)
        configs = [config_of(**LONG | changes)]
        return judged_on_gpu([measured_with(None, "a GPU")], configs, data, 1, 2, 0, "node")

    def test_it_is_tried_in_a_task_of_its_own_on_the_node(self, data, monkeypatch):
        def in_worker(work, *arguments, limit_s, node):
            assert node == "node"
            assert math.isfinite(limit_s)
            return PAYS

        (found,) = self.judged(data, monkeypatch, in_worker)
        assert found.compiling == PAYS
        assert found.best.settings == COMPILED

    def test_a_task_that_hangs_is_told(self, data, monkeypatch):
        def in_worker(*_, **__):
            raise TaskLostError("GetTimeoutError")

        (found,) = self.judged(data, monkeypatch, in_worker)
        assert "had not ended" in found.compiling.describe()

    def test_short_trials_and_given_settings_start_none(self, data, monkeypatch):
        (short,) = self.judged(data, monkeypatch, None, epochs=1)
        assert "at least 20 s" in short.compiling.describe()
        (given,) = self.judged(data, monkeypatch, None, compile="default")
        assert given.compiling is None
