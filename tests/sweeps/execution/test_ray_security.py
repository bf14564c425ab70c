"""Nothing loads a foreign pickle, tokens are private, links stay inside, bombs are refused."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import stat
import struct
import zlib
from pathlib import Path

import pytest
import yaml

from sweeps.execution import ray_security as security
from tests.support.data_folders import write_folder_dataset
from unetexp.data import Folder, open_dataset
from unetexp.data.reading.image_decoding import read_image, read_mask
from unetexp.errors import CheckpointError, DataError
from unetexp.models import saved_model as archive
from unetexp.training import config

ROOT = Path(__file__).parents[3]
SOURCES = [
    path
    for top in ("unetexp", "sweeps", "benchmarks")
    for path in sorted((ROOT / top).rglob("*.py"))
]
LOADERS = {"load", "loads", "Unpickler", "read_pickle", "allow_pickle"}


def unsafe_calls(tree):
    """Lines of calls that could run what is in a file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = (
            ast.unparse(node.func),
            {k.arg: ast.unparse(k.value) for k in node.keywords},
        )
        module, _, function = name.rpartition(".")
        torch_load = name == "torch.load" and keywords.get("weights_only") != "True"
        own_copy = [ast.unparse(a).partition("(")[0] for a in node.args] == ["pickle.dumps"]
        pickles = (
            not own_copy and module.endswith(("pickle", "joblib", "dill")) and function in LOADERS
        )
        numpy = keywords.get("allow_pickle") == "True"
        own_loader = [ast.unparse(each) for each in node.args[1:]] in (
            ["_Loader"],
            ["_ValueLoader"],
        )
        unsafe_yaml = name in ("yaml.unsafe_load", "yaml.full_load")
        unsafe_yaml |= name == "yaml.load" and not own_loader
        if (
            torch_load
            or pickles
            or numpy
            or unsafe_yaml
            or name in ("eval", "exec", "pd.read_pickle")
        ):
            yield node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_loads_a_pickle(path):
    assert not list(unsafe_calls(ast.parse(path.read_text(encoding="utf-8"))))


def test_our_own_yaml_loaders_are_safe_ones():
    assert issubclass(config._Loader, yaml.SafeLoader)
    assert issubclass(config._ValueLoader, yaml.SafeLoader)


@pytest.mark.parametrize(
    "line",
    ["torch.load(x)", "torch.load(x, weights_only=False)", "pickle.load(f)", "yaml.load(t)"],
)
def test_the_check_sees_what_it_looks_for(line):
    assert list(unsafe_calls(ast.parse(line)))


class TestToken:
    @pytest.fixture
    def token(self, tmp_path, monkeypatch):
        path = tmp_path / "place" / "token"
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
        monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        return path

    def test_a_new_token_is_private_from_the_start(self, token):
        security.make_token()
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert len(token.read_text()) == 64
        before = token.read_text()
        security.make_token()
        assert token.read_text() == before

    def test_one_that_others_can_read_is_made_private_and_said(self, token):
        security.make_token()
        token.chmod(0o644)
        (warning,) = security.make_private(token)
        assert str(token) in warning
        assert "644" in warning
        assert token.read_text() not in warning
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert security.make_private(token) == []

    def test_authentication_that_is_off_is_said(self, token, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        (warning,) = security.use_tokens()
        assert "can run code" in warning


class TestPorts:
    @pytest.mark.parametrize(("host", "is_open"), [("127.0.0.1", False), ("0.0.0.0", True)])
    def test_a_port_open_to_the_network_is_found(self, host, is_open):
        with socket.create_server((host, 0)) as server:
            port = server.getsockname()[1]
            assert (port in security.open_ports()) == is_open

    def test_nothing_is_said_of_no_port(self):
        assert security.port_warning([]) == []


def test_a_class_file_that_leads_out_is_refused_unread(tmp_path):
    write_folder_dataset(tmp_path / "data")
    (tmp_path / "secret.txt").write_text("hunter2/\n")
    (tmp_path / "data" / "classes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match="outside") as caught:
        open_dataset(Folder(root=str(tmp_path / "data")))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", [archive.WEIGHTS, archive.CONFIG])
def test_a_models_file_that_leads_out_is_refused(tmp_path, name):
    (tmp_path / "elsewhere").write_text("{}")
    model = tmp_path / "model"
    model.mkdir()
    for each in (archive.WEIGHTS, archive.CONFIG):
        (model / each).write_text("{}")
    (model / name).unlink()
    (model / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="outside"):
        archive.load(model)


def png_header(height, width):
    """A PNG that says how large it is and holds next to nothing."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def tiff_header(height, width):
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, height * width % 2**32)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(("suffix", "header"), [(".png", png_header), (".tif", tiff_header)])
def test_an_image_of_a_hundred_thousand_squared_is_refused(tmp_path, read, suffix, header):
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(header(100_000, 100_000))
    with pytest.raises(DataError) as caught:
        read(path)
    assert "pixels" in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_sweeps_folder_is_private(tmp_path):
    from sweeps.execution.tune_run import private_folder

    old = os.umask(0)
    try:
        assert stat.S_IMODE(private_folder(tmp_path / "sweep").stat().st_mode) == 0o700
    finally:
        os.umask(old)
    shutil.rmtree(tmp_path / "sweep")
