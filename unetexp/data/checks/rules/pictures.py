"""Findings about pixel values and the sizes of objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unetexp.data.checks.facts import PixelFacts, SampleFacts
from unetexp.data.checks.finding import Finding, Offender, Severity
from unetexp.data.checks.rules.labelling import Labelling
from unetexp.data.checks.rules.labels import have_classes
from unetexp.data.resizing import Resize, working_size
from unetexp.errors import listed

STRIDE_PX = 32  # of the encoder's last features
_SMALL_PX, _TINY_PX = 16, 8  # a U-Net's last feature but one has this stride, and half of it
_OF_SIDE = 1 / 8  # of the image as stored: larger objects of small images only need scaling up
_MOST = 0.5  # share of a class's objects
_WEIGHTY = 0.25  # share of a class's area in them, so that specks do not speak for it
_HOT = 4  # largest value over the robust largest
_UNUSED = 1 / 4  # of the range that is used at most

Numbered = list[tuple[int, SampleFacts, PixelFacts]]


def picture_findings(samples: Sequence[SampleFacts]) -> Iterator[Finding]:
    """Faults in the values of the images."""
    readable = [(i, s, s.pixels) for i, s in enumerate(samples) if s.pixels is not None]
    yield from _constant(readable)
    yield from _hot(readable)
    yield from _range(readable)
    yield from _grey(readable)
    yield from _mixed(readable)


def fill_finding(shares: Mapping[float, float]) -> Iterator[Finding]:
    """Values that the reader takes as no measurement, with their shares of the train pixels."""
    if not shares:
        return
    found = [f"{value:g} ({share:.1%} of the train pixels)" for value, share in shares.items()]
    yield Finding(
        "fill-values",
        Severity.warning,
        f"The images hold {listed(found)}, far from all other values.",
        "It looks like a mark for no measurement. It is left out of the range and read as 0, so "
        "that it does not press all other values together.",
        "State it: "
        f"--set 'data.no_data=[{', '.join(f'{value:.17g}' for value in shares)}]'. If it is a "
        "measurement, say which values are 0 and 1.0: --set 'data.value_range=[LOW, HIGH]'.",
        numbers={f"{value:g}": share for value, share in shares.items()},
    )


def _constant(samples: Numbered) -> Iterator[Finding]:
    found = [(i, s, p) for i, s, p in samples if p.constant]
    if found:
        yield Finding(
            "constant-images",
            Severity.warning,
            f"{len(found)} images hold one value in every pixel: "
            f"{listed([s.label for _, s, _ in found], 3)}.",
            "Nothing can be learnt from them; with a mask that is not empty they teach noise.",
            "Replace them or remove the pairs (--fix DIR leaves them out).",
            files=tuple(s.label for _, s, _ in found),
            numbers={"images": len(found)},
            offenders=tuple(Offender(i, f"{s.name}: {p.low} everywhere") for i, s, p in found),
        )


def _hot(samples: Numbered) -> Iterator[Finding]:
    deep = [(i, s, p) for i, s, p in samples if p.bits > 8]
    if not deep:
        return
    scale = max(p.high for _, _, p in deep)
    usual = max(1, max(p.robust_high for _, _, p in deep))
    if scale < _HOT * usual:
        return
    found = [(i, s, p) for i, s, p in deep if p.high >= _HOT * usual]
    yield Finding(
        "hot-pixels",
        Severity.warning,
        f"A few pixels reach {scale}, while 99.99 % of the pixels of every image are at most "
        f"{usual}: {listed([s.label for _, s, _ in found], 3)}.",
        f"Scaled by the largest value, everything else lies below {usual / scale:.3f}, as good as "
        "black: that cost 0.29 down to 0.04. The reader scales by a robust maximum instead and "
        "cuts off what is above; other tools do not.",
        "Mend the pixels, or say which values are 0 and 1.0: --set 'data.value_range=[LOW, HIGH]'.",
        files=tuple(s.label for _, s, _ in found),
        numbers={"largest": scale, "robust_largest": usual, "images": len(found)},
        offenders=tuple(Offender(i, f"{s.name}: {p.high}") for i, s, p in found),
    )


def _range(samples: Numbered) -> Iterator[Finding]:
    shallow = [p for _, _, p in samples if p.bits == 8 and not p.constant]
    if not shallow:
        return
    lowest, highest = min(p.low for p in shallow), max(p.high for p in shallow)
    if (highest - lowest) / 255 <= _UNUSED:
        yield Finding(
            "unused-range",
            Severity.warning,
            f"The images use only {lowest} to {highest} of 0 to 255.",
            "The network's input hardly varies: pretrained features, made for the full range, say "
            "little. Often the values were cut down from 16 bits.",
            "Export them again with the full range, or keep 16 bits.",
            numbers={"lowest": lowest, "highest": highest},
        )


def _grey(samples: Numbered) -> Iterator[Finding]:
    found = [(i, s, p) for i, s, p in samples if p.grey_as_colour]
    if found:
        every = len(found) == len(samples)
        yield Finding(
            "grey-as-colour",
            Severity.note,
            f"{'All' if every else len(found)} of {len(samples)} images are grey and stored as "
            f"RGB: {listed([s.label for _, s, _ in found], 2)}.",
            "It costs three times the memory and time to read and changes no figure."
            if every
            else "Grey and colour images are mixed: a figure over both hides which of the two is "
            "worse.",
            "Store them as grey, if all are (--fix DIR does)."
            if every
            else "Compare the figures of both kinds (`unetexp evaluate` names the worst images).",
            files=tuple(s.label for _, s, _ in found),
            numbers={"images": len(found), "of": len(samples)},
            offenders=tuple(Offender(i, s.name) for i, s, _ in found[:6]),
        )


def _mixed(samples: Numbered) -> Iterator[Finding]:
    kinds: dict[str, list[str]] = {}
    for _, sample, pixels in samples:
        kinds.setdefault(f"{pixels.shape[0]} channels of {pixels.bits} bits", []).append(
            sample.label
        )
    if len({kind.split()[-2] for kind in kinds}) > 1:
        told = [f"{len(files)} of {kind} (such as {files[0]})" for kind, files in kinds.items()]
        fewest = min(kinds.values(), key=len)
        yield Finding(
            "mixed-depth",
            Severity.warning,
            f"The images are of different depth: {listed(told)}.",
            "8-bit values are spread over the 16-bit range: if the 16-bit images use only a part "
            "of theirs, the two kinds look different to the network.",
            "Store all with the same depth and range.",
            files=tuple(fewest),
            numbers={kind: len(files) for kind, files in kinds.items()},
        )


def object_findings(
    samples: Sequence[SampleFacts], labels: Labelling, resize: Resize | None = None
) -> Iterator[Finding]:
    """Classes of small objects beside the stride, at the working size `resize` (data.resize)."""
    for label, name in enumerate(labels.class_names) if have_classes(labels) else ():
        if label == labels.background:
            continue
        found = _small_objects(samples, labels, label, resize)
        if found is not None:
            yield _small(samples, name, *found, scaled=resize is not None)


def _small_objects(
    samples: Sequence[SampleFacts], labels: Labelling, label: int, resize: Resize | None
) -> tuple[float, float, float, int, list[int]] | None:
    """Median side in pixels, shares below both limits, objects, and where; None: large enough."""
    values, sides, limits, owners = labels.values_of(label), [], [], []
    for number, sample in enumerate(samples):
        if sample.pixels is None:
            continue
        size = sample.pixels.mask_shape
        scale = math.sqrt(math.prod(working_size(resize, *size)) / math.prod(size))
        for value in values:
            areas = sample.pixels.objects.get(value)
            if areas is not None and len(areas):
                sides.append(np.sqrt(areas) * scale)
                limits.append(np.full(len(areas), min(size) * _OF_SIDE))
                owners.append(np.full(len(areas), number))
    if not sides:
        return None
    side, limit, owner = (np.concatenate(each) for each in (sides, limits, owners))
    small = side < np.minimum(_SMALL_PX, limit)
    weight = float((side[small] ** 2).sum() / (side**2).sum())
    if small.mean() < _MOST or weight < _WEIGHTY:
        return None
    tiny = float((side < np.minimum(_TINY_PX, limit)).mean())
    where = np.unique(owner[small], return_counts=True)
    most = where[0][np.argsort(-where[1])][:6].tolist()
    return float(np.median(side)), float(small.mean()), tiny, len(side), most


def _small(
    samples: Sequence[SampleFacts],
    name: str,
    median: float,
    small: float,
    tiny: float,
    count: int,
    most: list[int],
    *,
    scaled: bool,
) -> Finding:
    at = " at the working size" if scaled else ""
    return Finding(
        "small-objects",
        Severity.warning if tiny >= _MOST else Severity.note,
        f"{small:.0%} of the {count} objects (connected pieces) of {name} are smaller than "
        f"{_SMALL_PX} px{at}, "
        f"{tiny:.0%} smaller than {_TINY_PX} px; the median side is {median:.1f} px.",
        f"The encoder's last features have a stride of {STRIDE_PX} px: such an object is less than "
        "half of one feature and is seen by the early, shallow features only; a border that is "
        "wrong by one pixel costs it much of its IoU.",
        "Work at a higher resolution, do not scale the images down, and search encoders that keep "
        "fine features.",
        files=tuple(samples[i].mask_label for i in most),
        numbers={
            "class": name,
            "objects": count,
            "under_16_px": small,
            "under_8_px": tiny,
            "median_px": median,
        },
        offenders=tuple(Offender(i, samples[i].name) for i in most),
    )
