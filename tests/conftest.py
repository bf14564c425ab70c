"""What holds for all tests."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory):
    """No test writes to the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNETEXP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
