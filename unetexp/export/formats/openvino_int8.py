"""int8 for OpenVINO, by NNCF: weights have a scale for each channel, values one for each layer."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

from unetexp.export.formats import openvino_file
from unetexp.export.formats.openvino_file import SUFFIX, describe, openvino_model
from unetexp.export.subject import Subject
from unetexp.runtimes.installed import required

__all__ = ["SUFFIX", "describe", "require_installed", "write"]


def require_installed() -> None:
    """See `Writer`."""
    openvino_file.require_installed()
    # NNCF looks for a CUDA compiler, which is not needed here, and warns that there is none.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    required("nncf", "openvino", "an export to OpenVINO in int8")


def write(subject: Subject, path: Path) -> None:
    """See `Writer`. The convolution that makes the logits stays in fp32."""
    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    model = openvino_model(subject)
    with contextlib.redirect_stdout(io.StringIO()):  # its bars
        quantised = nncf.quantize(
            model,
            nncf.Dataset(list(subject.calibration)),
            preset=nncf.QuantizationPreset.MIXED,  # values may be of one sign, as after a ReLU
            subset_size=len(subject.calibration),
            ignored_scope=nncf.IgnoredScope(names=[_head(model)]),
        )
    ov.save_model(quantised, path, compress_to_fp16=False)


def _head(model: Any) -> str:
    """The name of the last convolution."""
    names = [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convolution"
    ]
    return str(names[-1])
