"""ledger.log: groups that are whole or absent, writers that lose nothing, history that cannot be rewritten unseen."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from ledger import dsse, note, sshsig, standing, statement
from ledger.errors import EnvelopeError, LogError, MovedError, RewrittenError, StatementError
from ledger.git import CHECKPOINT, ENVELOPE, REF, object_id, signed_commit, tree_bytes, unsigned_commit
from ledger.keys import P256Signer
from ledger.log import LOCK, Log
from ledger.lookup import find
from ledger.memory import Memory
from ledger.policy import Policy
from ledger.testing import UnsafeClock, UnsafeSigner, append_runs, chain_of_runs, reopened, run_payload, unsafe_log, unsafe_policy
from ledger.tlog import leaf_hash, root, verify_inclusion
from ledger.verify import verify_log
from store.actions import Action
from store.digest import Digest
from tests.ledger.test_keys import p256


def stock(log: Log, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the git program on a log."""
    return subprocess.run(["git", "--git-dir", str(log.repository.path), *words], capture_output=True, text=True, check=check)


def test_entries_come_back_as_they_were_appended(tmp_path: Path) -> None:
    """A group gets consecutive numbers; entries are found by number, key, subject and material, also by another process's eyes."""
    log, runs = unsafe_log(tmp_path), chain_of_runs(7)
    made = append_runs(log, runs[:3]) + append_runs(log, runs[3:4]) + append_runs(log, runs[4:])
    assert [entry.number for entry in made] == list(range(7))
    for here in (log, reopened(tmp_path)):
        assert here.size == 7
        assert list(here.entries()) == made
        assert list(here.entries(2, 4)) == made[2:4]
        for number, (action, outputs) in enumerate(runs):
            assert here.lookup(action.key) == [made[number]]
            assert here.by_subject(outputs["model"]) == [made[number]]
        assert here.by_material(runs[2][1]["model"]) == [made[3]]
        assert here.lookup(Digest.of(b"nothing")) == []


def test_stock_git_accepts_every_signature(tmp_path: Path) -> None:
    """`git verify-commit` with the exported allowed_signers accepts every commit, `%G?` is G, and fsck --strict is clean."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(3))
    append_runs(log, chain_of_runs(40))
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(sshsig.allowed_signers(unsafe_policy("alice").keys))
    settings = ["-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={allowed}"]
    said = stock(log, *settings, "verify-commit", log.head or "")
    assert 'Good "git" signature for alice' in said.stderr
    assert stock(log, *settings, "log", "--format=%G?", REF).stdout.split() == ["G"] * 43
    assert stock(log, "fsck", "--strict", "--full").stderr == ""
    allowed.write_text(sshsig.allowed_signers(unsafe_policy("bob").keys))
    assert stock(log, *settings, "verify-commit", log.head or "", check=False).returncode != 0


def test_commit_holds_what_the_format_says(tmp_path: Path) -> None:
    """Tree of two files, one parent, the readable line as the message, the signer's name, the injected time."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(2))
    assert stock(log, "ls-tree", "-r", "--format=%(objectmode) %(path)", REF).stdout.split("\n")[:2] == [
        "100644 checkpoint",
        "100644 entry.dsse.json",
    ]
    shown = stock(log, "log", "-1", "--format=%an|%ae|%at|%P|%B", REF).stdout.strip()
    parent = log.entry(0).commit
    assert shown == f"alice|ledger@localhost|1700000000|{parent}|stage-1: {Digest.of(b'model 1').short}"
    assert stock(log, "log", "--format=%P", "--max-parents=0", REF).stdout.strip() == ""


def test_format_page_shows_a_real_entry(tmp_path: Path) -> None:
    """The example in docs/formats/log.md is, byte for byte, what the same key, clock and statements give."""
    page = (Path(__file__).parents[2] / "docs/formats/log.md").read_text()
    log = unsafe_log(tmp_path)
    payloads = [statement.make({name: Digest.of(name.encode())}, "urn:x", {}) for name in "ab"]
    entry = log.append(payloads, ["a", "b: 8→6"])[1]
    tree = log.repository.read_commit(entry.commit).tree
    assert f"Commit `{entry.commit}`:\n\n```text\n{log.repository.read(entry.commit, 'commit').decode()}```" in page
    assert f"tree `{tree}`, in hex:\n\n    {log.repository.read(tree, 'tree').hex()}\n" in page
    assert f"`checkpoint`:\n\n```text\n{entry.checkpoint.decode()}```" in page
    assert f"```text\n{entry.envelope.decode()}\n```" in page


