"""Training on the validation images too: what changes in the data, and what is kept."""

from __future__ import annotations

import pytest
import torch

from tests.support.data_folders import write_folder_dataset
from tests.support.small_config import config_with
from unetexp.data import Dataset, Folder, Mni152, open_dataset
from unetexp.data.checks.quick import quick_check
from unetexp.errors import DataError
from unetexp.training.loop import fit
from unetexp.training.state import TrainState


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    return str(write_folder_dataset(place, {"train": 4, "val": 2, "test": 2}, (32, 40), 3))


@pytest.fixture(scope="module")
def both(root):
    return open_dataset(Folder(root=root, train_with_val=True))


def test_val_is_in_train_and_the_set_is_the_same(root, both):
    apart = open_dataset(Folder(root=root))
    assert both["train"].names == (*apart["train"].names, *apart["val"].names)
    assert both["val"].names == apart["val"].names
    assert both["test"].names == apart["test"].names
    assert both.fingerprint == apart.fingerprint
    assert (both.val_in_train, apart.val_in_train) == (True, False)
    assert any("images that the model has seen" in note for note in both.notes)
    assert not quick_check(both)  # its splits share images on purpose
    for index in range(2):
        assert torch.equal(both["train"][4 + index].image, apart["val"][index].image)
    expected = apart["train"].class_pixels + apart["val"].class_pixels
    assert both["train"].class_pixels.tolist() == expected.tolist()


def test_another_process_gets_the_same(both):
    again = Dataset.of_tree(both.tree())
    assert again.val_in_train
    assert again["train"].names == both["train"].names


def test_the_embedded_set_can_too():
    apart, both = open_dataset(Mni152()), open_dataset(Mni152(train_with_val=True))
    assert len(both["train"]) == len(apart["train"]) + len(apart["val"])


def test_a_record_without_it_is_as_before(root):
    assert "train_with_val" not in Folder(root=root).tree()


def test_folds_have_no_val_split(tmp_path):
    data = write_folder_dataset(tmp_path / "data", {"": 6}, (32, 40))
    with pytest.raises(DataError, match="2 folds and no val split"):
        open_dataset(Folder(root=str(data), folds=2, train_with_val=True))


def test_the_last_epoch_is_the_one_that_is_kept(both):
    """A learning rate far too high makes the scores jump."""
    config = config_with(epochs=3, **{"optimizer.lr": 1.0, "clip_norm": None})
    state = TrainState(config, both, torch.device("cpu"))
    assert [report.improved for report in fit(config, both, state)] == [True] * 3
    assert state.best_epoch == 3
