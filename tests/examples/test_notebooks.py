"""The notebooks of `examples/` run from their first cell to the last, and keep no outputs."""

from __future__ import annotations

import os

import pytest

from sweeps.tracking.store import PROJECT_ROOT as ROOT
from tests.support.databases import new_database

nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[dev]'")
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_kept_and_cells_are_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert len(cell.source.splitlines()) <= 30
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_data_to_champion(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[dev]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    work = tmp_path / "data_to_champion"
    work.mkdir()
    new_database(work / "mlflow.db")
    notebook = nbformat.read(ROOT / "examples" / "data_to_champion.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    told = [
        output.get("text", "") + str(output.get("data", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    text = "\n".join(told)
    assert "tags.tune.trial_id" in text
    assert "('background', 'disc')" in text
    assert "equal pixels: 1.0" in text or "equal pixels: 0.99" in text
    assert (work / "overlay.png").stat().st_size > 1000
    assert not list(ROOT.glob("examples/data_to_champion/*"))