def test_checkpoint_covers_every_envelope_so_far(tmp_path: Path) -> None:
    """Each entry's checkpoint states its number plus one and the root over all envelopes up to its own, signed by the appender."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(9))
    leaves: list[bytes] = []
    for entry in log.entries():
        leaves.append(leaf_hash(entry.envelope))
        parsed = note.parse_note(entry.checkpoint)
        note.verify_note(parsed, [UnsafeSigner("alice").public])
        assert (parsed.checkpoint.origin, parsed.checkpoint.size, parsed.checkpoint.root) == ("ledger/test", entry.number + 1, root(leaves))


def test_inclusion_proofs_prove(tmp_path: Path) -> None:
    """A proof leads from the envelope to the root of the newest checkpoint."""
    log = unsafe_log(tmp_path)
    for size in range(1, 20):
        append_runs(log, chain_of_runs(size)[-1:])
        for number in range(size):
            proof = log.inclusion_proof(number)
            tip = note.parse_note(proof.checkpoint).checkpoint
            assert (proof.size, tip.size) == (size, size)
            verify_inclusion(leaf_hash(log.entry(number).envelope), number, size, proof.hashes, tip.root)


def test_origin_is_random_and_survives_a_clone(tmp_path: Path) -> None:
    """Two logs never share an origin; a clone knows its origin from its entries."""
    names = {unsafe_log(tmp_path / name, origin=None).origin for name in "ab"}
    assert len(names) == 2
    log = reopened(tmp_path / "a")
    append_runs(log, chain_of_runs(1))
    clone = tmp_path / "c/.ledger"
    clone.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(log.repository.path), str(clone / "log.git")], check=True)
    assert Log.open(clone, memory=Memory(tmp_path / "state")).origin == log.origin


def test_payload_that_is_no_statement_is_refused_whole(tmp_path: Path) -> None:
    """One bad statement in a group means that nothing is recorded; so does a run whose action cannot be recomputed."""
    log, (action, outputs) = unsafe_log(tmp_path), chain_of_runs(1)[0]
    good = run_payload(action, outputs)
    for bad in (b"{}", good.replace(b"buildType", b"buildTypo"), statement.make(outputs, "https://slsa.dev/provenance/v1", {"x": 1})):
        with pytest.raises(StatementError):
            log.append([good, bad], ["a", "b"])
    assert log.size == 0
    with pytest.raises(LogError, match="2 statements and 1 lines"):
        log.append([good, good], ["a"])
    assert log.append([], []) == []


def test_message_is_one_printable_line(tmp_path: Path) -> None:
    """Control characters in a name become escapes; a message can hold no second line, and cannot be empty."""
    log, (action, outputs) = unsafe_log(tmp_path), chain_of_runs(1)[0]
    made = log.append([run_payload(action, outputs)], ["evil\ngpgsig x\0\x1b[31m 8→6"])
    assert made[0].message == "evil\\ngpgsig x\\x00\\x1b[31m 8→6"
    assert log.entry(0).message == made[0].message
    with pytest.raises(LogError, match="needs a line"):
        log.append([run_payload(action, outputs)], [" "])
    assert stock(log, "fsck", "--strict").stderr == ""


def test_reading_needs_no_key_and_writing_does(tmp_path: Path) -> None:
    """A log opened without a signer reads, and says what appending needs."""
    append_runs(unsafe_log(tmp_path), chain_of_runs(1))
    log = reopened(tmp_path, signer=None)
    assert log.size == 1
    with pytest.raises(LogError, match="without a key"):
        append_runs(log, chain_of_runs(1))
    with pytest.raises(LogError, match="there is no entry 1; the log has 1"):
        log.entry(1)


def test_foreign_envelopes_are_kept_byte_for_byte_and_once(tmp_path: Path) -> None:
    """Received envelopes are appended as they came, under the receiver's commit; what is there already is passed over."""
    mine, theirs = unsafe_log(tmp_path / "a"), unsafe_log(tmp_path / "b", signer="bob", origin="ledger/b")
    append_runs(theirs, chain_of_runs(3))
    envelopes = [entry.envelope for entry in theirs.entries()]
    loose = envelopes[0].replace(b'{"payload"', b'{ "payload"')
    assert [entry.envelope for entry in mine.append_foreign([*envelopes, loose, envelopes[1]])] == [*envelopes, loose]
    assert mine.append_foreign(envelopes) == []
    assert mine.lookup(chain_of_runs(1)[0][0].key)[0].envelope == envelopes[0]
    with pytest.raises(EnvelopeError):
        mine.append_foreign([b"{}"])
    assert mine.size == 4


