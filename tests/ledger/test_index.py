"""ledger.index: derived, disposable, never trusted. Whatever happens to the file, the answers are those of git."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.errors import LogError
from ledger.git import object_id, tree_bytes, unsigned_commit
from ledger.index import NOTHING, Index
from ledger.log import Log
from ledger.testing import append_runs, chain_of_runs, loosen, reopened, unsafe_log
from ledger.tlog import consistency_proof, inclusion_proof, leaf_hash, root, verify_consistency
from store.digest import Digest

RUNS = chain_of_runs(9)


def answers(log: Log) -> list[object]:
    """Everything that an index answers, through the log."""
    said: list[object] = [log.size, log.head, [entry.commit for entry in log.entries()], log.actions(), log.subjects()]
    for action, outputs in RUNS:
        said += [log.lookup(action.key), log.by_subject(outputs["model"]), log.by_material(outputs["model"])]
    return [*said, log.inclusion_proofs(range(log.size))]


def files(folder: Path) -> list[Path]:
    return sorted((folder / ".ledger").glob("index.sqlite*"))


def delete(folder: Path) -> None:
    for file in files(folder):
        file.unlink()


def garbage(folder: Path) -> None:
    for file in files(folder):
        file.write_bytes(b"garbage" * 1000)


def truncate(folder: Path) -> None:
    for file in files(folder):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])


def folder_in_the_way(folder: Path) -> None:
    delete(folder)
    (folder / ".ledger/index.sqlite").mkdir()


def older(folder: Path) -> None:
    delete(folder)
    for file in (folder / "older").iterdir():
        shutil.copy(file, folder / ".ledger")


def foreign(folder: Path) -> None:
    append_runs(unsafe_log(folder / "other", origin="ledger/other"), RUNS[3:7])
    delete(folder)
    shutil.copy(folder / "other/.ledger/index.sqlite", folder / ".ledger")


def sql(script: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        with sqlite3.connect(folder / ".ledger/index.sqlite") as db:
            db.executescript(script)
        db.close()

    edit.__name__ = script.split()[0].lower() + "_" + script.split()[2].split("(")[0]
    return edit


@pytest.mark.parametrize(
    "damage",
    [
        delete,
        garbage,
        truncate,
        folder_in_the_way,
        older,
        foreign,
        sql("DROP TABLE subjects"),
        sql("DELETE FROM nodes WHERE level = 0"),
        sql("DELETE FROM nodes WHERE level = 2"),
        sql("UPDATE nodes SET hash = zeroblob(32)"),
        sql("UPDATE entries SET oid = (SELECT oid FROM entries WHERE number = 0)"),
        sql("UPDATE entries SET oid = zeroblob(20)"),
        sql("DELETE FROM entries WHERE number = 4"),
        sql("DELETE FROM meta"),
        sql("PRAGMA user_version = 99"),
        sql("UPDATE meta SET value = 'nonsense'"),
    ],
    ids=lambda damage: damage.__name__,
)
def test_damaged_index_gives_equal_answers(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Deleted, damaged, rolled back, foreign or forged: the answers stay the same."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:4])
    log.close()
    (tmp_path / "older").mkdir()
    for file in files(tmp_path):
        shutil.copy(file, tmp_path / "older")
    log = reopened(tmp_path)
    append_runs(log, RUNS[4:])
    expected = answers(log)
    log.close()
    damage(tmp_path)
    assert answers(reopened(tmp_path)) == expected


def test_index_that_vanishes_under_an_open_log_is_made_anew(tmp_path: Path) -> None:
    """A log that is open when the index is overwritten goes on."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:5])
    garbage(tmp_path)
    assert log.lookup(RUNS[3][0].key)[0].number == 3
    append_runs(log, RUNS[5:])
    assert answers(log) == answers(reopened(tmp_path))


def test_entry_outside_the_log_is_not_served(tmp_path: Path) -> None:
    """A forged index that points to a validly signed commit which is not in the log cannot smuggle it in, nor give it another number."""
    log = unsafe_log(tmp_path)
    made = append_runs(log, RUNS[:3])
    stray = log.repository.read_entry(made[2].commit)
    tree = tree_bytes({"entry.dsse.json": object_id("blob", b"{}"), "checkpoint": object_id("blob", stray.checkpoint)})
    commit = unsigned_commit(object_id("tree", tree), None, "m <m@x> 1 +0000", "m")
    log.repository.write([("blob", b"{}"), ("tree", tree), ("commit", commit)])
    for forged in (object_id("commit", commit), made[0].commit):
        sql(f"UPDATE entries SET oid = x'{forged}' WHERE number = 2")(tmp_path)
        assert reopened(tmp_path).lookup(RUNS[2][0].key) == [made[2]]


def test_nodes_give_the_proofs_of_rfc_6962(tmp_path: Path) -> None:
    """Paths and frontiers made from stored nodes are those computed from all leaves, at every size."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(21))
    leaves = [leaf_hash(entry.envelope) for entry in log.entries()]
    index = Index(tmp_path / ".ledger/index.sqlite", log.repository)
    for size in range(1, 22):
        assert index.frontier(size).root == root(leaves[:size])
        for number in range(size):
            assert tuple(index.inclusion_path(number, size)) == inclusion_proof(leaves[:size], number)
            proof = index.consistency_path(number, size)
            assert tuple(proof) == consistency_proof(leaves[:size], number)
            verify_consistency(number, root(leaves[:number]), size, root(leaves[:size]), proof)


def test_unreadable_envelopes_are_indexed_as_being_there(tmp_path: Path) -> None:
    """An entry whose envelope nobody can read has a number and a leaf like any other."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS[:1])
    log._append([(b"not an envelope", "junk", NOTHING)])
    append_runs(log, RUNS[1:2])
    delete(tmp_path)
    again = reopened(tmp_path)
    assert again.size == 3
    assert again.entry(1).envelope == b"not an envelope"
    assert again.lookup(RUNS[1][0].key)[0].number == 2


def test_index_of_a_log_that_git_cannot_read_is_an_error(tmp_path: Path) -> None:
    """A missing commit in the middle is said when the index has to be derived, not skipped."""
    log = unsafe_log(tmp_path)
    made = append_runs(log, RUNS[:4])
    log.close()
    delete(tmp_path)
    oid = made[1].commit
    loosen(log.repository)
    (log.repository.path / "objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(LogError, match=f"commit {oid[:12]}"):
        reopened(tmp_path)


def test_read_only_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When SQLite may not write, the index is held in memory."""
    log = unsafe_log(tmp_path)
    append_runs(log, RUNS)
    expected = answers(log)
    log.close()
    folder_in_the_way(tmp_path)
    again = reopened(tmp_path, signer=None)
    assert answers(again) == expected
    assert again.lookup(Digest.of(b"x")) == []
