"""The images of a patient, a video or a site are never in two splits or folds."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unetexp.component import decode
from unetexp.data import DataSource, Folder, open_dataset
from unetexp.data.files.file_sample import FileSample, Listing
from unetexp.data.sources.file_source import FileSource
from unetexp.data.splits.folds import fold_split
from unetexp.data.splits.seeded import seeded_split
from unetexp.errors import ConfigError, DataError


@st.composite
def collections(draw):
    """Names with their groups ("" for some) and classes: at least five groups."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=5, max_size=25))
    groups, classes = {}, {}
    for number, size in enumerate(sizes):
        own = draw(st.sets(st.integers(0, 3)))
        for member in range(size):
            name = f"g{number}_{member}"
            groups[name] = f"g{number}" if size > 1 else ""
            classes[name] = own | draw(st.sets(st.integers(0, 3), max_size=1))
    return groups, classes


def units(groups):
    """The sizes of what is never cut."""
    return list(Counter(group or name for name, group in groups.items()).values())


def uncut(splits, groups):
    where = {}
    for split, members in splits.items():
        for name in members:
            where.setdefault(groups[name] or name, set()).add(split)
    return all(len(found) == 1 for found in where.values())


def pieces(kind, groups, classes, seed):
    if kind == "folds":
        return fold_split(list(groups), 3, seed, classes, groups)
    return seeded_split(list(groups), {"val": 0.25, "test": 0.15}, seed, classes, groups)


@pytest.mark.parametrize("kind", ["splits", "folds"])
@pytest.mark.parametrize("stratified", [True, False])
@given(drawn=collections(), seed=st.integers(0, 3))
def test_every_image_is_in_one_split_and_no_group_is_cut(kind, stratified, drawn, seed):
    groups, classes = drawn
    splits = pieces(kind, groups, classes if stratified else None, seed)
    assert sorted(name for members in splits.values() for name in members) == sorted(groups)
    assert uncut(splits, groups)
    assert all(splits.values())
    backwards = dict(reversed(groups.items()))
    assert splits == pieces(kind, backwards, classes if stratified else None, seed)


@pytest.mark.parametrize("kind", ["splits", "folds"])
@pytest.mark.parametrize("stratified", [True, False])
@given(drawn=collections(), seed=st.integers(0, 3))
def test_sizes_are_near_the_shares(kind, stratified, drawn, seed):
    groups, classes = drawn
    splits = pieces(kind, groups, classes if stratified else None, seed)
    shares = {"val": 0.25, "test": 0.15, "train": 0.6} if kind == "splits" else {}
    for split, members in splits.items():
        due = len(groups) * shares.get(split, 1 / 3)
        assert abs(len(members) - due) <= 2 * max(units(groups))


@given(held=st.lists(st.sets(st.integers(1, 3)), min_size=8, max_size=20), seed=st.integers(0, 3))
def test_a_class_in_enough_groups_is_in_every_fold(held, seed):
    groups = {f"g{n}_{m}": f"g{n}" for n in range(len(held)) for m in range(2)}
    classes = {
        f"g{n}_{m}": {0} | (own if m else set()) for n, own in enumerate(held) for m in (0, 1)
    }
    count = Counter(label for own in held for label in own)
    folds = fold_split(list(groups), 2, seed, classes, groups)
    for label, holders in count.items():
        if holders >= 4:
            assert all(any(label in classes[n] for n in fold) for fold in folds.values())


def test_classes_are_spread_over_groups_better_than_by_a_plain_draw():
    rng = np.random.default_rng(0)
    groups, classes = {}, {}
    for number in range(60):
        own = {k for k in range(1, 6) if rng.random() < 0.1 * k}
        for member in range(rng.integers(2, 8)):
            groups[f"p{number}_{member}"] = f"p{number}"
            classes[f"p{number}_{member}"] = {0} | {k for k in own if rng.random() < 0.7}

    def off(splits):
        found = 0.0
        for label in range(1, 6):
            total = sum(label in held for held in classes.values())
            here = sum(label in classes[name] for name in splits["val"])
            found += abs(here / total - 0.2)
        return found

    plain = [seeded_split(list(groups), {"val": 0.2}, s, None, groups) for s in range(10)]
    spread = [seeded_split(list(groups), {"val": 0.2}, s, classes, groups) for s in range(10)]
    assert sum(map(off, spread)) < sum(map(off, plain)) / 2


def test_a_new_group_moves_few_of_the_others():
    groups = {f"p{p:03d}_{m}": f"p{p:03d}" for p in range(100) for m in range(4)}
    more = groups | {f"new_{m}": "new" for m in range(4)}
    before = seeded_split(list(groups), {"val": 0.2, "test": 0.1}, 0, None, groups)
    after = seeded_split(list(more), {"val": 0.2, "test": 0.1}, 0, None, more)
    moved = sum(len(set(before[split]) - set(after[split])) for split in before)
    assert moved <= 12  # three groups, one at each border


