"""TorchScript and .pt2 files beyond what every format does: see `test_formats.py`."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from tests.support.exportable import subject_of
from unetexp.errors import ConfigError
from unetexp.export.formats import writer_of
from unetexp.runtimes.runtime import format_module

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def subject():
    return subject_of()


@pytest.fixture(scope="module", params=["torchscript", "pt2"])
def written(request, subject, tmp_path_factory):
    """A format and a file of it, described twice."""
    writer = writer_of(request.param, "fp32")
    path = tmp_path_factory.mktemp("file") / f"model{writer.SUFFIX}"
    writer.write(subject, path)
    for text in ('{"first": 1}', '{"second": 2}'):
        writer.describe(path, text)
    return request.param, path


# One row of the deepest feature, and one pixel, are where exported graphs have taken sizes for
# constants.
@pytest.mark.parametrize("size", [(1, 32, 32), (2, 32, 96), (1, 1, 1)])
def test_the_smallest_images(subject, written, size):
    target, path = written
    batch, height, width = size
    images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))

    found = format_module(target).load_file(path, "cpu", None).run(images.numpy())

    with torch.no_grad():
        np.testing.assert_allclose(found, subject.model(images).numpy(), atol=1e-4)


def test_the_last_description_counts(written):
    target, path = written

    assert format_module(target).load_file(path, "cpu", None).text == '{"second": 2}'


def test_an_archive_names_no_folder_of_this_machine(written):
    with zipfile.ZipFile(written[1]) as archive:
        graphs = [name for name in archive.namelist() if name.endswith((".py", "model.json"))]
        assert graphs
        assert not any(b"/unetexp/" in archive.read(name) for name in graphs)


def test_a_file_keeps_halves(subject, written, tmp_path):
    target, whole = written
    writer = writer_of(target, "fp16")
    path = tmp_path / f"half{writer.SUFFIX}"
    writer.write(subject_of(precision="fp16"), path)

    assert path.stat().st_size < 0.7 * whole.stat().st_size  # the graph itself stays as large


def test_torchscript_has_no_int8_and_says_what_has():
    with pytest.raises(ConfigError, match=r"--to openvino or --to onnx"):
        writer_of("torchscript", "int8")