def test_two_logs_on_one_folder_see_each_other(tmp_path: Path) -> None:
    """Open logs follow what others append, and append behind it."""
    one, runs = unsafe_log(tmp_path), chain_of_runs(6)
    two = reopened(tmp_path)
    for number, run in enumerate(runs):
        append_runs((one, two)[number % 2], [run])
        for log in (one, two):
            assert [entry.number for entry in log.lookup(run[0].key)] == [number]
    assert list(one.entries()) == list(two.entries())


# --- rollback and rewriting ----------------------------------------------------------------------------------------------------


def test_truncated_log_is_refused_with_both_checkpoints(tmp_path: Path) -> None:
    """A log that lost its newest entries is a rollback; the evidence is kept in the error."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(4))
    kept, lost = log.entry(1), log.entry(3)
    stock(log, "update-ref", REF, kept.commit)
    with pytest.raises(RewrittenError, match="rolled back: it has 2 entries, 4 were accepted") as caught:
        reopened(tmp_path)
    assert (caught.value.accepted, caught.value.found) == (lost.checkpoint, kept.checkpoint)
    with pytest.raises(RewrittenError):
        log.lookup(chain_of_runs(1)[0][0].key)


def test_emptied_log_is_refused(tmp_path: Path) -> None:
    """Deleting the ref does not make a fresh log."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(2))
    stock(log, "update-ref", "-d", REF)
    with pytest.raises(RewrittenError, match="has 0 entries, 2 were accepted"):
        reopened(tmp_path)


def test_log_rewritten_with_the_same_key_is_refused(tmp_path: Path) -> None:
    """Even the owner's key cannot make another history of the same length or a longer one pass for the old one."""
    for size in (4, 6):
        folder = tmp_path / str(size)
        append_runs(unsafe_log(folder), chain_of_runs(4))
        shutil.rmtree(folder / ".ledger")
        (folder / "elsewhere").mkdir()
        other = Log.create(
            folder / ".ledger", signer=UnsafeSigner("alice"), origin="ledger/test", clock=UnsafeClock(), memory=Memory(folder / "elsewhere")
        )
        append_runs(other, chain_of_runs(6)[6 - size :] if size == 4 else [chain_of_runs(6)[5], *chain_of_runs(5)])
        with pytest.raises(RewrittenError, match=r"rewritten: its \d entries do not begin with the 4 that were accepted"):
            reopened(folder)


def test_log_replaced_by_another_is_refused(tmp_path: Path) -> None:
    """A whole other log in the same folder is noticed by its place; making one on purpose with `create` is not refused."""
    append_runs(unsafe_log(tmp_path / "a"), chain_of_runs(4))
    append_runs(unsafe_log(tmp_path / "b", origin="ledger/other"), chain_of_runs(4))
    shutil.rmtree(tmp_path / "a/.ledger")
    shutil.copytree(tmp_path / "b/.ledger", tmp_path / "a/.ledger")
    with pytest.raises(RewrittenError, match="holds the log 'ledger/other'; the log accepted there before is 'ledger/test'"):
        reopened(tmp_path / "a")
    shutil.rmtree(tmp_path / "a/.ledger")
    assert unsafe_log(tmp_path / "a", origin="ledger/new").size == 0


def test_what_others_append_is_an_extension_and_not_yet_remembered(tmp_path: Path) -> None:
    """Only what this user signed or verified is remembered; more entries by others extend it, and losing those again is no rollback."""
    mine = unsafe_log(tmp_path)
    append_runs(mine, chain_of_runs(2))
    theirs = Log.open(tmp_path / ".ledger", signer=UnsafeSigner("bob"), memory=Memory(tmp_path / "bobs state"))
    append_runs(theirs, chain_of_runs(5)[2:])
    memory = Memory(tmp_path / "state")
    assert reopened(tmp_path).size == 5
    assert note.parse_note(memory.checkpoint("ledger/test") or b"").checkpoint.size == 2
    stock(mine, "update-ref", REF, mine.entry(2).commit)
    assert reopened(tmp_path).size == 3


