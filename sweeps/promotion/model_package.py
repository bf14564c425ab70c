"""A trained model as a folder that MLflow loads and serves: safetensors and code, no pickle."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from packaging.version import Version

import unetexp
from unetexp.data.decoded.split_table import DEPTH_STEP
from unetexp.inference.conforming import conform
from unetexp.inference.payloads import read_payload
from unetexp.models.saved_model import CONFIG, WEIGHTS, ModelSpec, read_spec
from unetexp.runtimes.flavors import FOLDER, KEY, PYTORCH
from unetexp.tuning.stored import DIAGRAM, RECORD

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

CARD = "card.md"
# Everything that is imported to load and run a model; `unetexp` itself is packaged with it.
REQUIREMENTS = (
    *("imagecodecs", "mlflow", "numpy", "pillow", "pydantic", "safetensors"),
    *("torch", "torchvision"),
)
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt-cu13"}
EXAMPLE_PX = 64  # the example is stored as text
_PACKAGE = Path(unetexp.__file__).parent


def package(
    source: Path,
    target: Path,
    *,
    run_id: str,
    name: str,
    example: NDArray[Any],
    exports: Mapping[str, Path] = MappingProxyType({}),
    flavor: str = PYTORCH,
) -> None:
    """Write the model in the folder `source` as an MLflow model into `target`, which is created.

    It will be stored in the artifact folder `name` of the run `run_id`.
    `example`, an image (H, W, C) or (H, W), is stored with it, cut to `EXAMPLE_PX`. `exports` are
    files by name, all in one folder, which goes with it; `flavor` is what it is used with. Raises
    CheckpointError where `source` holds no model and UserError where the image does not fit it.
    """
    import mlflow

    spec = read_spec(source)
    parts = [WEIGHTS, CONFIG, *(name for name in (RECORD, DIAGRAM) if (source / name).is_file())]
    artifacts = {name.partition(".")[0]: str(source / name) for name in parts}
    if exports:
        (folder,) = {path.parent for path in exports.values()}
        artifacts[FOLDER] = str(folder)
    mlflow.pyfunc.save_model(
        path=target,
        python_model=_PACKAGE / "inference" / "served_model.py",
        code_paths=[str(_PACKAGE)],
        artifacts=artifacts,
        model_config={KEY: flavor},
        pip_requirements=pinned_requirements(spec, list(exports)),
        signature=_signature(spec),
        input_example=_example(example, spec),
        mlflow_model=mlflow.models.Model(artifact_path=name, run_id=run_id),
    )


def pinned_requirements(spec: ModelSpec, exports: Sequence[str] = ()) -> list[str]:
    """The requirements of a served model, in the versions that are installed here.

    `exports` are the names of those that go with it.
    """
    tuned = spec.postprocessing
    formats = {name.partition("-")[0] for name in exports}
    own = [
        *([] if spec.encoder.kind == "resnet" else ["timm"]),
        *(["scipy"] if tuned is not None and tuned.minimum_px else []),
        *(package for format_, package in RUNTIMES.items() if format_ in formats),
    ]
    versions = {name: Version(importlib.metadata.version(name)) for name in (*REQUIREMENTS, *own)}
    # a local version (2.14.1+cpu) is not on PyPI
    return [f"{name}=={version.public}" for name, version in versions.items()]


def _signature(spec: ModelSpec) -> ModelSignature:
    """Images of any number and size in, label maps out.

    MLflow would check every input against one shape and refuse a list of different sizes. A
    signature marked as from type hints is only shown; the model itself checks its input.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([TensorSpec(_depth(spec), (-1, -1, -1, spec.in_channels))]),
        outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))]),
    )
    signature._is_signature_from_type_hint = True
    return signature


def _example(image: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    """A batch (1, h, w, C): the middle of the image, in the dtype the model was trained on."""
    (pixels,) = read_payload(image, spec).images
    fitting, _ = conform(pixels, spec)
    top, left = (max(0, side - EXAMPLE_PX) // 2 for side in fitting.shape[1:])
    middle = fitting[:, top : top + EXAMPLE_PX, left : left + EXAMPLE_PX].astype(np.int64)
    if (fitting.dtype == np.uint8) != (_depth(spec) == np.uint8):
        middle = middle * DEPTH_STEP if fitting.dtype == np.uint8 else middle // DEPTH_STEP
    return middle.transpose(1, 2, 0)[np.newaxis].astype(_depth(spec))


def _depth(spec: ModelSpec) -> np.dtype[Any]:
    return np.dtype(np.uint8 if spec.image_max <= 255 else np.uint16)
