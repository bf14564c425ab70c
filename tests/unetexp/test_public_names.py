"""The public names of the packages, which are imported when they are first used."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("unetexp", "unetexp.data")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package):
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_name_is(package):
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = importlib.import_module(package).nothing


def test_the_package_alone_imports_next_to_nothing():
    command = "import sys, unetexp; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    assert not {b"torch", b"numpy", b"pydantic"} & set(done.stdout.split())