def test_memory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """Without a place to remember, a rollback would go unnoticed, so appending says what to set."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="XDG_STATE_HOME"):
        Log.create(tmp_path / ".ledger", signer=UnsafeSigner("alice"), memory=Memory(tmp_path / "file"))


def test_memory_lives_in_the_users_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default checkpoints are remembered under XDG_STATE_HOME, outside of every ledger."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    log = Log.create(tmp_path / ".ledger", signer=UnsafeSigner("alice"))
    append_runs(log, chain_of_runs(1))
    assert len(list((tmp_path / "xdg/ledger/checkpoints").iterdir())) == 1
    assert Memory.default().checkpoint(log.origin) == log.checkpoint


def test_forged_tip_is_not_appended_to(tmp_path: Path) -> None:
    """When the newest checkpoint does not fit the entries, nothing is appended."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(3))
    raw = log.repository.read_entry(log.head or "")
    forged = note.sign_checkpoint(note.Checkpoint("ledger/test", 3, bytes(32)), UnsafeSigner("alice"))
    commit = relinked(log, raw.commit.parents[0], raw.envelope, forged)
    stock(log, "update-ref", REF, commit)
    (tmp_path / "state/checkpoints").rename(tmp_path / "state/gone")
    with pytest.raises(LogError, match="but the entries in git give"):
        append_runs(reopened(tmp_path), chain_of_runs(1))


def relinked(log: Log, parent: str | None, envelope: bytes, checkpoint: bytes) -> str:
    """A commit made by hand, unsigned."""
    from ledger.git import tree_bytes, unsigned_commit

    tree = tree_bytes({"entry.dsse.json": object_id("blob", envelope), "checkpoint": object_id("blob", checkpoint)})
    commit = unsigned_commit(object_id("tree", tree), parent, "mallory <m@x> 1 +0000", "forged")
    log.repository.write([("blob", envelope), ("blob", checkpoint), ("tree", tree), ("commit", commit)])
    return object_id("commit", commit)


# --- kills and crowds ----------------------------------------------------------------------------------------------------------


@dataclass
class Writer:
    """A process that appends groups without end, and says after each how many of its entries `append` has returned for."""

    name: str
    pid: int
    pipe: int

    @classmethod
    def start(cls, folder: Path, name: str, sizes: Sequence[int], stop: int | None = None) -> Writer:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return cls(name, pid, reading)
        try:
            log = reopened(folder)
            number = 0
            for size in itertools.cycle(sizes):
                group = [Action("work", 1, {"who": name, "number": number + place}, {}) for place in range(size)]
                log.append([run_payload(action, {"out": action.key}) for action in group], [f"work {name}"] * size)
                number += size
                os.write(writing, f"{number}\n".encode())
                if stop is not None and number >= stop:
                    os._exit(0)
        except BaseException:  # noqa: BLE001  the child must not return into the test runner
            traceback.print_exc()
        os._exit(1)

    def finish(self, *, kill: bool) -> int:
        """How many entries it was promised, after it ended by itself or was killed."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        with os.fdopen(self.pipe) as file:
            lines = file.read().split("\n")[:-1]
        status = os.waitpid(self.pid, 0)[1]
        assert os.WIFSIGNALED(status) if kill else status == 0
        return int(lines[-1]) if lines else 0


def recorded(log: Log) -> dict[str, list[int]]:
    """Who -> the numbers of that writer's entries, in the order of the log."""
    found: dict[str, list[int]] = {}
    for entry in log.entries():
        spec = entry.statement.predicate["buildDefinition"]["externalParameters"]
        if "who" in spec:
            found.setdefault(spec["who"], []).append(spec["number"])
    return found


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    """Four processes append groups of different sizes at once: every entry is there once, in its writer's order, and fsck is clean."""
    log = unsafe_log(tmp_path)
    writers = [Writer.start(tmp_path, f"w{number}", sizes, 30) for number, sizes in enumerate([[1], [2, 3], [7], [20]])]
    counts = {one.name: one.finish(kill=False) for one in writers}
    assert recorded(log) == {name: list(range(count)) for name, count in counts.items()}
    assert stock(log, "fsck", "--strict", "--full").stderr == ""


