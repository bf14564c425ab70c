"""Tests for every source of data, and for windows into it."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.data_folders import write_folder_dataset, write_pets
from tests.support.data_sources import (
    write_camvid_colours,
    write_cityscapes,
    write_coco,
    write_manifest,
    write_nifti,
    write_voc,
)
from unetexp.component import decode, kinds_of
from unetexp.data import (
    Camvid,
    Cityscapes,
    Coco,
    Dataset,
    DataSource,
    Folder,
    Manifest,
    Mni152,
    Nifti,
    OxfordPet,
    Voc2012,
    open_dataset,
)
from unetexp.errors import ConfigError

NUCLEI = Path(os.environ.get("UNETEXP_TEST_DATA", Path(__file__).parents[4] / "shared/data/nuclei"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    split = {"train": 3, "val": 2, "test": 2}
    return {
        "mni152": Mni152(),
        "folder": Folder(root=str(write_folder_dataset(folder / "a", split, void=0.1))),
        "oxford_pet": OxfordPet(root=str(write_pets(folder / "b"))),
        "manifest": Manifest(path=str(write_manifest(folder / "c"))),
        "voc2012": Voc2012(root=str(write_voc(folder / "d"))),
        "cityscapes": Cityscapes(root=str(write_cityscapes(folder / "e"))),
        "camvid": Camvid(root=str(write_camvid_colours(folder / "f"))),
        "coco": Coco(root=str(write_coco(folder / "g"))),
        "nifti": Nifti(root=str(write_nifti(folder / "h")), window="lung"),
    }


def test_every_kind_is_covered(sources):
    assert sorted(sources) == sorted(kinds_of(DataSource))


@pytest.mark.parametrize("kind", kinds_of(DataSource))
def test_every_source_keeps_the_contract(sources, kind):
    source = sources[kind]
    assert decode(DataSource, json.loads(json.dumps(source.tree()))) == source
    data = open_dataset(source)
    assert set(data.splits) >= {"train", "val"}
    assert data.num_classes == len(set(data.class_names)) >= 2
    assert open_dataset(source).summary() == data.summary()
    assert json.loads(json.dumps(data.summary())) == data.summary()
    told = Dataset.of_tree(json.loads(json.dumps(data.tree())))
    assert (told.summary(), told.problems) == (data.summary(), data.problems)
    for passed_on in (pickle.loads(pickle.dumps(data)), told):
        for split in passed_on.splits.values():
            check_split(data, split)


def check_split(data, split):
    counts = np.zeros(256, np.int64)
    samples = list(split)
    assert len(samples) == len(split) == len(split.names) == len(set(split.names))
    for name, shape, sample in zip(split.names, split.shapes, samples, strict=True):
        assert sample.name == name
        assert sample.image.shape == (data.channels, *shape)
        assert sample.image.dtype == (torch.uint8 if data.image_max == 255 else torch.uint16)
        assert (sample.mask.dtype, sample.mask.shape) == (torch.uint8, shape)
        counts += np.bincount(sample.mask.numpy().reshape(-1), minlength=256)
    np.testing.assert_array_equal(split.class_pixels, counts[: data.num_classes])
    assert split.void_pixels == counts[255]
    assert counts.sum() == split.class_pixels.sum() + split.void_pixels


def test_a_summary_tells_counts_sizes_and_balance(sources):
    data = open_dataset(sources["folder"])
    train = data.summary()["splits"]["train"]
    assert (train["images"], train["height_px"], train["width_px"]) == (3, [40, 40], [48, 48])
    assert train["void_fraction"] == pytest.approx(0.1, abs=0.03)
    assert sum(train["class_fractions"].values()) + train["void_fraction"] == pytest.approx(1)


@pytest.fixture(scope="module")
def split(sources):
    return open_dataset(sources["folder"])["train"]


@settings(max_examples=60, deadline=None)
@given(
    top=st.integers(-100, 100),
    left=st.integers(-100, 100),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
)
def test_a_window_is_a_cut_out_of_the_padded_sample(split, top, left, height, width):
    sample, pad = split[1], 200
    image = np.pad(sample.image, ((0, 0), (pad, pad), (pad, pad)))
    mask = np.pad(sample.mask, pad, constant_values=255)
    cut = (slice(top + pad, top + pad + height), slice(left + pad, left + pad + width))
    window_image, window_mask = split.window(1, top, left, height, width)
    np.testing.assert_array_equal(window_image, image[:, *cut])
    np.testing.assert_array_equal(window_mask, mask[cut])


def test_a_sample_is_a_copy_that_may_be_written_to(split):
    before = split[0].image.clone()
    split[0].image.zero_()
    assert (split[0].image == before).all()


def test_indices_count_from_the_end_and_stop_at_it(split):
    assert split[-1].name == split.names[-1]
    for index in (3, -4):
        with pytest.raises(IndexError, match="3 samples"):
            split[index]


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean 'folder'.*mni152, folder, oxford_pet"):
        decode(DataSource, {"kind": "foldr"}, "data")


@pytest.mark.skipif(not NUCLEI.is_dir(), reason="the real images are not here")
def test_real_images_open_at_their_own_sizes():
    data = open_dataset(Folder(root=str(NUCLEI)))
    assert data.class_names == ("background", "nucleus", "boundary")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 120,
        "val": 40,
        "test": 40,
    }
    assert (data.channels, data.image_max, data.notes) == (3, 255, ())
    assert len(set(data["train"].shapes)) > 1
    fractions = data["train"].class_pixels / data["train"].class_pixels.sum()
    np.testing.assert_allclose(fractions, [0.84, 0.13, 0.03], atol=0.02)
