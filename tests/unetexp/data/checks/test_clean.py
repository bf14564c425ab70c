"""The checker is silent on clean data, whatever its sizes, classes, counts and formats."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings

from tests.support.clean_sets import CleanSet, clean_sets
from unetexp.data import Folder
from unetexp.data.checks.checked import check_source

_SPLITS = {"train": 6, "val": 3, "test": 3}


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=clean_sets())
@example(CleanSet(64, 64, 3, _SPLITS, "RGB .png", ".png", 0))
@example(CleanSet(40, 96, 4, {"": 13}, "16-bit .png", "colours .png", 1))
@example(CleanSet(96, 40, 2, _SPLITS, "five bands .tif", "black and white .png", 2))
def test_clean_data_is_passed_in_silence(drawn):
    with tempfile.TemporaryDirectory() as folder:
        checked = check_source(Folder(root=str(drawn.write(Path(folder) / "set"))))
        assert [(each.code, each.title) for each in checked.findings] == []
        assert len(checked.samples) == sum(drawn.splits.values())
        assert len(checked.class_names) == drawn.classes
