"""The attack matrix, rows about the log, its checkpoints and its repository: 2 to 4, 7, 8, 19, 29 and 31."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ledger import cosign, note, witness_folder
from ledger.audit import audit_folder
from ledger.errors import FrozenError, NoteError, ProofError, RewrittenError
from ledger.git import REF
from ledger.hf_hub import HfHub
from ledger.locator import parse
from ledger.log import REPOSITORY, Log
from ledger.lookup import find
from ledger.memory import Memory
from ledger.note import Checkpoint
from ledger.policy import Policy
from ledger.remote import Depth, audit_remote
from ledger.sightings import Sightings
from ledger.testing import UNSAFE_TIME, UnsafeSigner, append_runs, chain_of_runs, reopened, unsafe_log, unsafe_policy
from ledger.tlog import consistency_proof, inclusion_proof, leaf_hash, node_hash, root, verify_consistency, verify_inclusion
from ledger.verify import verify_log
from ledger.witness import Witness
from store import fsck
from store.digest import Digest
from store.local import LocalCas
from tests.hub import LoopbackHub
from tests.ledger.test_audit import drop, move, raw, rebuilt, repeat, swap, truncate
from tests.publications import REPO, policy, publish
from tests.reports import texts

ALICE, WITNESS = UnsafeSigner("alice"), UnsafeSigner("witness")
POLICY = unsafe_policy("alice")


def witnessed(max_age: str = "30d") -> Policy:
    """Trusts alice, when the witness has seen her log lately."""
    keys = f'{{alice: "{ALICE.public}", witness: "{WITNESS.public}"}}'
    wanted = f"{{witnesses: [witness], threshold: 1, maxAge: {max_age}}}"
    return Policy.parse(f"version: 1\nkeys: {keys}\nrules: [{{keys: [alice]}}]\ncheckpoints: {wanted}\n")


def grown(folder: Path, *, runs: int = 3, signer: str = "alice", state: str = "state") -> Log:
    log = Log.create(folder / ".ledger", signer=UnsafeSigner(signer), origin="ledger/test", memory=Memory(folder / state))
    append_runs(log, chain_of_runs(runs))
    return log


def replace_with(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def test_attack_02_rollback(tmp_path: Path, hub: LoopbackHub) -> None:
    """An older tip of the log, an older index beside a newer log, an older revision of the repository: each is said, with the evidence."""
    log = grown(tmp_path, runs=2)
    shutil.copytree(tmp_path / ".ledger", tmp_path / "older")
    append_runs(log, chain_of_runs(4)[2:])
    log.close()
    memory = Memory(tmp_path / "state")
    assert audit_folder(tmp_path / ".ledger", POLICY, memory=memory).exit_code == 0
    shutil.copytree(tmp_path / ".ledger", tmp_path / "newer")
    shutil.copy(tmp_path / "older/index.sqlite", tmp_path / ".ledger/index.sqlite")
    assert audit_folder(tmp_path / ".ledger", POLICY, memory=memory).exit_code == 0, "an index is derived: it catches up"
    replace_with(tmp_path / ".ledger", tmp_path / "older")
    report = audit_folder(tmp_path / ".ledger", POLICY, memory=memory)
    assert report.exit_code == 3
    assert "rolled back: it has 2 entries, 4 were accepted before" in texts(report, "failed")
    assert "Evidence: accepted: ledger/test 4" in texts(report, "failed")
    with pytest.raises(RewrittenError):
        reopened(tmp_path)
    # the repository: what the QR names is newer than what is served, or what was audited before is served again
    first, second = publish(tmp_path / "first"), publish(tmp_path / "second", more={"news.md": b"of the second"})
    hub.put(REPO, first.files)
    old = hub.head(REPO)
    depth = Depth(sightings=Sightings(tmp_path / "seen", hub.endpoint), now="2027-02-01T00:00:00Z")
    assert audit_remote(parse(f"hf:{REPO}@{first.alloy}"), HfHub(), policy("alice"), depth).exit_code == 0
    hub.put(REPO, second.files)
    fresh = audit_remote(parse(f"hf:{REPO}@{second.alloy}"), HfHub(), policy("alice"), depth)
    assert fresh.exit_code == 0
    hub.repo(REPO).commits.pop()
    assert hub.head(REPO) == old
    assert audit_remote(parse(f"hf:{REPO}@{second.alloy}"), HfHub(), policy("alice"), Depth()).exit_code == 3
    assert audit_remote(parse(f"hf:{REPO}"), HfHub(), policy("alice"), depth).exit_code == 3


def test_attack_03_freeze(tmp_path: Path) -> None:
    """A log that nobody has seen lately fails under a policy that wants witnesses, however well signed; a witness may be stuck."""
    log = grown(tmp_path)
    now = float(UNSAFE_TIME)
    assert verify_log(log, POLICY).exit_code == 0

    def judged(when: float) -> list[str]:
        return [row.status for row in witness_folder.rows(log, witnessed(), now=when)]

    assert judged(now) == ["failed"], "never seen"
    witness_folder.keep(log, Witness(WITNESS, Memory(tmp_path / "witness"), clock=lambda: now).cosign_log(log))
    assert "failed" not in judged(now + 29 * 86_400)
    assert "failed" in judged(now + 31 * 86_400), "stuck for 31 days"
    append_runs(log, chain_of_runs(5)[3:])
    assert "failed" in judged(now + 31 * 86_400), "growing is not being seen"
    with pytest.raises(FrozenError, match="Newer entries, a revocation too, may be kept from you"):
        cosign.judge(cosign.read(note.parse_note(witness_folder.newest(log) or b""), witnessed()), witnessed(), now=now + 31 * 86_400)
    # a cosignature with another time, by another key, or from the future is none
    kept = next((tmp_path / ".ledger" / witness_folder.FOLDER).iterdir())
    fresh = Witness(UnsafeSigner("stranger"), Memory(tmp_path / "stranger"), clock=lambda: now + 31 * 86_400).cosign_log(log)
    witness_folder.keep(log, fresh)
    assert "failed" in judged(now + 31 * 86_400)
    ahead = cosign.sign(log.checkpoint or b"", WITNESS, when=int(now + 400 * 86_400))
    assert "failed" in [row.status for row in cosign.travelled([ahead], witnessed(), now=now + 31 * 86_400)]
    assert kept.exists()


def test_attack_04_fast_forward(tmp_path: Path) -> None:
    """An absurd size bars nobody: a witness does not sign it, no reader remembers it, and the honest log goes on."""
    log = grown(tmp_path)
    witness = Witness(WITNESS, Memory(tmp_path / "witness"))
    for size in (2**41, 2**62, 2**63):
        with pytest.raises((NoteError, RewrittenError)):
            witness.cosign_note(_request(0, note.sign_checkpoint(Checkpoint("ledger/test", size, b"\1" * 32), ALICE)))
    first = log.checkpoint or b""
    witness.cosign_log(log)
    with pytest.raises(RewrittenError):  # a size that could be, but is not proven to follow
        witness.cosign_note(_request(3, note.sign_checkpoint(Checkpoint("ledger/test", 2**39, b"\1" * 32), ALICE)))
    # whoever signs the log writes an entry with such a checkpoint: it fails, and is not remembered
    tip = raw(log)
    jump = rebuilt(log, tip[:2], signer="alice")
    absurd = note.sign_checkpoint(Checkpoint("ledger/test", 2**40, b"\1" * 32), ALICE)
    move(log, _with_checkpoint(log, jump, tip[2].envelope, absurd))
    log.close()
    victim = Memory(tmp_path / "victim")
    report = audit_folder(tmp_path / ".ledger", POLICY, memory=victim)
    assert report.exit_code == 3
    assert victim.checkpoint("ledger/test") is None
    # and back: the honest log is where it was
    subprocess.run(["git", "--git-dir", str(tmp_path / ".ledger" / REPOSITORY), "update-ref", REF, tip[2].oid], check=True)
    again = reopened(tmp_path)
    assert again.checkpoint == first
    append_runs(again, chain_of_runs(4)[3:])
    assert witness.cosign_log(again)
    assert verify_log(again, POLICY).exit_code == 0


def _request(old: int, signed: bytes) -> bytes:
    return f"old {old}\n\n".encode() + signed


def _with_checkpoint(log: Log, parent: str, envelope: bytes, checkpoint: bytes) -> str:
    """One more entry with a checkpoint of one's own; gives its commit."""
    from ledger import sshsig
    from ledger.git import CHECKPOINT, ENVELOPE, object_id, signed_commit, tree_bytes, unsigned_commit

    tree = tree_bytes({ENVELOPE: object_id("blob", envelope), CHECKPOINT: object_id("blob", checkpoint)})
    unsigned = unsigned_commit(object_id("tree", tree), parent, "alice <ledger@localhost> 1700000000 +0000", "jump")
    commit = signed_commit(unsigned, sshsig.sign(unsigned, ALICE))
    log.repository.write([("blob", envelope), ("blob", checkpoint), ("tree", tree), ("commit", commit)])
    return object_id("commit", commit)


