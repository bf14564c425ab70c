"""A .pt2 that would run something when it is read is refused, and runs nothing."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim

from unetexp.errors import CheckpointError
from unetexp.export.formats.pt2_file import save
from unetexp.runtimes.pt2_archive import read_program

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
EXAMPLE = "data/sample_inputs/model.pt"


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Padded(nn.Module):
    """With formulas of sizes in its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image):
        extra = -image.shape[-1] % 32
        return self.conv(nn.functional.pad(image, (0, extra)))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "good.pt2"
    sizes = {0: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(
        Padded(), (torch.randn(2, 3, 8, 40),), dynamic_shapes={"image": sizes}
    )
    save(program, path, "description")
    return path


def changed(good, path, entries):
    """A copy; `entries` maps names to new content, or to functions of the JSON that was there."""
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        top = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            content, change = old.read(name), entries.pop(name.removeprefix(f"{top}/"), None)
            if callable(change):
                tree = json.loads(content)
                change(tree)
                content = json.dumps(tree).encode()
            new.writestr(name, content if change is None or callable(change) else change)
        for name, content in entries.items():
            new.writestr(f"{top}/{name}", content)
    return path


def nodes(tree):
    return tree["graph_module"]["graph"]["nodes"]


def call(target):
    def change(tree):
        nodes(tree)[0]["target"] = target

    return change


def formula(text):
    def change(tree):
        values = tree["graph_module"]["graph"]["tensor_values"].values()
        sizes = [size for value in values for size in value["sizes"] if "as_expr" in size]
        sizes[0]["as_expr"]["expr_str"] = text

    return change


def test_a_good_archive_is_read_whole(good, tmp_path):
    program, text = read_program(changed(good, tmp_path / "same.pt2", {}))

    assert text == "description"
    assert program.module(check_guards=False)(torch.zeros(1, 3, 8, 33)).shape == (1, 2, 8, 64)


def test_pickled_example_inputs_are_not_unpickled(good, tmp_path):
    mark = tmp_path / "mark"
    buffer = io.BytesIO()
    torch.save(Touch(mark), buffer)
    path = changed(good, tmp_path / "bad.pt2", {EXAMPLE: buffer.getvalue()})

    with pytest.raises(CheckpointError, match="example inputs"):
        read_program(path)
    assert not mark.exists()

    with contextlib.suppress(Exception):  # what torch's own loader would have done
        torch.export.load(path)
    assert mark.exists()


@pytest.mark.parametrize("config", [WEIGHTS, CONSTANTS])
def test_no_tensor_is_unpickled(good, config, tmp_path):
    mark = tmp_path / "mark"
    kind = "weight" if config == WEIGHTS else "tensor"
    entry = {"path_name": f"{kind}_7", "is_param": False, "use_pickle": True, "tensor_meta": None}

    def add(tree):
        tree["config"]["more"] = entry

    place = f"{config.rpartition('/')[0]}/{kind}_7"
    path = changed(good, tmp_path / "bad.pt2", {config: add, place: pickle.dumps(Touch(mark))})

    with pytest.raises(CheckpointError, match="as a pickle"):
        read_program(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "entry",
    ["data/constants/opaque_obj_0", "data/aotinductor/model/x.so", "data/weights/model.pt"],
)
def test_what_no_export_holds_is_refused(good, entry, tmp_path):
    path = changed(good, tmp_path / "bad.pt2", {entry: b"anything"})

    with pytest.raises(CheckpointError, match="entry"):
        read_program(path)


@pytest.mark.parametrize(
    "change",
    [
        call("torch.ops.load_library"),
        call("torch.hub.load"),
        call("_operator.methodcaller"),
        formula("__import__('os').system('true')"),
        formula("exec(chr(49))"),
        lambda tree: tree["guards_code"].append("open('x')"),
        lambda tree: nodes(tree)[0]["inputs"][0].update(name="x\nimport os"),
    ],
    ids=["library", "hub", "caller", "import", "exec", "guard", "name"],
)
def test_a_graph_calls_nothing_but_operators(good, change, tmp_path):
    path = changed(good, tmp_path / "bad.pt2", {GRAPH: change})

    with pytest.raises(CheckpointError, match="would be run"):
        read_program(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"not an archive at all"])
def test_damaged_files_say_so(content, tmp_path):
    path = tmp_path / "bad.pt2"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"no \.pt2 archive"):
        read_program(path)
