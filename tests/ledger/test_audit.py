"""ledger.audit: every change to a log is found; what is well is said by whom; what is not proven is not called proven."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger import audit, note, sshsig, statement
from ledger.git import REF, RawEntry, Repository, object_id, parse_commit, signed_commit, tree_bytes, unsigned_commit
from ledger.index import NOTHING
from ledger.log import REPOSITORY, Log
from ledger.memory import Memory
from ledger.note import Checkpoint
from ledger.policy import Policy
from ledger.report import Report
from ledger.testing import UnsafeSigner, append_runs, chain_of_runs, loosen, reopened, run_payload, unsafe_log, unsafe_policy
from ledger.tlog import leaf_hash, root
from ledger.verify import verify_ledger, verify_log
from store.digest import Digest
from tests.reports import texts

POLICY = unsafe_policy("alice")


def failures(report: Report) -> list[str]:
    """The texts of what failed; the verdict must agree."""
    found = [row.text for row in report.rows if row.status == "failed"]
    assert (report.verdict == "FAILED") == (report.exit_code == 3) == bool(found)
    return found


def verified(folder: Path, policy: Policy = POLICY, *, full: bool = False, memory: str = "state") -> Report:
    return verify_ledger(folder / ".ledger", policy, full=full, memory=Memory(folder / memory))


# --- every byte ------------------------------------------------------------------------------------------------------------------


class Overlay(Repository):
    """A repository in which some objects are replaced and the ref is elsewhere; nothing is written."""

    def __init__(self, path: Path, objects: dict[str, tuple[str, bytes]], head: str) -> None:
        super().__init__(path)
        self.objects, self.tip = objects, head

    def head(self) -> str | None:
        return self.tip

    def read(self, oid: str, kind: str) -> bytes:
        if oid in self.objects and self.objects[oid][0] == kind:
            return self.objects[oid][1]
        return super().read(oid, kind)


def raw(log: Log) -> list[RawEntry]:
    return [log.repository.read_entry(entry.commit) for entry in log.entries()]


def relinked(log: Log, number: int, part: str, data: bytes) -> tuple[dict[str, tuple[str, bytes]], str]:
    """The log in which one object of an entry has other bytes, and all ids above it are computed again: new objects, new tip.

    The signatures stay as they were: whoever does this has no key.
    """
    objects: dict[str, tuple[str, bytes]] = {}

    def put(kind: str, content: bytes) -> str:
        objects[object_id(kind, content)] = kind, content
        return object_id(kind, content)

    parent: str | None = None
    for at, one in enumerate(raw(log)):
        commit = log.repository.read(one.oid, "commit")
        if at < number:
            parent = one.oid
            continue
        old_tree = log.repository.read(one.commit.tree, "tree")
        envelope, checkpoint, tree = one.envelope, one.checkpoint, old_tree
        if at == number:
            envelope, checkpoint = (data if part == name else kept for name, kept in (("envelope", envelope), ("checkpoint", checkpoint)))
            tree = tree_bytes({"entry.dsse.json": put("blob", envelope), "checkpoint": put("blob", checkpoint)})
            tree = data if part == "tree" else tree
            commit = data if part == "commit" else commit.replace(one.commit.tree.encode(), put("tree", tree).encode())
        elif one.commit.parents and parent is not None:
            commit = commit.replace(b"parent " + one.commit.parents[0].encode(), b"parent " + parent.encode(), 1)
        parent = put("commit", commit)
    assert parent is not None
    return objects, parent


def part_bytes(log: Log, number: int, part: str) -> bytes:
    one = raw(log)[number]
    if part == "tree":
        return log.repository.read(one.commit.tree, "tree")
    if part == "commit":
        return log.repository.read(one.oid, "commit")
    return one.envelope if part == "envelope" else one.checkpoint


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Two entries with statements as small as they get."""
    log = unsafe_log(tmp_path_factory.mktemp("small"))
    for name in ("a", "b"):
        log.append([statement.make({name: Digest.of(name.encode())}, "urn:x", {})], [name])
    return log


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("part", ["envelope", "checkpoint", "tree", "commit"])
def test_every_changed_byte_of_a_relinked_log_is_found(small: Log, tmp_path: Path, part: str, number: int) -> None:
    """Each single byte of each object of a small log is changed, all ids are made right again, nothing is remembered: always FAILED."""
    data = part_bytes(small, number, part)
    log = Log.open(small.folder, memory=Memory(tmp_path))
    (tmp_path / "index").mkdir()
    log._index._path = tmp_path / "index"  # a folder: SQLite cannot write there, so the index is in memory
    log._index._db = log._index._connect()
    objects, tip = relinked(small, number, part, data)
    log.repository = log._index._repository = Overlay(small.repository.path, objects, tip)
    assert not failures(verify_log(log, POLICY))
    log = Log.open(small.folder, memory=Memory(tmp_path / "nothing remembered"))
    log._index._path = tmp_path / "index"
    log._index._db = log._index._connect()
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        objects, tip = relinked(small, number, part, changed)
        log.repository = log._index._repository = Overlay(small.repository.path, objects, tip)
        assert failures(verify_log(log, POLICY)), f"byte {place} of the {part} of entry {number}"


