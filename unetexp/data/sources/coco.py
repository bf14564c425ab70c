"""Images with COCO's instance annotations, each category a class.

ROOT/annotations/instances_{train2017,val2017}.json    ROOT/{train2017,val2017}/*.jpg
ROOT/{train,valid,test}/_annotations.coco.json         beside its images
ROOT/annotations.json                                  ROOT/images/*.jpg
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from unetexp.data.collection import SPLITS, Labels, Progress
from unetexp.data.files.file_hashing import content_hash
from unetexp.data.files.file_sample import FileReader, FileSample, Listing
from unetexp.data.files.given_splits import given_splits
from unetexp.data.formats.coco_annotations import Annotations, class_mask, read_annotations
from unetexp.data.sources.file_source import FileSource, absolute
from unetexp.errors import DataError, did_you_mean, listed

_PLACES = (
    *("annotations/instances_*.json", "*/_annotations.coco.json", "_annotations.coco.json"),
    *("annotations/*.json", "annotations.json", "*.json", "*/annotations.json"),
)
_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_WORDS = re.compile(r"(?<![a-z])(train|validation|valid|val|test)(?![a-z])")
_HEAD = 2**16


class Coco(FileSource):
    """Images with COCO's instance annotations; the classes are background and the categories.

    A category's class follows from the order of the ids. Of two objects that overlap the smaller
    lies on top; a crowd is void where no object lies on it. An image without annotations is
    background.
    """

    first_fields: ClassVar[tuple[str, ...]] = ("kind", "root")
    draws_masks: ClassVar[bool] = True  # files of masks beside it are another reading

    kind: Literal["coco"] = "coco"
    root: Annotated[str, Field(min_length=1), AfterValidator(absolute)] = Field(
        description="the folder of the annotations and images"
    )
    annotations: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="the JSON files, below root; train, val or test in a file's name or its "
        "folder's is the split of its images; null: found",
    )
    images: str | None = Field(
        None,
        description="the folder of the images, below root; null: found beside the annotations, in "
        "images, or in a folder named as the split",
    )
    categories: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="the names of the categories that are classes, the others become background; "
        "null: all",
    )

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Whether a JSON file at a usual place begins or ends like COCO's."""
        return any(_begins_like_coco(path) for path in _json_files(root))

    def listing(self, on_progress: Progress | None = None) -> Listing:
        """The annotated images."""
        root, files = Path(self.root), self._files()
        known = _shared_categories([read_annotations(path) for path in files.values()])
        classes = self._classes(known)
        samples = {s: _samples(root, self.images, s, path) for s, path in files.items()}
        names = ("background", *(known[category] for category in classes))
        notes = _notes([read_annotations(p) for p in files.values()], classes, known)
        listed_names = None if self.label_map else _distinct(names)
        if not {"", "train"} & samples.keys():
            if len(samples) > 1:
                raise DataError(f"{root}: none of {listed(files.values())} is of the train split.")
            return Listing(root, {}, next(iter(samples.values())), listed_names, "seeded", notes)
        return given_splits(
            root,
            samples,
            listed_names,
            test_fraction=self.test_fraction,
            method="annotation files",
            notes=notes,
        )

    def reader(self) -> FileReader:
        """The masks are drawn from the annotations."""
        plain = super().reader()
        files = [read_annotations(path) for path in self._files().values()]
        classes = self._classes(_shared_categories(files))

        def mask(sample: FileSample) -> Labels:
            image = read_annotations(sample.mask).images[int(sample.part)]
            return class_mask(str(sample.mask), image, classes)

        told = content_hash(sorted(classes.items()))[:16]
        return FileReader(f"coco {told}, {plain.name}", plain.image, mask)

    def _classes(self, known: Mapping[int, str]) -> dict[int, int]:
        """The class of each category id, from 1 up."""
        for name in self.categories or ():
            if name not in known.values():
                raise DataError(
                    f"data.categories: {self.root} has no category {name!r}."
                    f"{did_you_mean(name, known.values())} It has: "
                    f"{listed([known[key] for key in sorted(known)], 100)}."
                )
        chosen = [k for k in sorted(known) if not self.categories or known[k] in self.categories]
        if not chosen or len(chosen) > 254:
            raise DataError(
                f"{self.root}: {len(chosen)} categories are annotated. 1 to 254 are possible: "
                "choose some, such as --set 'data.categories=[person, car]'."
            )
        return {category: number for number, category in enumerate(chosen, 1)}

    def _files(self) -> dict[str, Path]:
        """The annotation file of each split, or of "" where the only one names no split."""
        root = Path(self.root)
        if self.annotations:
            found = [root / name for name in self.annotations]
        else:
            found = next(_found(root), [])
        if not found:
            raise DataError(
                f"{root}: there are no COCO annotations here (such as {listed(_PLACES[:3])}). Name "
                "the files: --set 'data.annotations=[FILE.json]'."
            )
        if len(found) == 1:
            return {_split_of(root, found[0]): found[0]}
        files: dict[str, Path] = {}
        for path in found:
            split = _split_of(root, path)
            if not split or split in files:
                why = "names no split" if not split else f"is of the split {split}, as another is"
                raise DataError(
                    f"{path}: this file {why}. Of several files each has train, val or test in "
                    f"its name or its folder's. Choose: --set 'data.annotations=["
                    f"{', '.join(p.relative_to(root).as_posix() for p in found)}]'."
                )
            files[split] = path
        return {split: files[split] for split in SPLITS if split in files}