def kill_writers(folder: Path, times: int, seed: int) -> None:
    """Kill one of four writers at a random moment, start another in its place, `times` times; then check what they left."""
    chance = random.Random(seed)
    log = unsafe_log(folder)
    sizes = [[1], [1, 2], [3], [12]]
    crowd = [Writer.start(folder, f"first{number}", size) for number, size in enumerate(sizes)]
    promised: dict[str, int] = {}
    for kill in range(times):
        time.sleep(0.02 + chance.random() * 0.04)
        place = chance.randrange(4)
        promised[crowd[place].name] = crowd[place].finish(kill=True)
        crowd[place] = Writer.start(folder, f"kill{kill}", sizes[place])
    promised |= {one.name: one.finish(kill=True) for one in crowd}
    assert sum(promised.values()) > 0
    append_runs(log, chain_of_runs(1))  # no lock needs to be removed by hand
    found = recorded(log)
    for name, count in promised.items():
        assert found.get(name, []) == list(range(len(found.get(name, []))))
        assert len(found.get(name, [])) >= count
    assert stock(log, "fsck", "--strict", "--full").stderr == ""
    commits = [entry.commit for entry in log.entries()]
    for file in (folder / ".ledger").glob("index.sqlite*"):
        file.unlink()
    assert [entry.commit for entry in reopened(folder).entries()] == commits


def test_killed_writers_leave_a_whole_log(tmp_path: Path) -> None:
    """Kill -9 of writers at 20 random moments: what `append` returned for is there, groups are whole, nothing blocks the next writer."""
    kill_writers(tmp_path, 20, seed=1)


@pytest.mark.slow
def test_many_killed_writers_leave_a_whole_log(tmp_path: Path) -> None:
    """The same at 300 moments."""
    kill_writers(tmp_path, 300, seed=2)


def test_kill_between_any_two_steps_of_an_append(tmp_path: Path) -> None:
    """A process that dies at each system-call-like step of an append leaves the old log or the new one, and the next append works."""
    steps = ["write", "advance", "link", "rename", "extend", "accept"]
    for step in steps:
        folder = tmp_path / step
        append_runs(unsafe_log(folder), chain_of_runs(2))
        pid = os.fork()
        if pid == 0:
            _die_at(step)
            append_runs(reopened(folder), chain_of_runs(4)[2:])
            os._exit(1)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        log = reopened(folder)
        assert log.size in (2, 4)
        assert log.size == (4 if step in ("extend", "accept") else 2)
        append_runs(log, chain_of_runs(5)[4:])
        assert stock(log, "fsck", "--strict").stderr == ""
        assert [entry.number for entry in log.entries()] == list(range(log.size))