def test_attack_07_fork(tmp_path: Path) -> None:
    """Two logs of one origin and size with different roots, by the key itself: refused by whoever saw one, with both as evidence."""
    honest = grown(tmp_path / "one")
    fork = grown(tmp_path / "two", state="elsewhere", runs=2)
    append_runs(fork, [(chain_of_runs(3)[2][0], {"model": Digest.of(b"evil")})])
    assert honest.size == fork.size
    one, two = (" ".join((log.checkpoint or b"").decode().split()) for log in (honest, fork))
    # a witness that saw one signs no other
    witness = Witness(WITNESS, Memory(tmp_path / "witness"))
    cosigned = witness.cosign_log(honest)
    with pytest.raises(RewrittenError) as caught:
        witness.cosign_log(fork)
    assert (caught.value.accepted, caught.value.found) == (cosigned, fork.checkpoint)
    # a reader who is shown the fork, and finds the other one's cosigned checkpoint beside it
    folder = tmp_path / "two/.ledger" / witness_folder.FOLDER
    assert verify_log(fork, POLICY).exit_code == 0, "nobody can know: this reader has seen nothing else"
    folder.mkdir()
    (folder / "3").write_bytes(cosigned)
    report = verify_log(fork, POLICY)
    assert report.exit_code == 3
    assert one.split(" — ")[0] in texts(report, "failed")
    assert two.split(" — ")[0] in texts(report, "failed")
    # and one who has seen the honest log on this machine
    honest.close()
    fork.close()
    shutil.rmtree(tmp_path / "one/.ledger")
    shutil.copytree(tmp_path / "two/.ledger", tmp_path / "one/.ledger")
    evidence = texts(audit_folder(tmp_path / "one/.ledger", POLICY, memory=Memory(tmp_path / "one/state")), "failed")
    assert one in evidence
    assert two in evidence


