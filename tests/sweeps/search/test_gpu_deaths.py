"""Two deaths condemn a GPU, unless they tell more of a trial than of the GPU."""

from __future__ import annotations

from sweeps.search.gpu_deaths import Gpu, GpuDeaths

ILLEGAL = "CUDA error: an illegal memory access was encountered"
ECC = "CUDA error: uncorrectable ECC error encountered"
ONE, TWO = Gpu("0", "10.0.0.1", "ab12"), Gpu("1", "10.0.0.1", "ab12")


def test_a_gpu_is_found_again_in_a_text_that_names_it():
    assert Gpu.named_in(f"Traceback ... {TWO} failed, then {ONE} failed: ...") == ONE
    assert Gpu.named_in("GPU 0 is not named so") is None


def test_the_second_fault_condemns():
    deaths = GpuDeaths()
    assert not deaths.died(ONE, "0", ECC, fault=True, last=False)
    assert not deaths.died(TWO, "1", ECC, fault=True, last=False)
    assert deaths.died(ONE, "0", ECC, fault=True, last=False)
    assert deaths.condemned == {ONE: ECC}
    assert not deaths.died(ONE, "0", ECC, fault=True, last=False)  # once is enough


def test_a_crash_before_an_epoch_that_ended_does_not_count():
    deaths = GpuDeaths()
    for _ in range(3):
        assert not deaths.died(ONE, "0", "", fault=False, last=False)
        deaths.worked(ONE)
    assert not deaths.died(ONE, "0", "", fault=False, last=False)
    assert deaths.died(ONE, "0", "", fault=False, last=False)


def test_a_fault_counts_whatever_worked_since():
    deaths = GpuDeaths()
    deaths.died(ONE, "0", ECC, fault=True, last=False)
    deaths.worked(ONE)
    assert deaths.died(ONE, "1", ECC, fault=True, last=False)


def test_one_trial_costs_one_gpu_at_most():
    deaths = GpuDeaths()
    for gpu in (ONE, ONE, TWO, TWO):
        deaths.died(gpu, "bad", ILLEGAL, fault=True, last=False)
    assert list(deaths.condemned) == [ONE]
    assert deaths.died(TWO, "other", ILLEGAL, fault=True, last=False)


def test_the_last_gpu_is_not_condemned_for_one_trial():
    deaths = GpuDeaths()
    for _ in range(4):
        assert not deaths.died(ONE, "bad", ILLEGAL, fault=True, last=True)
    assert deaths.died(ONE, "other", ILLEGAL, fault=True, last=True)
