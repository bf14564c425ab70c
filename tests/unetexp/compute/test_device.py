"""GPUs that torch has no code for, and drivers it cannot use, are told before anything is made."""

from __future__ import annotations

import pytest
import torch

from sweeps.driver import prepare as prepare_module
from sweeps.driver.plan import SweepOptions, plan_sweep
from unetexp.compute import device as device_module
from unetexp.compute.device import pick_device, require_usable_gpus
from unetexp.errors import ConfigError, UserError

WHEELS = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU "
    "driver by downloading and installing a new version\nmore"
)


@pytest.fixture
def gpus(monkeypatch):
    """A machine with GPUs of these compute capabilities and a torch built for these."""

    def have(*capabilities, built_for=WHEELS):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: capabilities[i])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"Card {i}")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)

    return have


@pytest.fixture
def no_cuda(monkeypatch):
    """A machine on which CUDA does not start, for this reason."""

    def fails(reason, cuda="13.0"):
        def init():
            raise RuntimeError(reason)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.setattr(torch.version, "cuda", cuda)

    return fails


@pytest.fixture
def options(tmp_path):
    def make(**asked):
        places = {"tracking_uri": f"sqlite:///{tmp_path}/m.db", "storage": f"{tmp_path}/runs"}
        return SweepOptions(**places, **asked)

    return make


@pytest.mark.parametrize(
    ("capability", "built_for"),
    [
        ((7, 5), WHEELS),
        ((8, 9), WHEELS),  # runs code for 8.6
        ((10, 3), WHEELS),
        ((12, 1), WHEELS),
        ((9, 0), ["sm_90a"]),
        ((9, 0), ["sm_80", "compute_80"]),  # compiled as it is loaded
        ((9, 4), ["gfx942"]),  # ROCm
    ],
)
def test_a_gpu_that_torch_has_code_for(gpus, capability, built_for):
    gpus(capability, built_for=built_for)
    require_usable_gpus()
    assert pick_device("auto").type == "cuda"


@pytest.mark.parametrize(
    ("capability", "built_for"),
    [((7, 0), WHEELS), ((6, 1), WHEELS), ((8, 0), ["sm_86"]), ((9, 3), ["sm_90a"])],
)
def test_one_that_it_has_none_for_is_told_with_what_there_is(gpus, capability, built_for):
    gpus((8, 0), capability, built_for=[*built_for, "sm_80"] if capability[0] < 8 else built_for)
    major, minor = capability
    with pytest.raises(UserError) as told:
        pick_device("cuda:1")
    for words in ("GPU 1, Card 1", f"{major}.{minor}", built_for[0], "CUDA_VISIBLE_DEVICES"):
        assert words in str(told.value)


def test_a_sweep_finds_it_before_anything_is_made(gpus, options, tmp_path):
    gpus((9, 0), (7, 0))
    for asked in ({}, {"gpus": 1}):
        with pytest.raises(UserError, match=r"Card 1, has compute capability 7\.0.*--gpus 0"):
            plan_sweep(options(**asked))
    assert plan_sweep(options(gpus=0)).placement.device == "cpu"
    assert plan_sweep(options(simulate_gpus=2)).placement.device == "cpu"
    assert not list(tmp_path.iterdir())


def test_a_driver_that_is_too_old_is_told(no_cuda, options):
    no_cuda(TOO_OLD)
    for call in (pick_device, lambda: pick_device("cuda"), lambda: plan_sweep(options())):
        with pytest.raises(UserError, match=r"found version 12020.*CUDA 13\.0.*580.*--gpus 0"):
            call()
    assert pick_device("cpu").type == "cpu"
    assert plan_sweep(options(gpus=0)).placement.device == "cpu"


@pytest.mark.parametrize(
    ("reason", "cuda"),
    [
        ("Found no NVIDIA driver on your system. Please check", "13.0"),
        ("No CUDA GPUs are available", "13.0"),
        (TOO_OLD, None),  # a build for the CPU
    ],
)
def test_a_machine_without_gpus_is_no_mistake(no_cuda, options, reason, cuda):
    no_cuda(reason, cuda)
    assert pick_device().type == "cpu"
    assert plan_sweep(options()).placement.device == "cpu"


@pytest.mark.parametrize("asked", [{}, {"gpus": 0}])
def test_a_driver_whose_gpus_are_not_to_be_seen_is_said(
    no_cuda, options, asked, tmp_path, monkeypatch
):
    no_cuda("Found no NVIDIA driver on your system")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "version").touch()
    monkeypatch.setattr(device_module, "_DRIVER", tmp_path / "version")
    plan = plan_sweep(options(changes={"encoder.weights": "none"}, **asked))
    said = " ".join(prepare_module.prepare(plan).warnings)
    assert ("there is an NVIDIA driver here" in said) == (not asked)


@pytest.mark.parametrize("name", ["gpu", "meta", "mps", "cuda:", "cuda:x", "CPU", ""])
def test_a_device_of_another_name_is_refused(name):
    with pytest.raises(ConfigError, match="is not a choice"):
        pick_device(name)


def test_a_gpu_beyond_those_there_are_is_refused(gpus):
    gpus((9, 0), (9, 0))
    assert pick_device("cuda:1").index == 1
    with pytest.raises(ConfigError, match=r"2 GPUs. Use cuda:0 to cuda:1"):
        pick_device("cuda:2")


def test_threads_are_within_the_cores_there_are(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(device_module, "available_cores", lambda: 1)
    device_module.limit_threads()
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
