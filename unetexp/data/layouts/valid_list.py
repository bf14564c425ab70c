"""valid.txt beside codes.txt, as fastai's sets have it: the images of the val split, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unetexp.data.files.file_sample import FileSample
from unetexp.errors import DataError, listed

FILE = "valid.txt"


def divided(root: Path, samples: Sequence[FileSample]) -> dict[str, list[FileSample]] | None:
    """Train and val as the list in `root` says; None where there is none. Raises DataError."""
    path = root / FILE
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: this list cannot be read as UTF-8 text: {error}") from None
    wanted = {Path(line.strip().replace("\\", "/")).stem for line in lines if line.strip()}
    val = [each for each in samples if each.image.stem in wanted]
    unknown = sorted(wanted - {each.image.stem for each in val})
    if unknown or not val or len(val) == len(samples):
        fault = f"there is no image {listed(unknown)}" if unknown else f"it names {len(val)}"
        raise DataError(
            f"{path}: this list names the images of the val split, one a line, and of the "
            f"{len(samples)} images here {fault}. Correct it, or remove it to have val drawn."
        )
    return {"train": [each for each in samples if each not in val], "val": val}