def test_attack_08_log_tamper(tmp_path: Path) -> None:
    """Reordered, dropped, repeated and truncated entries, one that is rewritten in the middle, a deleted ref: with and without the key."""
    for change in (None, swap, drop, repeat, truncate):
        for signer in (None, "alice"):
            folder = tmp_path / f"{change.__name__ if change else 'control'}-{signer}"
            log = grown(folder, runs=5)
            entries = raw(log)
            move(log, rebuilt(log, change(entries) if change else entries, signer=signer))
            log.close()
            seen, unseen = (audit_folder(folder / ".ledger", POLICY, memory=Memory(folder / name)) for name in ("state", "new"))
            # Whoever has the key may append what he likes, and cut short what nobody has seen; everything else is found.
            rewritten = change in (swap, drop, truncate) or (change is repeat and signer is None)
            unsigned = change in (swap, drop, repeat) and signer is None
            assert seen.exit_code == (3 if rewritten else 0), folder.name
            assert unseen.exit_code == (3 if unsigned else 0), folder.name
    log = grown(tmp_path / "teleport", runs=3)
    other = unsafe_log(tmp_path / "other", origin="ledger/other")
    append_runs(other, chain_of_runs(3))
    for one in raw(other):  # an entry of another log, with its own checkpoint and commit
        log.repository.write([("blob", one.envelope), ("blob", one.checkpoint)])
    move(log, _with_checkpoint(log, raw(log)[-1].oid, raw(other)[1].envelope, raw(other)[1].checkpoint))
    log.close()
    assert audit_folder(tmp_path / "teleport/.ledger", POLICY, memory=Memory(tmp_path / "new")).exit_code == 3
    log = grown(tmp_path / "ref")
    log.close()
    subprocess.run(["git", "--git-dir", str(tmp_path / "ref/.ledger" / REPOSITORY), "update-ref", "-d", REF], check=True)
    report = audit_folder(tmp_path / "ref/.ledger", POLICY, memory=Memory(tmp_path / "ref/state"))
    assert report.exit_code == 3
    assert "rolled back: it has 0 entries, 3 were accepted before" in texts(report, "failed")


def test_attack_19_second_preimage() -> None:
    """An inner node is no leaf, a leaf no node; no proof of one place, size or length serves another."""
    leaves = [leaf_hash(b"%d" % number) for number in range(7)]
    top = root(leaves)
    for index in range(7):
        verify_inclusion(leaves[index], index, 7, inclusion_proof(leaves, index), top)
    node = node_hash(leaves[0], leaves[1])
    forged = [node, *(node_hash(leaves[n], leaves[n + 1]) for n in (2, 4)), leaves[6]]
    assert root(forged) == top, "the tree over inner nodes has the same root"
    for index, (size, proof) in enumerate([(4, inclusion_proof(forged, 0)), (4, inclusion_proof(forged, 1))]):
        verify_inclusion(forged[index], index, size, proof, top)  # so a size that nobody signed proves nothing: checkpoints sign it
        with pytest.raises(ProofError):
            verify_inclusion(forged[index], index, 7, proof, top)
    data = leaves[0] + leaves[1]
    assert leaf_hash(data) != node, "0x00 and 0x01 tell them apart"
    with pytest.raises(ProofError):
        verify_inclusion(leaf_hash(data), 0, 4, inclusion_proof(forged, 0), top)
    odd = inclusion_proof(leaves, 6)
    for index, proof in ((5, odd), (7, odd), (6, (*odd, leaves[6])), (6, odd[:-1]), (6, odd[::-1]), (-1, odd)):
        with pytest.raises(ProofError):
            verify_inclusion(leaves[6], index, 7, proof, top)
    assert root([*leaves, leaves[6]]) != top, "the last leaf is not doubled"
    good = consistency_proof(leaves, 3)
    verify_consistency(3, root(leaves[:3]), 7, top, good)
    for old, proof in ((2, good), (4, good), (3, good[:-1]), (3, (*good, top)), (0, good), (8, good)):
        with pytest.raises(ProofError):
            verify_consistency(old, root(leaves[:3]), 7, top, proof)


