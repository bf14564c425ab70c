"""Named sets of augmentation: the values of a preset for the fields that are not set themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Preset = Literal["none", "light", "medium", "strong", "medical"]

_NOTHING: Mapping[str, float] = {
    "zoom_min": 1.0,
    "zoom_max": 1.0,
    "hflip": 0.0,
    "vflip": 0.0,
    "rotation_deg": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "effect_probability": 0.0,
    "elastic": 0.0,
    "gamma": 0.0,
    "blur_px": 0.0,
    "low_resolution": 1.0,
    "noise": 0.0,
}

PRESETS: Mapping[str, Mapping[str, float]] = {
    "none": _NOTHING,
    # The article's: crop, flip, rotation, colour. These are also the fields' defaults.
    "light": {
        **_NOTHING,
        "zoom_min": 0.8,
        "zoom_max": 1.25,
        "hflip": 0.5,
        "rotation_deg": 10.0,
        "brightness": 0.2,
        "contrast": 0.2,
    },
    "medium": {
        **_NOTHING,
        "zoom_min": 0.7,
        "zoom_max": 1.4,
        "hflip": 0.5,
        "rotation_deg": 20.0,
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.3,
        "effect_probability": 0.2,
        "gamma": 0.3,
        "blur_px": 1.0,
        "noise": 0.03,
    },
    "strong": {
        **_NOTHING,
        "zoom_min": 0.5,
        "zoom_max": 2.0,
        "hflip": 0.5,
        "rotation_deg": 45.0,
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.5,
        "effect_probability": 0.3,
        "elastic": 0.04,
        "gamma": 0.5,
        "blur_px": 1.5,
        "low_resolution": 3.0,
        "noise": 0.06,
    },
    # As nnU-Net (Isensee et al., 2021): its ranges of zoom, mirrors, brightness, contrast, gamma,
    # blur and low resolution; its rotation in 3D, and elastic deformation as in its first version.
    "medical": {
        **_NOTHING,
        "zoom_min": 0.7,
        "zoom_max": 1.4,
        "hflip": 0.5,
        "vflip": 0.5,
        "rotation_deg": 30.0,
        "brightness": 0.25,
        "contrast": 0.25,
        "effect_probability": 0.2,
        "elastic": 0.05,
        "gamma": 0.5,
        "blur_px": 1.0,
        "low_resolution": 2.0,
        "noise": 0.05,
    },
}


def filled(given: Mapping[str, object]) -> dict[str, object]:
    """Fields with those of their preset below them; an unknown preset adds nothing."""
    preset = given.get("preset", "light")
    values = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    return {**values, **given}


def forget_preset(tree: dict[str, object]) -> None:
    """Remove from a whole tree what its preset has filled in, so that another one can."""
    for name, value in filled({"preset": tree.get("preset", "light")}).items():
        if name != "preset" and tree.get(name) == value:
            del tree[name]
