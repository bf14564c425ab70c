"""Versions of the registered model and their succession, in a real MLflow store."""

from __future__ import annotations

import re
import threading
import time

import pytest

from sweeps.promotion import registry
from sweeps.promotion.lock import promotion_lock
from sweeps.promotion.registry import (
    CHAMPION,
    MODEL,
    PREVIOUS,
    LostRaceError,
    champion,
    rollback,
    set_champion,
    version_of,
    withdraw,
)
from sweeps.tracking.store import open_store
from unetexp.errors import UserError


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db")


@pytest.fixture
def store(empty_store):
    yield empty_store
    for model in empty_store.client.search_registered_models():
        empty_store.client.delete_registered_model(model.name)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def add_versions(store, count):
    """Versions 1 to `count`, each from a run of its own; returns the runs' ids."""
    store.client.create_registered_model(MODEL)
    runs = []
    for number in range(count):
        run = store.client.create_run(store.experiment_id)
        source = f"{run.info.artifact_uri}/model"
        store.client.create_model_version(
            MODEL, source, run.info.run_id, tags={"number": str(number)}
        )
        runs.append(run.info.run_id)
    return runs


def aliases(store):
    model = store.client.get_registered_model(MODEL)
    return {alias: str(version) for alias, version in model.aliases.items()}


def tags_of(store, version):
    return store.client.get_model_version(MODEL, version).tags


class TestChampion:
    def test_there_is_no_champion_at_first(self, store):
        assert champion(store) is None
        add_versions(store, 1)
        assert champion(store) is None

    def test_the_champion_moves_on_and_the_old_one_becomes_previous(self, store):
        runs = add_versions(store, 3)
        assert set_champion(store, "1") is None
        assert aliases(store) == {CHAMPION: "1"}
        before = set_champion(store, "2")
        assert (before.version, before.run_id) == ("1", runs[0])
        assert aliases(store) == {CHAMPION: "2", PREVIOUS: "1"}
        assert set_champion(store, "3").version == "2"
        assert aliases(store) == {CHAMPION: "3", PREVIOUS: "2"}
        now = champion(store)
        assert (now.version, now.run_id, now.tags["number"]) == ("3", runs[2], "2")
        assert (now.tags["promoted.replaced"], version_of(store, PREVIOUS).version) == ("2", "2")
        assert "@" in now.tags["promoted.by"]
        assert "promotion.claim" not in now.tags

    def test_the_champion_itself_stays_what_it_is(self, store):
        add_versions(store, 2)
        set_champion(store, "1")
        set_champion(store, "2")
        assert set_champion(store, "2").version == "2"
        assert aliases(store) == {CHAMPION: "2", PREVIOUS: "1"}

    def test_at_no_moment_is_there_no_champion(self, store, monkeypatch):
        add_versions(store, 2)
        set_champion(store, "1")
        seen, set_alias = [], store.client.set_registered_model_alias

        def watched(*call):
            set_alias(*call)
            seen.append(aliases(store))

        monkeypatch.setattr(store.client, "set_registered_model_alias", watched)
        set_champion(store, "2")
        rollback(store)
        assert [state[CHAMPION] for state in seen] == ["1", "2", "1", "1"]