def test_a_group_larger_than_val_is_not_val():
    groups = {f"big_{n}": "big" for n in range(80)} | {f"s{n}": f"s{n}" for n in range(20)}
    for seed in range(10):
        splits = seeded_split(list(groups), {"val": 0.1}, seed, None, groups)
        assert len(splits["val"]) == 10


@pytest.mark.parametrize(
    ("count", "remedy"), [(2, r"data\.test_fraction=0"), (1, r"data\.group_pattern=null")]
)
def test_too_few_groups_are_refused(count, remedy):
    groups = {f"p{p}_{m}": f"p{p}" for p in range(count) for m in range(5)}
    with pytest.raises(DataError, match=rf"{count} groups are too few.*at least 3.*{remedy}"):
        seeded_split(list(groups), {"val": 0.2, "test": 0.2}, 0, None, groups)


def test_fewer_groups_than_folds_are_refused():
    groups = {f"p{p}_{m}": f"p{p}" for p in range(3) for m in range(5)}
    with pytest.raises(DataError, match=r"3 groups are too few for 5 folds.*data\.folds=3"):
        fold_split(list(groups), 5, 0, None, groups)


def write(folder, names, value=1):
    for place in ("images", "masks"):
        (folder / place).mkdir(parents=True)
    for number, name in enumerate(names):
        mask = np.zeros((12, 16), np.uint8)
        mask[:6] = value
        Image.fromarray(np.full((12, 16), 7 * number % 256, np.uint8)).save(
            folder / "images" / f"{name}.png"
        )
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


PATIENTS = [f"patient{p:02d}_slice{s}" for p in range(8) for s in range(3)]


def test_a_pattern_in_the_name_groups(tmp_path):
    root = write(tmp_path / "data", PATIENTS)
    source = Folder(root=str(root), group_pattern=r"^(patient\d+)_", test_fraction=0.2)
    data = open_dataset(source)
    patients = [{name.split("_")[0] for name in split.names} for split in data.splits.values()]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 8
    assert data.split_record["groups"] == 8
    assert data.members()["val"]["groups"] == [n.split("_")[0] for n in data["val"].names]
    whole_match = Folder(root=str(root), group_pattern=r"^patient\d+", test_fraction=0.2)
    assert open_dataset(whole_match).splits["val"].names == data["val"].names


def test_the_pattern_changes_the_fingerprint_and_its_absence_nothing(tmp_path):
    root = str(write(tmp_path / "data", PATIENTS))
    plain, grouped = Folder(root=root), Folder(root=root, group_pattern=r"^(patient\d+)_")
    assert "group_pattern" not in plain.tree()
    assert "folds" not in plain.tree()
    assert open_dataset(plain).fingerprint != open_dataset(grouped).fingerprint
    assert open_dataset(grouped).fingerprint == open_dataset(grouped).fingerprint


def test_a_name_without_a_group_is_an_error_that_shows_what_matched(tmp_path):
    root = write(tmp_path / "data", [*PATIENTS, "extra"])
    with pytest.raises(DataError, match=r"1 of the 25.*: extra.*patient00_slice0 -> patient00"):
        open_dataset(Folder(root=str(root), group_pattern=r"^(patient\d+)_"))


def test_a_broken_pattern_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match="not a regular expression"):
        decode(DataSource, Folder(root=str(tmp_path)).tree() | {"group_pattern": "(patient"})


def test_groups_across_given_splits_are_noted_with_counts(tmp_path):
    root = tmp_path / "data"
    write(root / "train", ["a_1", "a_2", "b_1"])
    write(root / "val", ["a_3", "c_1"])
    notes = open_dataset(Folder(root=str(root), group_pattern="^[a-z]")).notes
    (note,) = [note for note in notes if "groups" in note]
    assert "1 of the 3 groups" in note
    assert "a: 2 in train, 1 in val" in note


def test_settings_of_a_split_that_is_given_are_said_to_do_nothing(tmp_path):
    root = tmp_path / "data"
    write(root / "train", ["a", "b"])
    write(root / "val", ["c"])
    assert not any("effect" in n for n in open_dataset(Folder(root=str(root))).notes)
    notes = open_dataset(Folder(root=str(root), val_fraction=0.4, seed=3)).notes
    (note,) = [note for note in notes if "without effect" in note]
    assert "data.val_fraction (0.4)" in note
    assert "data.seed (3)" in note


def test_a_source_may_know_the_groups_itself(tmp_path):
    root = write(tmp_path / "data", PATIENTS)

    class Column(FileSource):
        def listing(self, on_progress=None):
            samples = [
                FileSample(
                    name,
                    (root / f"images/{name}.png",),
                    root / f"masks/{name}.png",
                    group=name[-1],
                )
                for name in PATIENTS
            ]
            return Listing(root, unsplit=samples, method="seeded")

    data = open_dataset(Column(val_fraction=0.34))
    assert {name[-1] for name in data["train"].names}.isdisjoint(
        name[-1] for name in data["val"].names
    )
