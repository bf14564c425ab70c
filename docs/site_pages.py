"""Puts the documents at the top of the repository into the site, with their links adapted."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
ASSETS = {
    "LICENSE": "LICENSE.txt",
    "examples/data_to_champion.ipynb": "data_to_champion.ipynb",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """mkdocs calls this with the files of `docs/`; the others are added."""
    for source, target in (PAGES | ASSETS).items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=inside_the_site(text)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """mkdocs calls this with the text of every page."""
    return inside_the_site(markdown)


def inside_the_site(text: str) -> str:
    """`text` with links between the repository's top and `docs/` made links within the site."""
    text = re.sub(r"\]\((?:docs|\.\.)/", "](", text)
    for source, target in (PAGES | ASSETS).items():
        text = re.sub(rf"\]\({re.escape(source)}(?=[)#])", f"]({target}", text)
    return text