@pytest.mark.parametrize("part", ["envelope", "checkpoint", "tree", "commit"])
def test_every_changed_byte_under_the_old_name_is_found(small: Log, part: str) -> None:
    """An object whose bytes were changed in place, its name kept, is never read."""

    class Raw:
        def __init__(self, kind: int, data: bytes) -> None:
            self.answer = kind, data

        def read(self, oid: str) -> tuple[int, bytes]:
            return self.answer

    data, kind = part_bytes(small, 0, part), {"tree": "tree", "commit": "commit"}.get(part, "blob")
    repository = Repository(small.repository.path)
    assert repository.read(object_id(kind, data), kind) == data
    for place in range(len(data)):
        repository.__dict__["_odb"] = Raw(
            {"commit": 1, "tree": 2, "blob": 3}[kind], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        )
        with pytest.raises(Exception, match="is damaged: its bytes hash to"):
            repository.read(object_id(kind, data), kind)


def test_changed_object_on_disk_fails_the_audit(tmp_path: Path) -> None:
    """The same through the front door: a loose object overwritten in place, at each entry and for each kind of object."""
    import zlib

    log = unsafe_log(tmp_path)
    for run in chain_of_runs(3):
        append_runs(log, [run])
    assert not failures(verified(tmp_path))
    loosen(log.repository)
    for one in raw(log):
        for oid, kind in ((one.oid, "commit"), (one.commit.tree, "tree"), (object_id("blob", one.envelope), "blob")):
            file = log.repository.path / "objects" / oid[:2] / oid[2:]
            good = file.read_bytes()
            content = log.repository.read(oid, kind)
            file.chmod(0o644)
            file.write_bytes(zlib.compress(f"{kind} {len(content)}".encode() + b"\0" + content[:-1] + bytes([content[-1] ^ 1])))
            assert failures(verified(tmp_path))
            file.unlink()
            assert failures(verified(tmp_path))
            file.write_bytes(good)
    assert not failures(verified(tmp_path))


# --- whole entries ---------------------------------------------------------------------------------------------------------------


def rebuilt(log: Log, entries: list[RawEntry], *, signer: str | None = None) -> str:
    """A log made of these entries, with roots, ids and (with a signer) signatures made right; gives the tip."""
    leaves: list[bytes] = []
    parent: str | None = None
    for one in entries:
        leaves.append(leaf_hash(one.envelope))
        checkpoint = one.checkpoint
        if signer:
            checkpoint = note.sign_checkpoint(Checkpoint("ledger/test", len(leaves), root(leaves)), UnsafeSigner(signer))
        tree = tree_bytes({"entry.dsse.json": object_id("blob", one.envelope), "checkpoint": object_id("blob", checkpoint)})
        unsigned = unsigned_commit(object_id("tree", tree), parent, one.commit.committer, one.commit.message.rstrip("\n"))
        armoured = sshsig.sign(unsigned, UnsafeSigner(signer)) if signer else one.commit.signature or ""
        commit = signed_commit(unsigned, armoured)
        log.repository.write([("blob", one.envelope), ("blob", checkpoint), ("tree", tree), ("commit", commit)])
        parent = object_id("commit", commit)
    assert parent is not None
    return parent


def move(log: Log, tip: str) -> None:
    subprocess.run(["git", "--git-dir", str(log.repository.path), "update-ref", REF, tip], check=True)


def swap(entries: list[RawEntry]) -> list[RawEntry]:
    return [entries[0], entries[2], entries[1], *entries[3:]]


def drop(entries: list[RawEntry]) -> list[RawEntry]:
    return entries[:1] + entries[2:]


def repeat(entries: list[RawEntry]) -> list[RawEntry]:
    return [*entries, entries[1]]


def truncate(entries: list[RawEntry]) -> list[RawEntry]:
    return entries[:3]


