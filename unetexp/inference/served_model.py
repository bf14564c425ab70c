"""The model that MLflow serves, logged as code: this file and safetensors, no pickle.

MLflow runs a copy of this file beside a copy of the package, which
`sweeps/promotion/model_package.py` puts there, in an environment that has only the requirements
stated with the model.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from unetexp.compute.device import pick_device
from unetexp.data.collection import RawImage
from unetexp.inference.conforming import conform
from unetexp.inference.payloads import Answer, Labels, read_payload
from unetexp.inference.predictor import Predictor
from unetexp.models.saved_model import load, read_spec
from unetexp.runtimes.flavors import KEY, file_of_flavor
from unetexp.runtimes.runtime import open_runtime

log = logging.getLogger(__name__)


class ServedModel(PythonModel):
    """Images in, label maps out, on the GPU if there is one."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights, or the exported file that the configuration's `flavor` names.

        `mlflow.pyfunc.load_model(uri, model_config={"flavor": "pytorch"})` takes another than the
        model was promoted with.
        """
        weights = Path(context.artifacts["model"])
        self.spec = read_spec(weights)
        asked = (context.model_config or {}).get(KEY)
        file = file_of_flavor(weights.parent, asked)
        network = load(weights) if file is None else open_runtime(file)
        self.predictor = Predictor(network, self.spec, device=pick_device())

    # The type hint tells MLflow that the model checks its input itself.
    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> Answer:
        """Label maps uint8 of the images' sizes, in the form in which the images came.

        One image (H, W, C) or (H, W): (H, W). A batch (N, H, W, C): (N, H, W). A list of images
        of any sizes: a list. See `payloads.read_payload` for the other forms. Raises UserError,
        a ValueError, for everything else.
        """
        payload = read_payload(model_input, self.spec)
        return payload.answer([self._labels(image) for image in payload.images])

    def _labels(self, image: RawImage) -> Labels:
        fitting, warnings = conform(image, self.spec)
        for warning in warnings:
            log.warning("an image %s", warning)
        return self.predictor.labels(torch.from_numpy(fitting)).numpy()


set_model(ServedModel())
