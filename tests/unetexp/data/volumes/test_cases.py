"""Which NIfTI files are cases, in the layouts of public sets. Only names are read."""

import pytest

from unetexp.data import Nifti
from unetexp.data.volumes.cases import find_cases, looks_like_volumes
from unetexp.errors import DataError


def touch(root, *names, end=".nii.gz"):
    for name in names:
        path = root / f"{name}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(root):
    """The cases of each split: label, volumes, group."""
    return {
        split: {
            case.name: (
                [path.relative_to(root).as_posix() for path in case.images],
                case.label.relative_to(root).as_posix(),
                case.group,
            )
            for case in cases
        }
        for split, cases in find_cases(root).items()
    }


def numbered(form, *files):
    """The files of two cases."""
    return [f"{form.format(n)}{file}" for n in (0, 1) for file in files]


LAYOUTS = {  # files, and the second case as it must be understood
    "KiTS": (
        numbered("case_0000{}/", "imaging", "segmentation"),
        ("case_00001", ["case_00001/imaging.nii.gz"], "case_00001/segmentation.nii.gz"),
    ),
    "KiTS 2023": (
        numbered(
            "case_0000{}/", "imaging", "segmentation", "instances/kidney_instance-1_annotation-1"
        ),
        ("case_00001", ["case_00001/imaging.nii.gz"], "case_00001/segmentation.nii.gz"),
    ),
    "KiTS 2021": (
        numbered("case_0000{}/", "imaging", "segmentation", "aggregated_MAJ_seg"),
        ("case_00001", ["case_00001/imaging.nii.gz"], "case_00001/segmentation.nii.gz"),
    ),
    "ct and seg": (numbered("p{}/", "ct", "seg"), ("p1", ["p1/ct.nii.gz"], "p1/seg.nii.gz")),
    "ct and mask": (numbered("p{}/", "ct", "mask"), ("p1", ["p1/ct.nii.gz"], "p1/mask.nii.gz")),
    "CT and Label": (
        numbered("p{}/", "CT", "Label"),
        ("p1", ["p1/CT.nii.gz"], "p1/Label.nii.gz"),
    ),
    "ct, pet and mask": (
        numbered("p{}/", "ct", "pet", "mask"),
        ("p1", ["p1/ct.nii.gz", "p1/pet.nii.gz"], "p1/mask.nii.gz"),
    ),
    "BraTS": (
        numbered("BraTS_00{0}/BraTS_00{0}", "_flair", "_t1", "_t1ce", "_t2", "_seg"),
        (
            "BraTS_001",
            [f"BraTS_001/BraTS_001_{m}.nii.gz" for m in ("flair", "t1", "t1ce", "t2")],
            "BraTS_001/BraTS_001_seg.nii.gz",
        ),
    ),
    "BraTS 2023": (
        numbered("BraTS-GLI-0{0}/BraTS-GLI-0{0}", "-t1c", "-t2w", "-seg"),
        (
            "BraTS-GLI-01",
            [f"BraTS-GLI-01/BraTS-GLI-01-{m}.nii.gz" for m in ("t1c", "t2w")],
            "BraTS-GLI-01/BraTS-GLI-01-seg.nii.gz",
        ),
    ),
    "BraTS 2018": (
        ["LGG/a/a_t1", "LGG/a/a_seg", "HGG/b/b_t1", "HGG/b/b_seg"],
        ("a", ["LGG/a/a_t1.nii.gz"], "LGG/a/a_seg.nii.gz"),
    ),
    "nnU-Net": (
        [*numbered("imagesTr/liver_00{}", "_0000", "_0001"), *numbered("labelsTr/liver_00{}", "")],
        (
            "liver_001",
            ["imagesTr/liver_001_0000.nii.gz", "imagesTr/liver_001_0001.nii.gz"],
            "labelsTr/liver_001.nii.gz",
        ),
    ),
    "LiTS": (
        numbered("", "volume-0", "volume-1", "segmentation-0", "segmentation-1")[:4],
        ("1", ["volume-1.nii.gz"], "segmentation-1.nii.gz"),
    ),
    "BTCV": (
        [*numbered("img/img000{}", ""), *numbered("label/label000{}", "")],
        ("0001", ["img/img0001.nii.gz"], "label/label0001.nii.gz"),
    ),
    "ends in two folders": (
        [*numbered("scans/x{}", "_ct"), *numbered("segmentations/x{}", "_seg")],
        ("x1", ["scans/x1_ct.nii.gz"], "segmentations/x1_seg.nii.gz"),
    ),
    "labels without ends": (
        [*numbered("Images/x{}", ""), *numbered("Labels/x{}", "")],
        ("x1", ["Images/x1.nii.gz"], "Labels/x1.nii.gz"),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_of_public_sets_is_understood(tmp_path, name):
    files, (case, images, label) = LAYOUTS[name]
    root = touch(tmp_path, *files)
    assert looks_like_volumes(root)
    (cases,) = found(root).values()
    assert len(cases) == 2
    assert cases[case] == (images, label, case)


def test_frames_of_a_patient_stay_together(tmp_path):
    """ACDC: two labelled frames in a patient's folder, and the whole film beside them."""
    for number in ("001", "002"):
        inside = f"patient{number}/patient{number}"
        ends = ("_4d", "_frame01", "_frame01_gt", "_frame12", "_frame12_gt")
        touch(tmp_path, *(f"{inside}{end}" for end in ends))
    (cases,) = found(tmp_path).values()
    assert set(cases) == {f"patient00{p}_frame{f}" for p in (1, 2) for f in ("01", "12")}
    images, _, group = cases["patient002_frame12"]
    assert (images, group) == (["patient002/patient002_frame12.nii.gz"], "patient002")


def test_dates_are_visits_of_one_patient(tmp_path):
    days = [f"p{p}/2021-0{month}-11" for p in (1, 2) for month in (3, 4)]
    touch(tmp_path, *(f"{day}/{file}" for day in days for file in ("ct", "seg")))
    (cases,) = found(tmp_path).values()
    assert {name: group for name, (*_, group) in cases.items()} == {
        f"p{p}_2021-0{month}-11": f"p{p}" for p in (1, 2) for month in (3, 4)
    }


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "Validation")])
def test_folders_of_cases_in_folders_of_splits(tmp_path, names):
    for split, case in zip(names, ("a", "b"), strict=True):
        touch(tmp_path, f"{split}/{case}/ct", f"{split}/{case}/seg")
    assert {split: set(cases) for split, cases in found(tmp_path).items()} == {
        "train": {"a"},
        "val": {"b"},
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            numbered("s{}/", "ct", "segmentations/liver", "segmentations/spleen"),
            r"s0/segmentations holds a file for each structure .*number of its structure",
        ),
        (numbered("p{}/", "ct", "seg", "mask"), r"p0 holds mask.nii.gz and seg.nii.gz, each"),
        (numbered("p{}/", "ct", "liver_seg", "spleen_seg"), r"several labels .*of one volume, ct"),
        (
            ["a/flair", "a/t1", "a/seg", "b/flair", "b/seg"],
            r"a has 2 volumes .*flair.nii.gz, t1.nii.gz.*but b 1 \(flair.nii.gz\)",
        ),
        (["a/flair", "a/t1", "a/seg", "b/flair", "b/t2", "b/seg"], r"b 2 \(flair.nii.gz, t2"),
        (numbered("p{}/", "seg"), r"this label has no volume beside it"),
        (
            [*numbered("ct/x{}", ""), *numbered("mr/x{}", ""), *numbered("masks/x{}", "")],
            r"several folders of volumes, ct and mr.*CASE_0000",
        ),
    ],
)
def test_what_is_not_clear_is_asked(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        find_cases(tmp_path)


def test_volumes_deep_in_a_folder_of_images_do_not_make_it_one_of_volumes(tmp_path):
    touch(tmp_path, "images/a", "masks/a", end=".png")
    touch(tmp_path, "extra/old/scan")
    assert not Nifti.looks_like(tmp_path)