class TestLostRaces:
    def test_a_champion_that_is_no_longer_the_one_compared_with(self, store):
        add_versions(store, 3)
        set_champion(store, "1")
        measured_against = champion(store)
        set_champion(store, "2")
        with pytest.raises(LostRaceError, match=r"version 2 became the champion .*promoted by .+@"):
            set_champion(store, "3", compared_with=measured_against)
        with pytest.raises(LostRaceError, match="version 2 became"):
            set_champion(store, "3", compared_with=None)
        assert aliases(store) == {CHAMPION: "2", PREVIOUS: "1"}
        assert "promotion.claim" not in tags_of(store, "3")

    def test_a_champion_that_was_taken_away(self, store):
        add_versions(store, 2)
        set_champion(store, "1")
        measured_against = champion(store)
        store.client.delete_registered_model_alias(MODEL, CHAMPION)
        with pytest.raises(LostRaceError, match="is no longer the champion"):
            set_champion(store, "2", compared_with=measured_against)

    def test_another_writer_between_our_writing_and_our_look(self, store, monkeypatch):
        add_versions(store, 3)
        set_champion(store, "1")
        set_alias = store.client.set_registered_model_alias

        def overtaken(name, alias, version):
            set_alias(name, alias, version)
            if alias == CHAMPION:
                set_alias(name, alias, "3")

        monkeypatch.setattr(store.client, "set_registered_model_alias", overtaken)
        with pytest.raises(
            LostRaceError, match=r"version 2 .* is not the champion: version 3 became"
        ):
            set_champion(store, "2")
        assert "promoted.by" not in tags_of(store, "2")

    @pytest.mark.parametrize("base", [None, "1"])
    def test_of_many_at_once_one_wins_and_the_others_are_told(self, store, base):
        add_versions(store, 5)
        if base:
            set_champion(store, base)
        compared_with, outcome = champion(store), {}
        gate = threading.Barrier(4)

        def promote(version):
            own = open_store(store.uri)
            gate.wait()
            try:
                set_champion(own, version, compared_with=compared_with)
                outcome[version] = "won"
            except LostRaceError as error:
                outcome[version] = str(error)

        threads = [threading.Thread(target=promote, args=(str(n),)) for n in range(2, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winner = champion(store).version
        assert [version for version, text in outcome.items() if text == "won"] == [winner]
        lost = [text for text in outcome.values() if text != "won"]
        assert len(lost) == 3
        for version, text in outcome.items():
            # One that looks early may be told of a champion that was overtaken right after.
            if version != winner:
                assert f"version {version} of 'unetexp' is not the champion" in text
                assert re.search(f"version [2-5] became(?<!version {version} became)", text)
        assert aliases(store).get(PREVIOUS) == base

    def test_one_that_has_looked_but_not_written_is_waited_for(self, store):
        add_versions(store, 3)
        set_champion(store, "1")
        store.client.set_model_version_tag(MODEL, "3", "promotion.claim", f"{time.time():.0f}")

        def finish():
            time.sleep(0.5)
            store.client.set_registered_model_alias(MODEL, CHAMPION, "3")
            store.client.delete_model_version_tag(MODEL, "3", "promotion.claim")

        slow = threading.Thread(target=finish)
        slow.start()
        with pytest.raises(LostRaceError, match="version 3 became"):
            set_champion(store, "2")
        slow.join()

    def test_a_claim_left_by_one_that_was_killed_is_passed_over(self, store):
        add_versions(store, 2)
        hour_ago = f"{time.time() - 3600:.0f}"
        store.client.set_model_version_tag(MODEL, "1", "promotion.claim", hour_ago)
        started = time.monotonic()
        set_champion(store, "2")
        assert time.monotonic() - started < registry._PATIENCE_S / 2

    def test_a_rollback_is_overtaken(self, store, monkeypatch):
        add_versions(store, 3)
        set_champion(store, "1")
        set_champion(store, "2")
        set_alias = store.client.set_registered_model_alias
        monkeypatch.setattr(
            store.client,
            "set_registered_model_alias",
            lambda name, alias, _: set_alias(name, alias, "3"),
        )
        with pytest.raises(LostRaceError, match="version 3 became"):
            rollback(store)


class TestRollback:
    def test_there_and_back(self, store):
        add_versions(store, 2)
        set_champion(store, "1")
        set_champion(store, "2")
        assert rollback(store) == ("1", "2")
        assert aliases(store) == {CHAMPION: "1", PREVIOUS: "2"}
        assert rollback(store) == ("2", "1")
        assert aliases(store) == {CHAMPION: "2", PREVIOUS: "1"}

    def test_nothing_to_go_back_to(self, store):
        with pytest.raises(UserError, match="has no champion"):
            rollback(store)
        add_versions(store, 1)
        with pytest.raises(UserError, match="has no champion"):
            rollback(store)
        set_champion(store, "1")
        with pytest.raises(UserError, match="no previous one"):
            rollback(store)

    def test_a_previous_version_that_was_deleted(self, store):
        add_versions(store, 2)
        set_champion(store, "1")
        set_champion(store, "2")
        store.client.delete_model_version(MODEL, "1")
        with pytest.raises(UserError, match="no previous one"):
            rollback(store)
        assert champion(store).version == "2"


class TestLock:
    def test_two_at_once_take_turns(self, store):
        inside, told = [], []

        def second():
            with promotion_lock(open_store(store.uri), told.append):
                inside.append("second")

        with promotion_lock(store, told.append):
            other = threading.Thread(target=second)
            other.start()
            deadline = time.monotonic() + 10
            while not told and time.monotonic() < deadline:
                time.sleep(0.02)
            assert (inside, len(told)) == ([], 1)
            inside.append("first")
        other.join()
        assert inside == ["first", "second"]
        assert "another promotion is running on this machine" in told[0]

    def test_stores_do_not_wait_for_each_other(self, store, tmp_path):
        other = open_store(f"sqlite:///{tmp_path}/mlflow.db")
        with promotion_lock(store), promotion_lock(other, pytest.fail):
            pass

    def test_it_opens_after_an_error(self, store):
        with pytest.raises(KeyError), promotion_lock(store):
            raise KeyError
        with promotion_lock(store, pytest.fail):
            pass


def test_a_version_is_taken_back_with_its_files(store, tmp_path):
    (run_id,) = add_versions(store, 1)
    (tmp_path / "MLmodel").touch()
    store.client.log_artifacts(run_id, str(tmp_path), "model")
    withdraw(store, "1")
    assert not store.client.list_artifacts(run_id)
    assert not store.client.search_model_versions(f"name = '{MODEL}'")
