"""Findings about files: unreadable, without partner, of unequal sizes, turned by a tag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unetexp.data.checks.examine import REFUSED_IMAGE, TRUNCATED, TURNED, UNREADABLE
from unetexp.data.checks.facts import SampleFacts
from unetexp.data.checks.finding import Finding, Offender, Severity
from unetexp.errors import listed

_STOPS = "The reader stops at the first such file, so that nothing can be trained on the set."
_TITLES = {
    UNREADABLE: ("cannot be read as an image", _STOPS, "Replace it, or remove it with its partner"),
    TRUNCATED: (
        "is empty or ends too early",
        f"{_STOPS} Other tools fill the missing part with grey, which is learnt as a class.",
        "Copy it again from its source, or remove it with its partner",
    ),
    TURNED: (
        "fits the image as stored, which its EXIF tag turns",
        f"{_STOPS} Read turned, the masks would lie beside the objects.",
        "Read both as stored, --set data.exif=none, or turn both, --set data.exif=both",
    ),
    REFUSED_IMAGE: ("is an image that is not read as it is", _STOPS, "See the message"),
}


def file_findings(samples: Sequence[SampleFacts]) -> Iterator[Finding]:
    """Faults of single files."""
    for code, (title, why, mend) in _TITLES.items():
        found = [sample for sample in samples if sample.fault == code]
        if found:
            yield Finding(
                code,
                Severity.error,
                f"{_counted(len(found), 'file')} {title}: {listed(_fault_names(found), 3)}.",
                why,
                f"{mend}. The first message: {found[0].message}",
                files=tuple(_fault_names(found)),
                numbers={"files": len(found)},
            )
    yield from _unequal_sizes(samples)
    yield from _turned(samples)


def alpha_finding(samples: Sequence[SampleFacts], dropped: Mapping[str, int]) -> list[Finding]:
    """Bands that are left out as alpha though they hold more; `dropped` has the bands by name."""
    found = [(i, s) for i, s in enumerate(samples) if s.name in dropped]
    if not found:
        return []
    bands = list(range(max(dropped.values())))
    return [
        Finding(
            "band-marked-as-alpha",
            Severity.warning,
            f"{_counted(len(found), 'image')} with a band that is marked as alpha (transparency) "
            f"and whose values vary: {listed([s.label for _, s in found], 3)}.",
            "It is taken for transparency and left out. Where it is near infrared or another "
            "measurement, the model never sees it: one such set scored 0.42 for 0.99.",
            f"If it is a band: --set 'data.bands={bands}' reads all. If it is transparency: "
            f"--set 'data.bands={bands[:-1]}' says so.",
            files=tuple(s.label for _, s in found),
            numbers={"images": len(found), "bands": len(bands)},
            offenders=tuple(Offender(i, s.name) for i, s in found),
        )
    ]


def unpaired_finding(images: Sequence[str], masks: Sequence[str], message: str) -> Finding:
    """Files without a partner."""
    return Finding(
        "unpaired",
        Severity.error,
        f"{_counted(len(images), 'image')} without a mask and {_counted(len(masks), 'mask')} "
        f"without an image: {listed([*images, *masks], 4)}.",
        "The reader stops. Were these left out, whatever is special about them would be missing "
        "from training and from the figures.",
        "Give image and mask the same name except for the extension, or remove what has no "
        f"partner. The reader says: {message}",
        files=(*images, *masks),
        numbers={"images": len(images), "masks": len(masks)},
    )


def _fault_names(samples: Sequence[SampleFacts]) -> list[str]:
    return [str(sample.fault_file) for sample in samples]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _unequal_sizes(samples: Sequence[SampleFacts]) -> Iterator[Finding]:
    found = [
        (i, s) for i, s in enumerate(samples) if s.pixels is not None and not s.pixels.sizes_agree
    ]
    if not found:
        return
    turned = [s for _, s in found if s.pixels and s.pixels.shape[:0:-1] == s.pixels.mask_shape]
    tagged = [s for s in turned if s.orientation != 1]
    mend = "Make the mask as large as the image, by nearest neighbour."
    if tagged:
        mend = (
            f"{len(tagged)} of the images have an EXIF orientation tag that turns them, and the "
            "masks fit the raw frame: turn these masks, or store the pixels upright without the "
            "tag (--fix does)."
        )
    elif turned:
        mend = f"{len(turned)} masks have height and width exchanged: turn them. Else: {mend}"
    yield Finding(
        "size-mismatch",
        Severity.error,
        f"{_counted(len(found), 'mask')} of another size than the image: "
        f"{listed([_sizes(s) for _, s in found], 3)}.",
        "Which pixel a label belongs to is not known; a reader that scales or cuts would teach "
        "shifted masks.",
        mend,
        files=tuple(str(s.mask) for _, s in found),
        numbers={"masks": len(found), "turned": len(turned), "exif": len(tagged)},
        offenders=tuple(Offender(i, _sizes(s)) for i, s in found),
    )


def _sizes(sample: SampleFacts) -> str:
    assert sample.pixels is not None
    (_, height, width), (mask_height, mask_width) = sample.pixels.shape, sample.pixels.mask_shape
    return f"{sample.name}: image {height} x {width}, mask {mask_height} x {mask_width}"


def _turned(samples: Sequence[SampleFacts]) -> Iterator[Finding]:
    found = [(i, s) for i, s in enumerate(samples) if s.orientation != 1]
    if not found:
        return
    tags = np.unique([s.orientation for _, s in found]).tolist()
    yield Finding(
        "exif-orientation",
        Severity.warning,
        f"{_counted(len(found), 'image')} with an EXIF orientation tag ({listed(tags)}): "
        f"{listed([s.label for _, s in found], 3)}.",
        "The image is turned upright as it is read. A mask that was drawn on the raw frame then "
        "lies wrong, even where the sizes agree; one such set scored 0.30 for 0.98.",
        "Look at the pictures: the outlines must lie on the objects. If they do, --fix DIR stores "
        "the pixels upright without the tag; if not, turn the masks in the same way.",
        files=tuple(s.label for _, s in found),
        numbers={"images": len(found), "tags": tags},
        offenders=tuple(Offender(i, f"{s.name}: tag {s.orientation}") for i, s in found),
    )