@pytest.mark.parametrize("change", [swap, drop, repeat])
def test_reordered_dropped_or_repeated_entries_are_found(tmp_path: Path, change: Callable[[list[RawEntry]], list[RawEntry]]) -> None:
    """Without the key, moving whole entries around breaks checkpoints and signatures, even if nothing is remembered."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(5))
    move(log, rebuilt(log, change(raw(log))))
    assert failures(verified(tmp_path, memory="nothing remembered"))


@pytest.mark.parametrize("change", [swap, drop, truncate])
def test_rewriting_with_the_key_is_found_by_what_is_remembered(tmp_path: Path, change: Callable[[list[RawEntry]], list[RawEntry]]) -> None:
    """Whoever has the key can make a consistent other log; the checkpoint accepted before shows it, and both notes are the evidence."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(5))
    accepted = log.checkpoint or b""
    move(log, rebuilt(log, change(raw(log)), signer="alice"))
    (fault,) = failures(verified(tmp_path))
    assert " ".join(accepted.decode().split()) in fault
    assert not failures(verified(tmp_path, memory="nothing remembered"))


def test_stranger_at_the_end_vouches_for_nothing(tmp_path: Path) -> None:
    """Entries added by an unknown key are unchecked; entries before them stay proven; a log signed by strangers alone fails."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(2))
    mallory = Log.open(tmp_path / ".ledger", signer=UnsafeSigner("mallory"), memory=Memory(tmp_path / "m"))
    append_runs(mallory, chain_of_runs(4)[2:])
    report = verified(tmp_path)
    assert not failures(report)
    assert "entries 2 to 3 were added by keys that test policy lets sign no log" in texts(report, "unverified")
    assert "2 entries count for nothing here; entry 2" in texts(report, "unverified")
    assert "bind all entries up to 1" in texts(report, "proven")
    assert report.verdict == "VERIFIED with 2 claims unconfirmed"
    (fault,) = failures(verified(tmp_path, unsafe_policy("bob")))
    assert "nobody whom test policy lets sign a log (bob) signed this one" in fault


def test_log_that_a_stranger_took_over_is_not_proven(tmp_path: Path) -> None:
    """All of it signed anew by another key: the statements are genuine, but nobody trusted vouches for the log."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(3))
    move(log, rebuilt(log, raw(log), signer="mallory"))
    assert failures(verified(tmp_path, memory="nothing remembered"))


def test_changes_of_the_signer_are_checked(tmp_path: Path) -> None:
    """Where the signing key changes, signatures are checked without `full` too."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(3))
    bob = Log.open(tmp_path / ".ledger", signer=UnsafeSigner("bob"), memory=Memory(tmp_path / "state"))
    append_runs(bob, chain_of_runs(5)[3:])
    report = verified(tmp_path, unsafe_policy("alice", "bob"))
    assert "those where the signer changes (2), signed by alice and bob" in texts(report, "proven")
    assert report.verdict == "VERIFIED"


def test_full_checks_every_signature(tmp_path: Path) -> None:
    """A bad signature in the middle that a trusted signer built upon is bound by what came after, and `full` names it."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(4))
    assert "every commit and checkpoint, signed by alice" in texts(verified(tmp_path, full=True), "proven")
    entries = raw(log)
    unsigned = unsigned_commit(entries[1].commit.tree, entries[0].oid, entries[1].commit.committer, "another message")
    bad = signed_commit(unsigned, entries[1].commit.signature or "")
    log.repository.write([("commit", bad)])
    parent = object_id("commit", bad)
    for one in entries[2:]:
        unsigned = unsigned_commit(one.commit.tree, parent, one.commit.committer, one.commit.message.rstrip("\n"))
        commit = signed_commit(unsigned, sshsig.sign(unsigned, UnsafeSigner("alice")))
        log.repository.write([("commit", commit)])
        parent = object_id("commit", commit)
    move(log, parent)
    assert not failures(verified(tmp_path))
    assert failures(verified(tmp_path, full=True)) == ["entry 1: not a valid signature by " + UnsafeSigner("alice").public.short]


