"""Claims: a unit has one maker at a time, and none is lost with its maker."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading

import pytest

from diffpref.core.contracts import Record
from diffpref.core.errors import DataError
from diffpref.generation import growing
from diffpref.generation.claims import Claims, share_of_work
from diffpref.generation.growing import GrowingStore


def records(number: int) -> list[Record]:
    return [Record(f"r{number}", "p", ())]


def test_a_claim_is_one_processs_and_says_whose(tmp_path):
    claims = Claims(tmp_path / "claims")
    with claims.take("00003") as ours:
        assert ours and json.loads(claims.holder("00003"))["pid"] == os.getpid()
        with Claims(tmp_path / "claims").take("00003") as theirs, claims.take("00004") as another:
            assert not theirs and another
    with Claims(tmp_path / "claims").take("00003") as again:
        assert again


def test_the_claim_of_a_dead_process_is_free(tmp_path):
    child = os.fork()
    if not child:
        held = Claims(tmp_path / "claims").take("00000")
        held.__enter__()
        os._exit(9)
    os.waitpid(child, 0)
    claims = Claims(tmp_path / "claims")
    assert json.loads(claims.holder("00000"))["pid"] == child
    with claims.take("00000") as ours:
        assert ours


def test_a_file_system_without_locks_is_told_once(tmp_path, monkeypatch, caplog):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    store = GrowingStore(tmp_path / "store", {"seed": 1}, 3)
    store.fill(records)
    assert len(store.finish()) == 3 and caplog.text.count("has no locks (No locks available)") == 1


def test_each_process_begins_with_its_own_units_then_helps(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert share_of_work() == (1, 3)
    made: list[int] = []
    store = GrowingStore(tmp_path / "store", {"seed": 1}, 7)
    store.fill(lambda number: made.append(number) or records(number), rank=1, num_ranks=3)
    assert made == [1, 4, 0, 2, 3, 5, 6]


def test_a_unit_that_another_holds_is_waited_for_and_made_when_it_is_given_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(growing, "PATIENCE", 0.0)
    caplog.set_level("INFO")
    store, made = GrowingStore(tmp_path / "store", {"seed": 1}, 2), []
    held = Claims(store.claims.folder).take("00001")
    held.__enter__()
    threading.Timer(0.3, held.__exit__, (None, None, None)).start()
    store.fill(lambda number: made.append(number) or records(number))
    assert made == [0, 1] and f'waiting for part 1, claimed by {{"pid": {os.getpid()}' in caplog.text
    assert [record.id for record in store.finish()] == ["r0", "r1"]
    assert not store.claims.folder.exists()


def test_a_start_that_was_killed_before_its_plan_was_written_is_no_strange_folder(tmp_path):
    (tmp_path / "store" / ".claims").mkdir(parents=True)
    (tmp_path / "store" / ".tmp-plan.json-123").write_text("{")
    store = GrowingStore(tmp_path / "store", {"seed": 1}, 1)
    store.fill(records)
    store.finish()
    assert sorted(path.name for path in store.folder.iterdir()) == ["manifest.json", "part-00000.parquet", "plan.json"]


def test_a_failing_unit_gives_its_claim_back(tmp_path):
    def fail(number: int) -> list[Record]:
        raise DataError("broken")

    store = GrowingStore(tmp_path / "store", {"seed": 1}, 1)
    with pytest.raises(DataError, match="broken"):
        store.fill(fail)
    store.fill(records)
    assert len(store.finish()) == 1
