"""What all sources share: the working size, and that only fields that are set are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from unetexp.component import Component
from unetexp.data.resizing import ResizeSetting


class ResizedSource(Component):
    """A source whose images may be scaled to a working size, and all trained on but test."""

    first_fields: ClassVar[tuple[str, ...]] = ("kind",)
    """Fields that are always recorded; the others where they are set, so that a record that an
    earlier version made stays the same and its sweep can resume."""

    resize: ResizeSetting = Field(
        None,
        description="the working size: the longest side in pixels (smaller images stay as they "
        "are), [height, width], or {scale: 0.25}. Images are scaled once, in the cache, by "
        "averaging areas; predictions are scaled back, and metrics are those of the images' own "
        "size; null: the images' own size",
    )
    train_with_val: bool = Field(
        False,
        description="train on the validation images too, with a number of epochs that was chosen "
        "before: nothing is left to choose by, so the last epoch is kept, and `val/...` is of "
        "images that the model has seen",
    )

    def spacings_mm(self, names: Sequence[str]) -> Mapping[str, tuple[float, float]] | None:
        """Height and width of a pixel of each image, in millimetres; None where they are unknown.

        Of the images' own size, before they are scaled to the working size.
        """
        return None

    @model_serializer(mode="wrap")
    def _without_unset_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = dump(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in tree.items()
            if name in self.first_fields or getattr(self, name) != fields[name].default
        }
