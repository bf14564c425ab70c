"""The one layout that is meant, and its pairs; a question where two are possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unetexp.data.collection import SPLITS
from unetexp.data.files.pairing import NONE, Match, matched_together
from unetexp.data.layouts.advice import HOW, empty, half, nothing
from unetexp.data.layouts.layout import (
    Layout,
    Part,
    files_of,
    guessed,
    layouts_of,
    setting,
    split_and_name,
    with_split,
    wrapped,
)
from unetexp.data.layouts.names import IMAGE_FOLDERS, MASK_FOLDERS, normal, split_of
from unetexp.data.layouts.paired_files import Files, paired, paired_together
from unetexp.data.layouts.scanning import Scan, entries
from unetexp.errors import DataError, did_you_mean, listed


def found_files(scan: Scan, mask_suffix: str | None = None) -> tuple[Files, list[str]]:
    """The files of the layout that the names in the root say, and notes about it.

    Raises DataError where there is none, where two are possible, or files have no partner.
    """
    root = wrapped(scan.root)
    layouts = layouts_of(root)
    _check_one_kind(root, layouts)
    layout, files = _only(root, layouts, scan, mask_suffix)
    notes = [] if _usual(layout) else [_sentence(layout, scan.root)]
    return checked(files, scan.root), notes + _affixes(files.match)


def named_files(
    scan: Scan, images: str | None, masks: str | None, mask_suffix: str | None = None
) -> tuple[Files, list[str]]:
    """The files that the settings `images` and `masks` name, and notes about them."""
    scan = _where_named(scan, images or masks or "")
    if images is None:
        images = _only_folder(scan.root, IMAGE_FOLDERS, "images")
    found = [(with_split(parts), path) for parts, path in scan.named(images)]
    if masks is None:
        files = paired_together(found, mask_suffix)
    else:
        partners = [(with_split(parts), path) for parts, path in scan.named(masks)]
        taken = {path for _, path in partners} if images != masks else set()
        found = [(key, path) for key, path in found if path not in taken]
        files = paired(found, partners, mask_suffix)
    return checked(files, scan.root), _affixes(files.match)


def _where_named(scan: Scan, pattern: str) -> Scan:
    """The scan of the folder in which a pattern names something: the root, or what it wraps."""
    inner = wrapped(scan.root)
    if any(True for _ in scan.root.glob(pattern)) or not any(True for _ in inner.glob(pattern)):
        return scan
    return Scan(inner, scan.follow_links, scan.left_out)


def mask_folder(root: Path) -> str:
    """The only folder of `root` whose name says that it holds masks."""
    return _only_folder(root, MASK_FOLDERS, "masks")


def checked(files: Files, root: Path) -> Files:
    """The files, all of them in pairs. Raises DataError naming those without a partner."""
    if files.repeated:
        one, other = files.repeated
        raise DataError(
            f"{one} and {other.name} have the same name without extension: rename or remove one "
            "of them, together with its partner."
        )
    if files.choices:
        raise DataError(
            f"{root}: each image has several masks here. Say which are meant:\n"
            + "\n".join(
                f"  those that {each.mask_affix.describe()}: --set data.mask_suffix="
                f"{each.mask_affix.after or each.mask_affix.before}"
                for each in files.choices
            )
        )
    _check_partners(files.match.lone_images, files.images, files.masks, "image", "mask")
    _check_partners(files.match.lone_masks, files.masks, files.images, "mask", "image")
    if not files.match.pairs:
        raise DataError(f"{root}: no image has a mask here. {HOW}")
    return files


def require_splits(
    splits: Sequence[str | None], where: str, train: Sequence[str | None] = ()
) -> None:
    """Raise DataError unless all or none belong to a split, and train and val are among them.

    `train` are the folders of the images and masks of train, as the settings name them.
    """
    there = set(splits)
    if there == {None}:
        return
    if None in there:
        raise DataError(
            f"{where}: some images lie in folders of splits "
            f"({', '.join(s for s in SPLITS if s in there)}), {splits.count(None)} others do not. "
            "Move these into one of the splits, or elsewhere."
        )
    for name in ("train", "val"):
        if name not in there:
            own = " and ".join(s for s in SPLITS if s in there)
            places = zip(("images", "masks"), train, strict=False)
            settings = [setting(what, place) for what, place in places if place]
            drawn = f"; or have val drawn from train alone: {' '.join(settings)}"
            raise DataError(
                f"{where} holds {own} but not {name}. Add {name}, with images and masks"
                f"{drawn if settings else ''}."
            )


def _check_one_kind(root: Path, layouts: Sequence[Layout]) -> None:
    """Raise DataError where folders of splits lie beside folders of images and masks."""
    found = [entry.name for entry in entries(root) if entry.is_dir()]
    own = [name for name in found if split_of(name)]
    flat = [name for name in found if name in ("images", "masks")]
    apart = [each for each in layouts if not each.parts[0].split and each.parts[0].masks]
    if own and (flat or apart):
        settings = [each.settings for each in layouts]
        raise DataError(
            f"{root} holds {' and '.join(own)} beside "
            f"{' and '.join(flat or [part.images.name for part in apart[0].parts])}: remove or "
            "move one of the two, so that it is clear which images are meant, or say it:\n"
            + "\n".join(f"  {each}" for each in settings)
        )


def _only(
    root: Path, layouts: Sequence[Layout], scan: Scan, mask_suffix: str | None
) -> tuple[Layout, Files]:
    """The layout in which every file has its partner, or the first, whose faults are then named."""
    if not layouts:
        raise nothing(root)
    if any(part.split for part in layouts[0].parts):
        _check_parts(root, layouts[0], scan)
    plain = [layout for layout in layouts if not layout.guess]
    read = [(layout, files_of(layout, scan, mask_suffix)) for layout in plain]
    read += _within_images(read)
    whole = [(layout, files) for layout, files in read if files.match.complete]
    if not whole:
        guesses = [(each, guessed(each, scan, mask_suffix)) for each in layouts if each.guess]
        whole = [(each, files) for each, files in guesses if files is not None]
    if len(whole) > 1:
        raise DataError(
            f"{root} can be read in {len(whole)} ways. Say which is meant:\n"
            + "\n".join(
                f"  {len(files.match.pairs)} pairs: {layout.describe(root)}: {layout.settings}"
                for layout, files in whole
            )
        )
    layout, files = whole[0] if whole else read[0]
    if not whole:
        _check_flat(root, layout, files)
    return layout, files


def _within_images(read: Sequence[tuple[Layout, Files]]) -> list[tuple[Layout, Files]]:
    """The reading in which the masks lie among the images, beside a folder of masks."""
    found = []
    for layout, files in read:
        part = layout.parts[0]
        if part.masks is None or len(layout.parts) > 1:
            continue
        whole, _ = matched_together(files.images)
        if len(whole) == 1:
            together = Layout((Part(part.images, None),), f"--set data.images={part.images.name}")
            found.append((together, Files(files.images, files.images, whole[0])))
    return found[:1]


def _check_parts(root: Path, layout: Layout, scan: Scan) -> None:
    """Raise DataError for a split without a folder of images or masks, or with an empty one."""
    splits = [part.split for part in layout.parts]
    train = [(p.images, p.masks) for p in layout.parts if p.split == "train"][:1]
    folders = [folder for pair in train for folder in pair if folder is not None]
    named = [folder.relative_to(scan.root).as_posix() for folder in folders]
    require_splits(splits, str(root), named)
    apart = any(part.masks is not None for part in layout.parts)
    for part in layout.parts:
        name = normal(part.images.name)
        if part.masks is None and (apart or name in MASK_FOLDERS):
            alone = name in IMAGE_FOLDERS or name not in MASK_FOLDERS
            missing, what = ("masks", "masks") if alone else ("images", "images")
            folder = part.images if part.images.parent == root else part.images.parent
            raise DataError(f"{folder / missing}: this folder is missing. Put the {what} there.")
        if not any(True for _ in scan.files(part.images)):
            raise empty(part.images, "images")
        if part.masks is not None and not any(True for _ in scan.files(part.masks)):
            raise empty(part.masks, "masks")


def _check_flat(root: Path, layout: Layout, files: Files) -> None:
    part = layout.parts[0]
    if part.split:
        return
    if part.masks is None:
        if part.images == root and not files.images:
            raise nothing(root)
        if part.images != root and not files.match.pairs:
            raise half(root, part.images)
        return
    if not files.images:
        raise empty(part.images, "images")
    if not files.masks:
        raise empty(part.masks, "masks")


def _only_folder(root: Path, names: frozenset[str], what: str) -> str:
    found = [e.name for e in entries(root) if e.is_dir() and normal(e.name) in names]
    if len(found) != 1:
        there = listed(found) if found else "no folder of that kind"
        raise DataError(
            f"{root}: data.{what} is not set, and {there} lies here. Set it: "
            f"--set data.{what}=FOLDER."
        )
    return found[0]


def _check_partners(
    alone: Sequence[str],
    files: Mapping[str, Path],
    partners: Mapping[str, Path],
    what: str,
    partner: str,
) -> None:
    if not alone:
        return
    first = files[alone[0]]
    split = split_and_name(alone[0])[0]
    near = [p for key, p in partners.items() if split_and_name(key)[0] == split and p != first]
    place = near[0].parent if near else first.parent
    names = [split_and_name(key)[1] for key in partners if key not in files]
    hint = did_you_mean(split_and_name(alone[0])[1], names)
    count = len(files) if files is not partners else len(alone)
    raise DataError(
        f"{len(alone)} of the {count} {what}s have no {partner} in {place}: "
        f"{listed([str(files[key]) for key in alone])}.{hint} Give the {what} and its "
        f"{partner} the same name except for the extension or one ending that all masks share "
        f"(as in 0.png and 0_mask.png), or remove the {what}."
    )


def _usual(layout: Layout) -> bool:
    return all(
        part.masks is not None and (part.images.name, part.masks.name) == ("images", "masks")
        for part in layout.parts
    )


def _sentence(layout: Layout, root: Path) -> str:
    text = layout.describe(root)
    return f"{text[0].upper()}{text[1:]}."


def _affixes(match: Match) -> list[str]:
    said = [
        f"{what} {affix.describe()}"
        for what, affix in (("images", match.image_affix), ("masks", match.mask_affix))
        if affix != NONE
    ]
    notes = [f"Paired by name: {', '.join(said)}."] if said else []
    if match.left_out:
        notes.append(
            f"{len(match.left_out)} files are other masks of the same images and are left out: "
            f"{listed(match.left_out)}."
        )
    return notes
