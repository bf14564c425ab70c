"""What a model takes and what it says: all that prediction needs besides the network itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from unetexp.component import Component
from unetexp.data.reading.input_form import InputForm
from unetexp.data.resizing import ResizeSetting
from unetexp.postprocessing.settings import NAME, Postprocessing

OPTIONAL = (NAME, "folds", "members")  # fields that are written only where they are set


class Normalization(NamedTuple):
    """Per-channel mean and standard deviation, for images scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class ImageSpec(Component):
    """The images that a model takes, how they become its input, and its classes."""

    class_names: tuple[str, ...] = Field(description="in the order of the logits' channels")
    in_channels: int = Field(ge=1, description="channels of the image")
    image_max: int = Field(ge=1, description="pixel value that is scaled to 1.0")
    input: InputForm | None = Field(
        None, description="how image files are read; null: as they are stored"
    )
    mean: tuple[float, ...] = Field(description="subtracted from images scaled to 0..1")
    std: tuple[float, ...] = Field(description="divided by, after the mean")
    resize: ResizeSetting = Field(
        None, description="how an image is scaled to the working size; predictions are scaled back"
    )

    postprocessing: Postprocessing | None = Field(
        None, description="what is done to probabilities and labels; null: nothing"
    )

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = dump(self)  # earlier versions read what they can do
        return {name: value for name, value in tree.items() if name not in OPTIONAL or value}

    @property
    def normalization(self) -> Normalization:
        return Normalization(mean=self.mean, std=self.std)

    def of_images(self) -> ImageSpec:
        """This alone, without what a subclass adds."""
        return ImageSpec(**{name: getattr(self, name) for name in ImageSpec.model_fields})