def test_key_counts_for_the_log_only_within_its_span(tmp_path: Path) -> None:
    """A key that was retired at entry 2 cannot sign what comes later."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(4))
    text = f'version: 1\nkeys: {{alice: {{key: "{UnsafeSigner("alice").public}", until: 2}}}}\nrules: [{{keys: [alice]}}]\n'
    report = verified(tmp_path, Policy.parse(text))
    assert "bind all entries up to 1" in texts(report, "proven")
    assert "entries 2 to 3 were added by keys" in texts(report, "unverified")


# --- what git would show differently, and what does not belong ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["refs/replace/" + "a" * 40, "info/grafts", "shallow", "objects/info/alternates"])
def test_overrides_of_git_are_refused(tmp_path: Path, name: str) -> None:
    """Replace refs, grafts, shallow marks and alternates fail the audit by name."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(2))
    file = log.repository.path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{log.head}\n")
    for report in (verified(tmp_path), verify_log(log, POLICY)):
        assert any(name in fault and "another history" in fault for fault in failures(report))


def odd_commits(log: Log) -> Iterator[tuple[str, bytes, list[tuple[str, bytes]]]]:
    """Commits on top of a log that no entry may be: what the finding says, the commit, and objects it needs."""
    head = log.head or ""
    one = log.repository.read_entry(head)
    who = one.commit.committer
    good = {"entry.dsse.json": object_id("blob", one.envelope), "checkpoint": object_id("blob", one.checkpoint)}
    signer = UnsafeSigner("alice")

    def signed(unsigned: bytes) -> bytes:
        return signed_commit(unsigned, sshsig.sign(unsigned, signer))

    merge = unsigned_commit(one.commit.tree, head, who, "merge").replace(
        b"\nauthor", f"\nparent {one.commit.parents[0]}\nauthor".encode(), 1
    )
    yield "has 2 parents; the log is one line", signed(merge), []
    for extra in ({"notes.txt": good["checkpoint"]}, {"entry.dsse.json": None}):
        files = {name: oid for name, oid in (good | extra).items() if oid}
        tree = tree_bytes(files)
        yield (
            "expected exactly checkpoint and entry.dsse.json",
            signed(unsigned_commit(object_id("tree", tree), head, who, "x")),
            [("tree", tree)],
        )
    script = tree_bytes(good).replace(b"100644 entry", b"100755 entry")
    commit = signed(unsigned_commit(object_id("tree", script), head, who, "x"))
    yield "something else than plain files", commit, [("tree", script)]
    yield "not signed", unsigned_commit(one.commit.tree, head, who, "x"), []


def test_commits_that_are_no_entries_are_refused_by_name(tmp_path: Path) -> None:
    """Two parents, foreign files, missing files, executable files, no signature: each is said, signed by the owner or not."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(2))
    head = log.head or ""
    for message, commit, objects in list(odd_commits(log)):
        log.repository.write([*objects, ("commit", commit)])
        move(log, object_id("commit", commit))
        assert any(message in fault for fault in failures(verified(tmp_path))), message
        move(log, head)
    assert not failures(verified(tmp_path))


def test_missing_middle_is_said_with_where(tmp_path: Path) -> None:
    """A lost commit breaks the way back; the finding says how much hangs in the air."""
    log = unsafe_log(tmp_path)
    made = append_runs(log, chain_of_runs(5))
    oid = made[2].commit
    loosen(log.repository)
    (log.repository.path / "objects" / oid[:2] / oid[2:]).unlink()
    (fault,) = failures(verify_log(log, POLICY))
    assert f"commit {oid[:12]}" in fault
    assert "The 2 entries after it hang in the air" in fault


# --- envelopes -------------------------------------------------------------------------------------------------------------------


def test_envelope_that_says_it_is_by_a_known_key_and_is_not_fails(tmp_path: Path) -> None:
    """A forged signature under a trusted keyid is a failure; a valid one by a stranger merely counts for nothing."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(1))
    theirs = unsafe_log(tmp_path / "b", signer="bob")
    (foreign,) = append_runs(theirs, chain_of_runs(2)[1:])
    log.append_foreign([foreign.envelope])
    assert not failures(verified(tmp_path))
    alice, bob = str(UnsafeSigner("alice").public).encode(), str(UnsafeSigner("bob").public).encode()
    log.append_foreign([foreign.envelope.replace(bob, alice)])
    (fault,) = failures(verified(tmp_path))
    assert fault.startswith("entry 2: no valid signature")


def test_statement_that_is_no_run_of_its_kind_fails(tmp_path: Path) -> None:
    """A trusted signature on a run whose action cannot be recomputed is a failure."""
    from ledger import dsse

    log, (action, outputs) = unsafe_log(tmp_path), chain_of_runs(1)[0]
    bad = run_payload(action, outputs).replace(b'"purity":"P"', b'"purity":"X"')
    log._append([(dsse.sign(bad, UnsafeSigner("alice")), "bad", NOTHING)])
    (fault,) = failures(verified(tmp_path))
    assert "entry 0: a run's internalParameters name its purity" in fault


