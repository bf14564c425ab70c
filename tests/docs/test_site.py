"""Links lead somewhere, in the repository and in the site; the site needs no network."""

import os
import re
import subprocess
import sys

import pytest

from sweeps.tracking.store import PROJECT_ROOT as ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def prose(text):
    """`text` without its fenced blocks and its code spans."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(text):
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(page.read_text(encoding="utf-8"))):
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; --strict fails on what mkdocs warns of."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_begins_with_the_readme(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "From a sweep to a model in use" in index
    assert 'href="promotion.html"' in index and 'src="mlflow.png"' in index


def test_every_page_is_in_the_site(site):
    for page in PAGES:
        name = {"README": "index"}.get(page.stem, page.stem.lower())
        assert (site / f"{name}.html").exists()


def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*src="?(https?:[^"> ]+)', text)
        loaded += re.findall(r'<link(?![^>]*canonical)[^>]*href="?(https?:[^"> ]+)', text)
        assert loaded == []
