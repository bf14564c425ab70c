"""Absolute paths in a moved project's files, rewritten to the project's new place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from sweeps.state.ledger import FILE, read_ledger, rewrite

Move = tuple[Path, Path]  # a folder's old and new place

_MANIFEST = "sweep.json"
_TRIAL_FILES = ("trials/*/config.yaml", "trials/*/epoch-*/manifest.json")


class Moves:
    """Folders that were moved; the longest old path that matches an address is used."""

    def __init__(self, moves: Sequence[Move]) -> None:
        self.moves = sorted(moves, key=lambda move: -len(str(move[0])))
        self._forms = [form for move in self.moves for form in _forms(move)]

    def text(self, text: str) -> str:
        """The new form of an address, a path or a `file:` URI; any other text unchanged."""
        for old, new in self._forms:
            if _below(text, old):
                done = _below(new, old) and _below(text, new)
                return text if done else new + text[len(old) :]
        return text

    def tree(self, tree: Any) -> Any:
        """A tree of mappings and lists with all addresses in it rewritten."""
        if isinstance(tree, str):
            return self.text(tree)
        if isinstance(tree, dict):
            return {key: self.tree(value) for key, value in tree.items()}
        return [self.tree(value) for value in tree] if isinstance(tree, list) else tree

    def is_new(self, place: Path) -> bool:
        """Whether a place lies in the new place of a folder that was moved."""
        return any(place.is_relative_to(new) for _, new in self.moves)

    def file(self, path: Path) -> bool:
        """Rewrite a YAML or JSON file where that changes it; returns whether it did."""
        text = path.read_text(encoding="utf-8")
        as_yaml = path.suffix == ".yaml"
        tree = yaml.safe_load(text) if as_yaml else json.loads(text)
        moved = self.tree(tree)
        if moved == tree:
            return False
        if as_yaml:
            text = yaml.safe_dump(moved, sort_keys=False)
        else:
            text = json.dumps(moved, indent=2 if "\n" in text.strip() else None)
        scratch = path.with_name(f".{path.name}.part")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
        return True

    def sweep_folder(self, folder: Path) -> int:
        """Rewrite the files of a sweep and of its trials; returns how many changed."""
        found = [path for pattern in _TRIAL_FILES for path in folder.glob(pattern)]
        manifest = folder / _MANIFEST
        changed = sum(self.file(path) for path in [manifest, *found] if path.is_file())
        return changed + self._ledger(folder / FILE)

    def _ledger(self, path: Path) -> int:
        """Rewrite the ledger unless it is damaged: reading it then tells the user what to do."""
        content = read_ledger(path)
        moved = self.tree(content.events)
        if content.damage is not None or json.dumps(moved) == json.dumps(content.events):
            return 0
        rewrite(path, moved)
        return 1


def _below(text: str, folder: str) -> bool:
    return text == folder or text.startswith(f"{folder}/")


def _forms(move: Move) -> list[tuple[str, str]]:
    """Pairs of the old and the new place in each form in which addresses are written."""
    old, new = (str(place) for place in move)
    return [
        (f"file://{quote(old)}", f"file://{quote(new)}"),
        (f"file://{old}", f"file://{new}"),
        (old, new),
    ]
