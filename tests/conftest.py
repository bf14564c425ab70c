"""Settings and fixtures for all tests."""

import os

import pytest

# Read when torch and MLflow are imported: several tests run at once, and none sends telemetry.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory):
    """No test writes to the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNETEXP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """No test cuts the power, so none waits until its files are on the disk."""
    from tests.support.databases import quick_databases  # MLflow: not while tests are collected

    with pytest.MonkeyPatch.context() as patch, quick_databases():
        patch.setattr("os.fsync", lambda file: None)
        yield


@pytest.fixture(scope="module")
def one_thread():
    """One thread of torch: what is compared to the bit must not depend on how work is shared."""
    import torch  # not while tests are collected

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