@pytest.mark.parametrize("how", ["replace", "graft", "shallow", "alternates"])
def test_attack_29_replace_refs(tmp_path: Path, how: str) -> None:
    """What makes git show another history than the signed one has no effect here, and is a failure that names the file to delete."""
    log = grown(tmp_path)
    runs = chain_of_runs(3)
    repository = log.repository.path
    assert verify_log(log, POLICY).exit_code == 0
    good, evil = raw(log)[1], rebuilt(log, [raw(log)[0], raw(log)[2]])
    log.close()
    if how == "replace":
        subprocess.run(["git", "--git-dir", str(repository), "replace", good.oid, evil], check=True)
    elif how == "graft":
        (repository / "info").mkdir(exist_ok=True)
        (repository / "info/grafts").write_text(f"{raw_tip(repository)} {evil}\n")
    elif how == "shallow":
        (repository / "shallow").write_text(f"{good.oid}\n")
    else:
        shutil.copytree(repository / "objects", tmp_path / "objects")
        (repository / "objects/info").mkdir(exist_ok=True)
        (repository / "objects/info/alternates").write_text(f"{tmp_path / 'objects'}\n")
    report = audit_folder(tmp_path / ".ledger", POLICY, memory=Memory(tmp_path / "state"))
    assert report.exit_code == 3
    assert "makes other programs show another history" in texts(report, "failed")
    again = reopened(tmp_path)
    hit = find(again, POLICY, runs[1][0])
    assert hit is not None
    assert (hit.entry.commit, dict(hit.outputs)) == (good.oid, runs[1][1])


def raw_tip(repository: Path) -> str:
    return subprocess.run(
        ["git", "--git-dir", str(repository), "rev-parse", REF], capture_output=True, text=True, check=True
    ).stdout.strip()


_KILLED_AT = """
import os, signal, sys
from pathlib import Path
from ledger import log as module
from ledger.log import Log
from ledger.memory import Memory
from ledger.testing import UnsafeSigner, append_runs, chain_of_runs
from store.local import LocalCas

folder, step = Path(sys.argv[1]), sys.argv[2]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

log = Log.open(folder / ".ledger", signer=UnsafeSigner("alice"), memory=Memory(folder / "state"))
store = LocalCas(folder / ".ledger")
store.put(b"an output")
before = {
    "objects": (log.repository, "write"),
    "ref": (log.repository, "advance"),
    "index": (log._index, "extend"),
    "memory": (log.memory, "accept"),
}
if step in before:
    owner, name = before[step]
    if step == "objects":
        write = owner.write
        setattr(owner, name, lambda objects: (write(objects[: len(objects) // 2]), die()))
    else:
        setattr(owner, name, die)
append_runs(log, chain_of_runs(5)[2:])
die()
"""
"""Appends three entries and dies: half-way through the objects, before the ref, the index or the memory follows, or after all."""


@pytest.mark.parametrize(("step", "size"), [("objects", 2), ("ref", 2), ("index", 5), ("memory", 5), ("after", 5)])
def test_attack_31_crash(tmp_path: Path, step: str, size: int) -> None:
    """Killed between any two steps of an append: all of the group or none of it, everything verifies, and the next writer goes on.

    Whole runs are killed at random moments in tests/test_crash.py: 20 times in the ordinary suite, 200 in the slow one.
    """
    grown(tmp_path, runs=2).close()
    code = [sys.executable, "-c", _KILLED_AT, str(tmp_path), step]
    ended = subprocess.run(code, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    log = reopened(tmp_path)
    assert log.size == size
    assert verify_log(log, POLICY, full=True).exit_code == 0
    keys = [key for _, key in log.actions()]
    assert keys == [action.key for action, _ in chain_of_runs(5)[:size]], "no entry is lost, and none is there that was not signed"
    append_runs(log, chain_of_runs(6)[size:])
    assert log.size == 6
    assert verify_log(log, POLICY, full=True).exit_code == 0
    subprocess.run(["git", "--git-dir", str(log.repository.path), "fsck", "--strict"], check=True, capture_output=True)
    store = LocalCas(tmp_path / ".ledger")
    store.put(b"the next writer")
    assert not list(fsck.check(store, full=True))