def test_contradictions_are_found(tmp_path: Path) -> None:
    """Two trusted results of one action that differ fail the audit; equal ones do not."""
    log, runs = unsafe_log(tmp_path), chain_of_runs(2)
    append_runs(log, [*runs, runs[0]])
    assert not failures(verified(tmp_path))
    append_runs(log, [(runs[1][0], {"model": Digest.of(b"other")})])
    (fault,) = failures(verified(tmp_path))
    assert "has two trusted results that differ in model" in fault


# --- what is said ----------------------------------------------------------------------------------------------------------------


def test_empty_log_is_said(tmp_path: Path) -> None:
    """A log without entries proves nothing, whoever emptied it: deleting the ref of somebody else's log gives no VERIFIED."""
    log = unsafe_log(tmp_path)
    report = verified(tmp_path)
    assert (report.verdict, report.exit_code) == ("NOT VERIFIED", 3)
    assert "the log ledger/test is empty, and no entry of it was accepted here before: nobody signed that" in texts(report, "unverified")
    append_runs(log, chain_of_runs(2))
    log.repository.path.joinpath("refs/heads/ledger").unlink()
    assert verified(tmp_path, memory="elsewhere").verdict == "NOT VERIFIED"


def test_first_sight_is_said_and_remembered(tmp_path: Path) -> None:
    """On another machine the first audit says that older rollbacks are unknown; the second compares with the first."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(3))
    assert "whether it was rolled back before today" in texts(verified(tmp_path, memory="elsewhere"), "unverified")
    assert "extends the checkpoint of 3 entries" in texts(verified(tmp_path, memory="elsewhere"), "proven")
    move(log, log.entry(1).commit)
    assert failures(verified(tmp_path, memory="elsewhere"))


def test_memory_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    """Where nothing can be remembered, the log still verifies, and it is said that a rollback would go unnoticed."""
    append_runs(unsafe_log(tmp_path), chain_of_runs(2))
    (tmp_path / "file").write_text("")
    report = verified(tmp_path, memory="file/below")
    assert report.verdict == "VERIFIED with 2 claims unconfirmed"
    assert "a rollback of the ledger would go unnoticed" in texts(report, "unverified")


def test_failed_audit_remembers_nothing(tmp_path: Path) -> None:
    """A log that did not verify is not accepted."""
    append_runs(unsafe_log(tmp_path, signer="mallory"), chain_of_runs(3))
    assert failures(verified(tmp_path, memory="elsewhere"))
    assert Memory(tmp_path / "elsewhere").checkpoint("ledger/test") is None


def test_index_that_disagrees_is_said_and_repaired(tmp_path: Path) -> None:
    """An index that hides a key is found by the audit and made anew."""
    import sqlite3

    log, runs = unsafe_log(tmp_path), chain_of_runs(3)
    append_runs(log, runs)
    log.close()
    with sqlite3.connect(tmp_path / ".ledger/index.sqlite") as db:
        db.execute("UPDATE entries SET key = NULL WHERE number = 1")
    db.close()
    assert reopened(tmp_path).lookup(runs[1][0].key) == []
    assert "the index disagreed with git, and was made anew" in texts(verified(tmp_path), "unverified")
    assert len(reopened(tmp_path).lookup(runs[1][0].key)) == 1
    assert verified(tmp_path).verdict == "VERIFIED"


def test_no_log_is_an_error_and_not_a_finding(tmp_path: Path) -> None:
    """A folder without a log cannot be verified at all."""
    from ledger.errors import LogError

    with pytest.raises(LogError, match="no git repository"):
        verified(tmp_path)
    assert REPOSITORY == "log.git"


def test_signature_by_another_kind_of_key_is_said() -> None:
    """An SSH signature that names no Ed25519 key is malformed here, not a stranger's."""
    from ledger.errors import SignatureError

    for text in ("", "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"):
        with pytest.raises(SignatureError):
            audit._embedded_key(text)


def test_parse_of_commits_is_that_of_git(small: Log) -> None:
    """The parts that the audit reads are those that git shows."""
    head = small.head or ""
    shown = subprocess.run(
        ["git", "--git-dir", str(small.repository.path), "cat-file", "commit", head], capture_output=True, check=True
    ).stdout
    assert shown == small.repository.read(head, "commit")
    assert parse_commit(shown).tree == small.repository.read_commit(head).tree