def _die_at(step: str) -> None:
    from ledger import git, index

    def die(*_: object, **__: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a killed process went on")

    real = Path.rename

    def die_over_a_lock(self: Path, target: Path) -> Path:
        return die() if self.name.endswith(".lock") else real(self, target)

    owner, name, instead = {
        "write": (git.Repository, "write", die),
        "advance": (git.Repository, "advance", die),
        "link": (Path, "hardlink_to", die),
        "rename": (Path, "rename", die_over_a_lock),
        "extend": (index.Index, "extend", die),
        "accept": (Memory, "accept", die),
    }[step]
    setattr(owner, name, instead)


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A lock that cannot be made is an error that says so, and nothing is recorded."""
    log = unsafe_log(tmp_path)
    (tmp_path / ".ledger" / LOCK).mkdir()
    with pytest.raises(LogError, match="Nothing was recorded"):
        append_runs(log, chain_of_runs(1))
    assert log.size == 0


def test_envelopes_are_signed_by_the_opener(tmp_path: Path) -> None:
    """The envelope carries one signature, by the key that the log was opened with."""
    log = unsafe_log(tmp_path)
    (entry,) = append_runs(log, chain_of_runs(1))
    assert dsse.verify(dsse.Envelope.parse(entry.envelope), [UnsafeSigner("alice").public, UnsafeSigner("bob").public]) == {
        UnsafeSigner("alice").public
    }


def test_a_statement_that_speaks_of_its_place_gets_it_or_nothing(tmp_path: Path) -> None:
    """With `at`, a group is appended only where it was meant to be; one that came too late leaves no trace."""
    log, runs = unsafe_log(tmp_path), chain_of_runs(3)
    payloads = [run_payload(*run) for run in runs]
    assert log.append(payloads[:1], ["first"], at=0)[0].number == 0
    for at in (0, 2):
        with pytest.raises(MovedError, match="has 1 entries by now; nothing was recorded"):
            log.append(payloads[1:2], ["second"], at=at)
        with pytest.raises(MovedError):
            log.append_foreign([dsse.sign(payloads[1], UnsafeSigner("bob"))], at=at)
    assert log.size == 1
    assert log.append_foreign([dsse.sign(payloads[1], UnsafeSigner("bob"))], at=1)[0].number == 1


def test_a_p256_key_signs_no_log_and_its_statements_count(tmp_path: Path) -> None:
    """Refused before anything is made, naming the kind that does; what such a key signed is appended like any other."""
    private, public = p256()
    oms = P256Signer("oms", private)
    for door in (Log.create, Log.open):
        with pytest.raises(LogError, match="oms is an ecdsa-p256 key, and a log's checkpoints are signed with Ed25519 ones"):
            door(tmp_path / "new", signer=oms, memory=Memory(tmp_path / "state"))
    assert not (tmp_path / "new").exists()
    log, (action, outputs) = unsafe_log(tmp_path), chain_of_runs(1)[0]
    log.append_foreign([dsse.sign(run_payload(action, outputs), oms)])
    policy = Policy.parse(f"version: 1\nkeys: {{oms: '{public}'}}\nrules: [{{keys: [oms]}}]")
    hit = find(log, policy, action)
    assert hit is not None
    assert hit.signers == ("oms",)


def test_proofs_against_an_older_checkpoint(tmp_path: Path) -> None:
    """Any checkpoint that the log extends can be proven against; another one, or a younger entry, cannot."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(3))
    older = log.checkpoint
    append_runs(log, chain_of_runs(8)[3:])
    for number in range(3):
        (proof,) = log.inclusion_proofs([number], checkpoint=older)
        assert (proof.size, proof.checkpoint) == (3, older)
        root_then = note.parse_note(older or b"").checkpoint.root
        verify_inclusion(leaf_hash(log.entry(number).envelope), number, 3, proof.hashes, root_then)
    with pytest.raises(LogError, match="entry 3 is younger than the checkpoint of 3 entries"):
        log.inclusion_proofs([3], checkpoint=older)
    forged = note.sign_checkpoint(note.Checkpoint("ledger/test", 2, b"\1" * 32), UnsafeSigner("alice"))
    with pytest.raises(RewrittenError, match="does not begin with the 2 entries") as caught:
        log.inclusion_proofs([0], checkpoint=forged)
    assert caught.value.found == log.checkpoint


def test_a_size_that_git_does_not_hold_is_not_passed_on_and_does_no_harm(tmp_path: Path) -> None:
    """A tip whose checkpoint states 2**62 entries: nothing is read, appended or remembered; without it all goes on."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(2))
    head, seen = log.head or "", log.memory.checkpoint("ledger/test")
    signed = note.sign_checkpoint(note.Checkpoint("ledger/test", 2**62, b"\1" * 32), UnsafeSigner("alice"))
    envelope = dsse.sign(run_payload(*chain_of_runs(3)[2]), UnsafeSigner("alice"))
    tree = tree_bytes({ENVELOPE: object_id("blob", envelope), CHECKPOINT: object_id("blob", signed)})
    unsigned = unsigned_commit(object_id("tree", tree), head, "alice <ledger@localhost> 1 +0000", "absurd")
    commit = signed_commit(unsigned, sshsig.sign(unsigned, UnsafeSigner("alice"), "git"))
    log.repository.write([("blob", envelope), ("blob", signed), ("tree", tree), ("commit", commit)])
    log.repository.advance(head, object_id("commit", commit))
    with pytest.raises((LogError, RewrittenError)):
        reopened(tmp_path).check_size()
    memoryless = Log.open(tmp_path / ".ledger", signer=UnsafeSigner("alice"), memory=Memory(tmp_path / "elsewhere"))
    for refused in (memoryless.check_size, lambda: append_runs(memoryless, chain_of_runs(1)), lambda: standing.events(memoryless)):
        with pytest.raises(LogError):
            refused()
    assert verify_log(memoryless, unsafe_policy("alice")).exit_code == 3
    assert memoryless.memory.checkpoint("ledger/test") is None
    assert log.memory.checkpoint("ledger/test") == seen
    stock(log, "update-ref", REF, head)
    assert append_runs(reopened(tmp_path), chain_of_runs(3)[2:])[0].number == 2
