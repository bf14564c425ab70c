"""How image files become the channels of a model's input: part of a data set and of its models."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from unetexp.component import Component, Tree

Exif: TypeAlias = Literal["image", "both", "none"]
Pages: TypeAlias = Literal["samples", "channels"]
Missing: TypeAlias = Literal["error", "zeros"]
Band: TypeAlias = Annotated[int, Field(ge=0)]
Range: TypeAlias = tuple[float, float]
Fills: TypeAlias = tuple[float, ...]

FULL_16 = 2**16 - 1


class VolumeForm(Component):
    """How volumes become slices, which are the model's images."""

    axis: Literal["axial", "coronal", "sagittal"] = Field(description="the slices' direction")
    windows: tuple[Range | None, ...] = Field(
        description="what is black and white of each channel; null: percentiles of each volume"
    )
    bits: Literal[8, 16] = Field(description="bits of a pixel")
    spacing_mm: float | None = Field(None, description="millimetres of a pixel; null: as stored")


class InputForm(Component):
    """What is read of each file, and which stored values are 0 and 1.

    With `ranges` the pixels are uint16, round(65535 * (value - low) / (high - low)), clipped: the
    step is 1/65535 of the range.
    """

    bands: tuple[Band, ...] | None = Field(None, description="in the channels' order; null: all")
    exif: Exif = Field("image", description="whether the orientation tag is applied")
    pages: Pages | None = Field(None, description="what the pages of a TIFF are")
    missing: Missing = Field("error", description="what stands for a file that is not there")
    file_channels: tuple[int, ...] = Field(
        (), description="channels of each file of a sample, where several files are its channels"
    )
    ranges: tuple[Range, ...] | None = Field(
        None, description="what is 0 and 1.0, of all channels or of each; null: as stored"
    )
    fills: tuple[Fills, ...] = Field(
        (), description="stored values that mean no measurement: 0, of all channels or of each"
    )
    ceiling: int | None = Field(
        None, ge=1, description="16-bit values above it are set to it; null: none are"
    )
    volumes: VolumeForm | None = Field(
        None, description="how slices are cut from volumes; null: the images are no slices"
    )

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = dump(self)  # earlier versions read what they can do
        return {name: value for name, value in tree.items() if name != "fills" or value}

    def of_channels(self) -> InputForm:
        """The form of arrays that hold the model's channels already, in one piece."""
        ranges, fills = self.ranges, self.fills
        if self.file_channels and self.bands and ranges and len(ranges) > 1:
            ranges = tuple(ranges[band] for band in self.bands)
            fills = tuple(fills[band] for band in self.bands) if fills else ()
        return InputForm(ranges=ranges, fills=fills, ceiling=self.ceiling)

    def changes(self) -> Tree:
        """What it says, where that is other than the default; JSON-safe."""
        default = InputForm().tree()
        return {name: value for name, value in self.tree().items() if value != default.get(name)}


AS_STORED = InputForm()
