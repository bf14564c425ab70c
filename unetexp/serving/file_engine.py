"""An exported file that is served in its runtime."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

from unetexp.data.collection import RawImage
from unetexp.inference.file_predictor import FilePredictor
from unetexp.runtimes.runtime import open_runtime
from unetexp.serving.engine import Prediction


def file_engine(path: Path, name: str, device: str, threads: int | None) -> FileEngine:
    """The engine of an exported file, by its `name`. Raises UserError."""
    return FileEngine(name, FilePredictor(open_runtime(path, device, threads=threads)))


class FileEngine:
    """See `Engine`."""

    def __init__(self, name: str, predictor: FilePredictor) -> None:
        self.name, self._predictor = name, predictor
        self.spec = predictor.spec
        runtime = predictor.runtime
        self.runtime = f"{runtime.name}, {runtime.description.precision}, on {runtime.device}"

    def group(self, image: RawImage) -> Hashable:
        """See `Engine`."""
        return self._predictor.padded_size(image)

    def predict(
        self, images: Sequence[RawImage], probabilities: Sequence[bool]
    ) -> list[Prediction]:
        """See `Engine`."""
        if not any(probabilities):
            return [Prediction(labels, None) for labels in self._predictor.labels(images)]
        found = self._predictor.probabilities(images)
        return [
            Prediction(self._predictor.labels_of(each), each if wanted else None)
            for each, wanted in zip(found, probabilities, strict=True)
        ]
