"""Files at URIs: fetched once, checked, and never believed in part."""

import builtins
import http.server
import os
import threading
import time
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.support.data_sources import write_manifest
from unetexp.data import Manifest, open_dataset
from unetexp.data.formats.remote import fetched, fetched_folder
from unetexp.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def counted(monkeypatch, system):
    """The addresses that are fetched from now on."""
    calls, get_file = [], type(system).get_file

    def get(self, path, target, **options):
        calls.append(path)
        return get_file(self, path, target, **options)

    monkeypatch.setattr(type(system), "get_file", get)
    return calls


def uploaded(folder, system):
    """All files of a folder at memory://bucket; the table's address."""
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe(f"/bucket/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return "memory://bucket/set.csv"


def test_a_set_is_fetched_once_and_equals_the_local_one(tmp_path, memory, monkeypatch):
    path = write_manifest(tmp_path / "set")
    uri = uploaded(tmp_path / "set", memory)
    calls, progress = counted(monkeypatch, memory), []
    source = Manifest(path=uri)
    data = open_dataset(source, on_progress=lambda *told: progress.append(told))
    assert len(calls) == 13  # the table, 6 images, 6 masks
    assert ("Fetching files", 12, 12) in progress
    local = open_dataset(Manifest(path=str(path)))
    for split in ("train", "val"):
        for ours, theirs in zip(data[split], local[split], strict=True):
            np.testing.assert_array_equal(ours.image, theirs.image)
            np.testing.assert_array_equal(ours.mask, theirs.mask)
    open_dataset(source)
    assert len(calls) == 13


def test_the_set_is_the_same_on_a_node_with_another_cache(tmp_path, memory, monkeypatch):
    write_manifest(tmp_path / "set")
    source = Manifest(path=uploaded(tmp_path / "set", memory))
    first = open_dataset(source).fingerprint
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "other node"))
    assert open_dataset(source).fingerprint == first


def test_classes_are_named_beside_a_table_there(tmp_path, memory):
    write_manifest(tmp_path / "set")
    (tmp_path / "set/classes.txt").write_text("soil\nweed\ncrop\n")
    uri = uploaded(tmp_path / "set", memory)
    assert open_dataset(Manifest(path=uri)).class_names == ("soil", "weed", "crop")


def test_a_table_here_may_name_files_there(tmp_path, memory):
    path = write_manifest(tmp_path / "set")
    uploaded(tmp_path / "set", memory)
    path.write_text(path.read_text().replace("scans/", "memory://bucket/scans/"))
    assert len(open_dataset(Manifest(path=str(path)))["train"]) == 4


def test_a_changed_file_is_fetched_again(memory):
    memory.pipe("/bucket/a", b"first")
    assert fetched(["memory://bucket/a"])["memory://bucket/a"].read_bytes() == b"first"
    memory.pipe("/bucket/a", b"other")  # of the same size, at another time
    assert fetched(["memory://bucket/a"])["memory://bucket/a"].read_bytes() == b"other"


def test_a_damaged_copy_is_fetched_again(memory):
    memory.pipe("/bucket/a", b"content")
    path = fetched(["memory://bucket/a"])["memory://bucket/a"]
    path.write_bytes(b"cont")
    assert fetched(["memory://bucket/a"])["memory://bucket/a"].read_bytes() == b"content"


def test_a_fetch_that_dies_leaves_nothing_that_is_believed(memory, monkeypatch):
    memory.pipe("/bucket/a", b"content")

    def dies(self, path, target, **options):
        Path(target).write_bytes(b"con")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(memory), "get_file", dies)
        with pytest.raises(KeyboardInterrupt):
            fetched(["memory://bucket/a"])
    assert fetched(["memory://bucket/a"])["memory://bucket/a"].read_bytes() == b"content"


def test_what_a_kill_left_behind_is_not_read_and_goes_after_a_day(memory, cache):
    memory.pipe("/bucket/a", b"content")
    path = fetched(["memory://bucket/a"])["memory://bucket/a"]
    for name, age_s in (("old", 2 * 24 * 3600), ("new", 60)):
        scratch = fetched_folder() / f"{path.parent.name}.fetching-{name}"
        scratch.mkdir()
        (scratch / "a").write_bytes(b"con")
        os.utime(scratch, times=(time.time() - age_s,) * 2)
    assert fetched(["memory://bucket/a"])["memory://bucket/a"].read_bytes() == b"content"
    assert [each.name.rpartition("-")[2] for each in fetched_folder().glob("*.fetching-*")] == [
        "new"
    ]


def test_a_file_that_is_cut_off_is_an_error(memory, monkeypatch):
    memory.pipe("/bucket/a", b"content")
    monkeypatch.setattr(
        type(memory), "get_file", lambda self, path, target, **_: Path(target).write_bytes(b"con")
    )
    with pytest.raises(DataError, match=r"3 bytes arrived, but .* has 7"):
        fetched(["memory://bucket/a"])


def test_missing_files_are_counted_and_named(memory):
    memory.pipe("/bucket/a", b"content")
    wanted = [f"memory://bucket/{name}" for name in "abc"]
    with pytest.raises(DataError, match=r"2 of the 3 files do not exist: memory://bucket/b"):
        fetched(wanted)


def test_what_was_fetched_is_used_when_the_server_does_not_answer(memory, monkeypatch):
    memory.pipe("/bucket/a", b"content")
    fetched(["memory://bucket/a"])

    def silent(self, path, **options):
        raise TimeoutError("no answer")

    monkeypatch.setattr(type(memory), "info", silent)
    assert fetched(["memory://bucket/a"])["memory://bucket/a"].read_bytes() == b"content"
    with pytest.raises(DataError, match=r"memory://bucket/b: .* no answer"):
        fetched(["memory://bucket/b"])


def test_threads_that_want_one_set_fetch_it_once(memory, monkeypatch):
    names = [f"memory://bucket/{number}" for number in range(20)]
    for name in names:
        memory.pipe(name.removeprefix("memory:/"), name.encode())
    calls = counted(monkeypatch, memory)
    threads = [threading.Thread(target=fetched, args=(names,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(calls) == 20


def test_s3_without_its_package_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] in ("s3fs", "aiobotocore"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"unetexp\[s3\].*s3fs"):
        fetched(["s3://bucket/a.png"])


def test_an_unknown_protocol_names_the_nearest():
    with pytest.raises(DataError, match=r"'htps' is not a choice. Did you mean 'https'"):
        fetched(["htps://example.org/a.png"])


def test_file_addresses_are_read_in_place(tmp_path):
    (tmp_path / "a b.txt").write_text("here")
    uri = (tmp_path / "a b.txt").as_uri()
    assert fetched([uri]) == {uri: tmp_path / "a b.txt"}


def test_http_addresses_are_fetched(tmp_path):
    (tmp_path / "www").mkdir()
    (tmp_path / "www/a.txt").write_bytes(b"served")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/a.txt"
        assert fetched([uri])[uri].read_bytes() == b"served"
        with pytest.raises(DataError, match="1 of the 1 files do not exist"):
            fetched([uri.replace("a.txt", "b.txt")])
        server.shutdown()
