"""Choices by measurement: what is timed, what is chosen, and what a sweep does with it."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import TypeAdapter

from sweeps.execution.trial import not_measured
from sweeps.preflight.choices.combinations import (
    Model,
    affordable,
    describe,
    measure,
    ways_to_share,
)
from sweeps.preflight.step_cost import Size
from unetexp.compute.device import device_kind
from unetexp.compute.measured import (
    Measured,
    TimedStep,
    candidates,
    chosen_by,
    is_free,
    settings_for,
)
from unetexp.compute.settings import ComputeSettings
from unetexp.training.config import decode_config

CPU = torch.device("cpu")
GIB = 2**30
ALL = [
    ComputeSettings(precision, layout)
    for precision in ("fp32", "bf16")
    for layout in ("contiguous", "channels_last")
]
FP32, FP32_LAST, BF16, BF16_LAST = ALL
FULL = Size(96, 8)
SHARES = {1: 2, 2: 1}


class Machine:
    """A pretend one: a step takes `seconds[settings]` on one thread, and its clock runs along."""

    def __init__(self, seconds, second_thread=0.7, noise=()):
        self.seconds, self.second_thread = dict(zip(ALL, seconds, strict=True)), second_thread
        self.noise, self.now, self.ran = list(noise), 0.0, []

    def time_step(self, settings, at_once, threads, size):
        step_s = self.seconds[settings] * size.pixels / FULL.pixels
        step_s *= self.second_thread if threads == 2 else 1
        step_s *= self.noise.pop(0) if self.noise else 1
        self.now += step_s if math.isfinite(step_s) else 1
        self.ran.append((settings, at_once, threads, size))
        return step_s

    def measure(self, candidates=ALL, shares=SHARES, size=FULL, searched=(), **options):
        model = Model("slim", candidates, frozenset(searched))
        found = measure(
            "a CPU", model, shares, size, self.time_step, clock=lambda: self.now, **options
        )
        assert found is None or isinstance(found, Measured)
        return found


def config_of(**changes):
    return decode_config({}, changes)


class TestDecision:
    @pytest.mark.parametrize(
        ("seconds", "best"),
        [
            ((0.76, 0.85, 1.04, 1.20), FP32),  # AVX512-BF16 without AMX
            ((0.76, 0.85, 0.60, 0.38), BF16_LAST),  # with AMX
            ((1.00, 0.98, 50.0, 50.0), FP32_LAST),  # without any bf16 instruction
        ],
    )
    def test_the_fastest_of_the_table_is_chosen(self, seconds, best):
        found = Machine(seconds).measure()
        assert found.fastest(config_of()).settings == best
        assert found.of_choice[0].step_s == min(seconds)

    def test_noise_that_slows_a_step_down_does_not_decide(self):
        # the glance at small crops; then the best way is disturbed twice in its first rounds
        noise = [1.0] * 8 + [1.5, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        found = Machine((0.76, 0.85, 1.0, 1.0), noise=noise).measure()
        assert found.fastest(config_of()).settings == FP32

    def test_an_explicit_setting_is_the_only_candidate(self):
        config = config_of(precision="bf16")
        assert candidates(config, CPU) == [BF16, BF16_LAST]
        both = config_of(precision="fp32", memory_format="contiguous")
        assert candidates(both, CPU) == [FP32]
        assert not is_free(both)
        assert set(candidates(config_of(), CPU)) == set(ALL)

    def test_a_searched_setting_is_timed_for_every_value_and_never_overridden(self):
        machine = Machine((0.5, 0.6, 2.0, 1.5))
        found = machine.measure(searched=["precision"])
        assert found.fastest(config_of(precision="fp32")).settings == FP32
        assert found.fastest(config_of(precision="bf16")).settings == BF16_LAST

    def test_a_hopeless_precision_costs_no_full_step(self):
        machine = Machine((1.0, 1.0, 50.0, 60.0))
        found = machine.measure()
        full = {settings for settings, _, _, size in machine.ran if size == FULL}
        assert full == {FP32, FP32_LAST}
        assert set(found.left_out) == {BF16, BF16_LAST}
        assert "not timed" in describe(found, 2, FULL)[0]

    def test_what_fails_is_left_out_and_nothing_is_chosen_where_all_fails(self):
        found = Machine((math.inf, 0.9, 0.8, math.inf)).measure()
        assert found.fastest(config_of()).settings == BF16
        assert set(found.left_out) == {FP32, BF16_LAST}
        assert Machine([math.inf] * 4).measure() is None

    def test_patience_ends_the_rounds_once_each_way_has_a_figure(self):
        machine = Machine((1.0, 1.0, 1.0, 1.0))
        found = machine.measure(patience_s=0.0)
        assert len(found.steps) == 8
        assert sum(size == FULL for *_, size in machine.ran) == 8


class TestTrialsAtOnce:
    @pytest.mark.parametrize(("second_thread", "at_once"), [(0.7, 2), (0.51, 1), (0.45, 1)])
    def test_more_trials_at_once_only_where_that_gains(self, second_thread, at_once):
        found = Machine((1.0, 1.1, 9.0, 9.0), second_thread).measure()
        assert found.at_once == at_once
        assert {step.at_once for step in found.of_choice} == {at_once}

    def test_what_one_trial_does_beside_its_steps_leaves_cores_to_others(self):
        assert Machine((1.0, 1.1, 9.0, 9.0), 0.48).measure().at_once == 1
        assert Machine((1.0, 1.1, 9.0, 9.0), 0.48).measure(beside_s=0.3).at_once == 2

    def test_they_share_the_cores_and_fit_into_memory(self):
        assert ways_to_share(2, GIB, 8 * GIB, 20) == {1: 2, 2: 1}
        assert ways_to_share(8, GIB, 8 * GIB, 20) == {1: 8, 2: 4, 4: 2}
        assert ways_to_share(8, 3 * GIB, 8 * GIB, 20) == {1: 8, 2: 4}
        assert ways_to_share(8, GIB, 8 * GIB, 1) == {1: 8}
        assert ways_to_share(1, 9 * GIB, 8 * GIB, 20) == {1: 1}


def test_a_slow_step_is_measured_on_fewer_images_then_on_smaller_crops():
    assert affordable(FULL, 0.8, 20, 20) == FULL
    assert affordable(FULL, 1.5, 20, 20) == Size(96, 4)
    assert affordable(Size(512, 8), 60, 20, 20) == Size(128, 2)
    assert affordable(Size(512, 8), 6000, 20, 20) == Size(64, 2)


def test_the_figures_are_told():
    steps = (
        TimedStep(FP32, 2, 1, 0.76),
        TimedStep(FP32_LAST, 2, 1, 0.85),
        TimedStep(FP32, 1, 2, 0.5),
    )
    found = Measured("a CPU", "slim", 8, 96, 2, steps, (BF16, BF16_LAST))
    one, two = describe(found, 2, FULL)
    assert one == (
        "fp32 contiguous: 0.76 s a step (fp32 channels_last 0.85, bf16 contiguous and "
        "bf16 channels_last not timed: far slower on small crops, or failing)"
    )
    assert two == (
        "2 at once with 1 thread on 2 cores: 21.1 images/s of all trials "
        "(1 at once with 2 threads 16)"
    )
    assert "on 8 images of 96 px" in describe(found, 2, Size(512, 8))[0]


class TestOnADevice:
    def of(self, device=None, decoder="slim"):
        return Measured(device or device_kind(CPU), decoder, 8, 96, 1, (TimedStep(BF16, 1, 2, 1),))

    def test_a_run_takes_what_was_measured_on_its_kind_of_device(self):
        assert settings_for([self.of("another CPU"), self.of()], config_of(), CPU) == BF16

    def test_nothing_measured_on_another_kind_or_model_or_setting_serves(self):
        assert settings_for([self.of("another CPU")], config_of(), CPU) is None
        assert settings_for([self.of(decoder="classic")], config_of(), CPU) is None
        assert settings_for([self.of()], config_of(precision="fp32"), CPU) is None

    def test_a_trial_on_a_kind_that_was_not_measured_says_so(self):
        elsewhere = (self.of("another CPU"),)
        (said,) = not_measured(elsewhere, None, config_of(), CPU)
        assert device_kind(CPU) in said
        assert "by rule" in said
        assert "measured: another CPU" in said
        assert not_measured((), None, config_of(), CPU) == []  # no preflight: said once, not here
        assert not_measured((self.of(),), BF16, config_of(), CPU) == []

    def test_what_was_measured_survives_the_manifest(self):
        kept = TypeAdapter(tuple[Measured, ...])
        found = (Machine((1.0, 1.1, 1.2, 9.0)).measure(), self.of())
        assert kept.validate_json(kept.dump_json(found)) == found

    def test_the_record_tells_how_the_settings_were_chosen(self):
        assert chosen_by(config_of(), BF16) == "measurement"
        assert chosen_by(config_of(), None) == "rule"
        fixed = config_of(precision="fp32", memory_format="contiguous")
        assert chosen_by(fixed, None) == "configuration"