def _json_files(root: Path) -> Iterator[Path]:
    for place in _PLACES:
        yield from (path for path in sorted(root.glob(place)) if path.name[0] != ".")


def _found(root: Path) -> Iterator[list[Path]]:
    """The annotation files of each usual place that has any."""
    for place in _PLACES:
        files = [path for path in sorted(root.glob(place)) if _begins_like_coco(path)]
        if files:
            yield files


def _begins_like_coco(path: Path) -> bool:
    """Whether the first or last bytes of a file name COCO's lists; the whole may be large."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - _HEAD))
            tail = file.read()
    except OSError:
        return False
    names = (b'"annotations"', b'"categories"', b'"images"')
    return head.lstrip()[:1] == b"{" and sum(name in head + tail for name in names) >= 2


def _split_of(root: Path, path: Path) -> str:
    """The split that the last word of that kind in a file's place names, or ""."""
    place = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    found = _WORDS.findall(place.as_posix().lower())
    return _SPLIT_NAMES[found[-1]] if found else ""


def _shared_categories(files: Sequence[Annotations]) -> dict[int, str]:
    """The categories of all files, which must agree."""
    known: dict[int, str] = {}
    for file in files:
        for key, name in file.categories.items():
            if known.setdefault(key, name) != name:
                raise DataError(
                    f"{file.path}: the category {key} is {name!r}, and {known[key]!r} in "
                    f"{files[0].path}. Export both with the same categories."
                )
    return known


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Class names as MLflow takes them, each once."""
    kept: list[str] = []
    for name in names:
        clean = re.sub(r"[^\w .:-]", "_", name).strip() or "category"
        clean = clean if clean[0].isalnum() else f"c{clean}"
        kept.append(clean if clean not in kept else f"{clean} {len(kept)}")
    return tuple(kept)


def _samples(root: Path, images: str | None, split: str, path: Path) -> list[FileSample]:
    annotations = read_annotations(path)
    if not annotations.images:
        raise DataError(f"{path}: the list of images is empty.")
    folder = root / images if images else _image_folder(root, path, annotations)
    entries = annotations.images
    stems = [Path(each.file_name).with_suffix("").as_posix() for each in entries.values()]
    distinct = len({Path(stem).name for stem in stems}) == len(stems)
    samples = [
        FileSample(
            Path(stem).name if distinct else f"{stem.replace('/', '_')}_{key}",
            (folder / each.file_name,),
            path,
            part=str(key),
        )
        for stem, (key, each) in zip(stems, entries.items(), strict=True)
    ]
    lacking = [str(sample.image) for sample in samples if not sample.image.is_file()]
    if lacking:
        raise DataError(
            f"{path}: {len(lacking)} of its {len(samples)} images do not exist: {listed(lacking)}. "
            "Put them there, or name their folder: --set data.images=FOLDER."
        )
    return sorted(samples, key=lambda sample: sample.name)


def _image_folder(root: Path, path: Path, annotations: Annotations) -> Path:
    """The usual folder that holds the first image of a file."""
    first = next(iter(annotations.images.values())).file_name
    said = path.stem.split("_")[-1]  # train2017 of instances_train2017
    places = [path.parent, path.parent / "images", root, root / "images"]
    for named in (said, *_WORDS.findall(path.stem.lower())):
        places += [root / named, root / "images" / named, path.parent / named]
    return next((place for place in places if (place / first).is_file()), places[-1])


def _notes(
    files: Sequence[Annotations], classes: Mapping[int, int], known: Mapping[int, str]
) -> tuple[str, ...]:
    images = [image for file in files for image in file.images.values()]
    objects = [each for image in images for each in image.instances if each.category in classes]
    boxes = sum(each.segmentation is None for each in objects)
    if objects and boxes == len(objects):
        raise DataError(
            f"{files[0].path}: the annotations are boxes only, without `segmentation`: there is no "
            "outline to learn. Export the annotations with polygons or masks."
        )
    empty = sum(not image.instances for image in images)
    other = [known[key] for key in sorted(known) if key not in classes]
    crowds = sum(each.crowd for each in objects)
    told = (
        ("Of objects that overlap the smaller lies on top.", True),
        (f"{crowds} crowds are void where no object lies on them.", crowds),
        (f"{empty} of {len(images)} images have no annotation: all of them is background.", empty),
        (f"{boxes} objects have a box but no outline: they are left out.", boxes),
        (f"Categories that are background here: {listed(other)}.", other),
    )
    return tuple(text for text, holds in told if holds)
