"""Folders whose masks are stored otherwise: what is read of them, or what a refusal suggests."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from unetexp.component import decode
from unetexp.data import DataSource, open_dataset
from unetexp.errors import DataError
from unetexp.training.config import parse_assignments


def map_masks(root, change, ending=".png", **saving):
    """Replace every mask by what `change` makes of it; returns the masks as they were."""
    before = {}
    for path in sorted(root.glob("*/masks/*")):
        mask = np.asarray(Image.open(path))
        before[path.parent.parent.name, path.stem] = mask
        path.unlink()
        changed = change(mask)
        image = changed if isinstance(changed, Image.Image) else Image.fromarray(changed)
        image.save(path.with_suffix(ending), **saving)
    return before


def opened(root, **fields):
    return open_dataset(decode(DataSource, {"kind": "folder", "root": str(root), **fields}))


def refusal(root, **fields):
    with pytest.raises(DataError) as error:
        opened(root, **fields)
    return str(error.value)


def suggested(message):
    pasted = [shlex.split(part)[1] for part in re.findall(r"--set '[^']*'", message)]
    return [
        {path.removeprefix("data."): value for path, value in parse_assignments([each]).items()}
        for each in pasted
    ]


def assert_masks(data, expected):
    for name, split in data.splits.items():
        for sample in split:
            np.testing.assert_array_equal(sample.mask, expected[name, sample.name])


def said(data):
    return " ".join(data.notes)
