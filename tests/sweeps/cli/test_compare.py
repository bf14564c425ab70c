"""`python sweeps/compare.py` from outside, on hand-made MLflow stores."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from sweeps.cli.compare import app
from sweeps.tracking.store import open_store
from tests.support.tracking_stores import write_sweep

ROOT = Path(__file__).parents[3]
FOCAL = {"loss.kind": "focal", "loss.gamma": 2.0, "decoder.upsampling": "conv_transpose"}
DICE = {"loss.kind": "dice_ce", "decoder.upsampling": "pixel_shuffle"}
TRIALS = [
    (FOCAL, [0.1, 0.5, 0.4, 0.45], "completed"),
    (DICE, [0.1, 0.2, 0.3, 0.4], "completed"),
    (FOCAL | {"loss.gamma": 3.0}, [0.6], "asha"),
    (FOCAL, [], "nan"),
]
LONG = "/a|path/" + "very_long/" * 6
OTHER = {"data.root": LONG, "loss.class_weights": [0.5, 2.0]}


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('compare')}/mlflow.db"
    store = open_store(uri)
    write_sweep(store, "many", [(DICE, [i / 100], "completed") for i in range(30)], epochs=1)
    write_sweep(store, "other", [(DICE | OTHER, [0.9], "completed")], fingerprint="b")
    write_sweep(store, "newest", TRIALS)
    return uri


@pytest.fixture
def compare(uri, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments, code=0, uri=uri):
        result = CliRunner().invoke(app, [*arguments, "--tracking-uri", uri])
        assert result.exit_code == code, result.output
        return result

    return call


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


class TestTable:
    def test_the_newest_sweep_with_what_the_trials_were_and_cost(self, compare):
        out = compare().stdout
        assert out.startswith("newest: 4 trials\n")
        for words in ("0.5000", "4/4", "1/4*", "asha", "nan", "pixel_shuffle", "14.0M", "12.5"):
            assert words in out
        lines = out.splitlines()
        ranks = [line.split()[1] for line in lines if line.strip()[:2].strip().isdigit()]
        assert ranks[:4] == ["0000", "0001", "0002", "0003"]
        assert "* had fewer epochs than the full budget: ranked after those that had it." in out

    def test_it_fits_the_terminal(self, compare):
        out = compare("newest", "other").stdout
        table = out[: out.index("see the trials")]
        assert max(map(cell_len, table.splitlines())) <= 80
        assert "…" in table
        assert "[0.5, 2.0]" in table
        assert "--format csv" in table

    def test_it_ends_with_links_and_the_next_command(self, compare, uri):
        ends = compare("newest", "other").stdout
        assert ends.count("workflowType=machine_learning&viewStateShareKey=") == 4
        assert ends.count("compareRunsMode=CHART") == 2
        assert f"python sweeps/promote.py other --tracking-uri {uri}" in ends
        assert f"make ui TRACKING_URI={uri}" in ends

    def test_a_long_sweep_is_cut_with_a_word(self, compare):
        assert "20 of 30 trials: --top 30 shows all." in compare("many").stdout
        assert "shows all" not in compare("many", "--top", "3").stdout
        assert "shows all" not in compare("many", "--top", "30").stdout

    def test_sweeps_on_different_data_do_not_compare(self, compare):
        assert "run on different data" in compare("newest", "other").stdout
        assert "run on different data" not in compare("newest", "many").stdout

    def test_an_order_that_mixes_budgets_says_so(self, compare):
        out = compare("--sort", "val/miou").stdout
        assert "In this order some of them stand above trials that had it" in out


class TestFormats:
    def test_csv_is_rows_and_nothing_else(self, compare):
        rows = rows_of(compare("--format", "csv").stdout)
        assert [row["trial"] for row in rows] == ["0000", "0001", "0002", "0003"]
        assert [row["full_budget"] for row in rows] == ["True", "True", "False", "False"]
        assert rows[0]["best/epoch"] == "2"
        assert float(rows[0]["val/iou/back ground"]) == pytest.approx(0.6)
        assert rows[1]["loss.gamma"] == ""
        assert not {"seed", "epochs.1"} & rows[0].keys()

    def test_json_has_null_for_what_is_missing(self, compare):
        rows = json.loads(compare("--format", "json").stdout)
        assert rows[1]["loss.gamma"] is None
        assert rows[3]["best/val/miou"] is None
        assert rows[0]["full_budget"] is True
        assert rows[0]["cost/device_s"] == 40

    def test_parquet_can_be_read_back(self, compare, tmp_path):
        data = compare("newest", "other", "--format", "parquet").stdout_bytes
        frame = pd.read_parquet(io.BytesIO(data))
        assert frame["sweep"].tolist() == ["other", *["newest"] * 4]
        assert frame["full_budget"].dtype == bool

    def test_markdown_is_one_table(self, compare):
        out = compare("newest", "other", "--format", "markdown").stdout
        table = [line for line in out.splitlines() if line.startswith("|")]
        bars = {line.replace("\\|", "").count("|") for line in table}
        assert len(table) == 7
        assert len(bars) == 1
        assert "---:" in table[1]
        assert LONG.replace("|", "\\|") in table[2]
        assert "\\* had fewer epochs" in out

    @pytest.mark.parametrize("ending", ["csv", "json", "parquet", "md", "txt"])
    def test_a_file_has_the_format_of_its_ending(self, compare, tmp_path, ending):
        path = tmp_path / f"trials.{ending}"
        assert f"wrote {path}" in compare("--out", str(path)).stdout
        data = path.read_bytes()
        starts = {"csv": b"sweep,", "json": b"[", "parquet": b"PAR1", "md": b"| rank", "txt": b" "}
        assert data.startswith(starts[ending])

    def test_where_sort_and_top_go_together(self, compare):
        arguments = ("--where", "loss.kind == 'focal'", "--sort", "-loss.gamma", "--top", "1")
        rows = rows_of(compare(*arguments, "--format", "csv").stdout)
        assert [row["trial"] for row in rows] == ["0002"]

    def test_no_match_is_an_empty_table_and_a_word(self, compare):
        result = compare("--where", "best/val/miou > 0.99", "--format", "json")
        assert json.loads(result.stdout) == []
        assert "None of the 4 trials in newest meets" in result.stderr
        assert "None of the 4 trials" in compare("--where", "epochs > 99").stdout


class TestReport:
    @pytest.fixture
    def places(self, uri, monkeypatch, tmp_path):
        """Two sweeps with folders of their own, and reports that hold a sweep's name only."""

        def write(store, sweep, path):
            path.write_text(f"report of {sweep}")

        monkeypatch.setitem(sys.modules, "sweeps.report", SimpleNamespace(write_report=write))
        new = f"sqlite:///{tmp_path}/mlflow.db"
        for name in ("one", "two"):
            write_sweep(open_store(new), name, TRIALS[:1], storage=str(tmp_path / name))
        return new, tmp_path

    def test_alone_it_goes_to_the_sweeps_folder_and_run(self, compare, places):
        uri, folder = places
        said = compare("--report", "one", "two", uri=uri).stdout
        store = open_store(uri)
        for name in ("one", "two"):
            assert (folder / name / "report.html").read_text() == f"report of {name}"
            assert f"report of {name}: {folder / name / 'report.html'}" in said
            run = store.sweep_run(name).info.run_id
            assert [file.path for file in store.client.list_artifacts(run)] == ["report.html"]

    def test_a_path_is_where_it_goes(self, compare, places):
        uri, folder = places
        target = folder / "deep" / "mine.html"
        said = compare("--report", str(target), "one", "--format", "json", uri=uri)
        assert target.read_text() == "report of one"
        assert json.loads(said.stdout)[0]["sweep"] == "one"
        assert str(target) in said.stderr
        assert not (folder / "one").exists()


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["newst"], "Did you mean 'newest'? Choices: newest, other, many"),
            (["--sort", "val/iou/cel"], "Did you mean 'val/iou/cell'"),
            (["--where", "loss.knd == 'focal'"], "Did you mean 'loss.kind'"),
            (["--where", "__import__('os').getcwd() == 1"], "is not allowed"),
            (["--out", "trials.xlsx"], "'.xlsx' is not a choice"),
            (["--out", "/no/such/folder/x.csv"], "cannot be written"),
            (["newest", "other", "--report", "x.html"], "it is one sweep's report"),
        ],
    )
    def test_one_message_and_exit_code_2(self, compare, arguments, words):
        result = compare(*arguments, code=2)
        assert words in " ".join(result.stderr.split())
        assert result.stdout == ""

    def test_no_sweep_yet(self, compare, tmp_path):
        new = f"sqlite:///{tmp_path}/mlflow.db"
        assert "there are no sweeps yet" in compare(code=2, uri=new).stderr
        assert not (tmp_path / "mlflow.db").exists()

    def test_a_sweep_without_trials(self, compare, tmp_path):
        new = f"sqlite:///{tmp_path}/mlflow.db"
        write_sweep(open_store(new), "empty", [])
        assert "There are no trials in empty yet." in compare(uri=new).stdout
        assert json.loads(compare("--format", "json", uri=new).stdout) == []


def test_the_script_from_another_folder(uri, tmp_path):
    command = [sys.executable, str(ROOT / "sweeps/compare.py"), "--format", "json", "--top", "1"]
    done = subprocess.run(
        [*command, "--tracking-uri", uri],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)[0]["trial"] == "0000"
