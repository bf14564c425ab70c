"""What is found before a sweep's first trial, and what a sweep that was started may go on with."""

import pytest

from sweeps.driver.plan import SweepOptions, plan_sweep
from sweeps.driver.prepare import prepare
from tests.support.data_folders import write_folder_dataset
from unetexp.errors import ConfigError, DataError


def test_data_that_val_cannot_measure_starts_no_sweep_but_ends_none(tmp_path):
    root = write_folder_dataset(tmp_path / "data", {"train": 2}, classes=3)
    write_folder_dataset(root, {"val": 2}, classes=2)
    options = SweepOptions(
        "folder",
        {"encoder.weights": "none"},
        data=str(root),
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        storage=str(tmp_path / "runs"),
    )
    plan = plan_sweep(options)
    with pytest.raises(DataError, match="no mask of the val split holds the class 2"):
        prepare(plan)
    resumed = prepare(plan, started=True)
    assert any("no mask of the val split" in warning for warning in resumed.warnings)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("val/iou/nucleu", "'nucleu' is not a choice. Did you mean 'nucleus'"),
        (["val/miou", "val/dice/9"], "'9' is not a choice"),
    ],
)
def test_the_objective_of_an_unknown_class_starts_no_sweep(tmp_path, objective, message):
    names = ("back", "nucleus")
    splits = {"train": 2, "val": 2}
    root = write_folder_dataset(tmp_path / "data", splits, classes=2, class_names=names)
    options = SweepOptions(
        "folder",
        {"encoder.weights": "none", "objective": objective},
        data=str(root),
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        storage=str(tmp_path / "runs"),
    )
    with pytest.raises(ConfigError, match=message):
        prepare(plan_sweep(options))
