"""The attack matrix, rows about files, the store and the Hub: 1, 6, 20 to 28 and 32."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger import dsse, hf_hub
from ledger.errors import HubError, HubMismatchError, HubNotFoundError, SignatureError, StatementError
from ledger.hf_hub import HfHub
from ledger.log import Log
from ledger.lookup import find
from ledger.memory import Memory
from ledger.policy import Policy
from ledger.predicates import action_of
from ledger.remote import Depth
from ledger.sightings import Sightings
from ledger.testing import UnsafeSigner, append_runs, run_payload, unsafe_log, unsafe_policy
from ledger.verify import verify_alloy, verify_artifact
from stages.executor import LocalExecutor
from stages.rerun import Rerun, runs_behind
from store import files, fsck, tree
from store.actions import Action
from store.digest import Digest
from store.errors import CorruptError, NotFoundError, PathError, TreeError, UnstableError
from store.local import LocalCas
from store.memory import MemoryCas
from store.statcache import StatCache
from tests.direct import Direct
from tests.homes import Home
from tests.hub import LoopbackHub
from tests.publications import ALICE, CONFIG, GGUF, REPO, Published, audit, written
from tests.reports import texts

POLICY = unsafe_policy("alice")
BIG = bytes(range(256)) * 4000


def test_attack_01_arbitrary_artifact(tmp_path: Path, hub: LoopbackHub, published: Published) -> None:
    """Two shards of equal size swapped; other bytes of equal size; the right hash in somebody else's repository."""
    model = written(tmp_path / "model", {"a.safetensors": b"one shard", "b.safetensors": b"other one", "config.json": b"{}"})
    log, store = unsafe_log(tmp_path), MemoryCas()
    append_runs(log, [(Action("expert-prune", 1, {}, {}), {"model": tree.import_folder(store, model)})])
    assert verify_artifact(model, log, POLICY, store=store).exit_code == 0
    (model / "a.safetensors").rename(model / "c")
    (model / "b.safetensors").rename(model / "a.safetensors")
    (model / "c").rename(model / "b.safetensors")
    report = verify_artifact(model, log, POLICY, store=store)
    assert report.exit_code == 3
    assert "a.safetensors differs from that in the folder" in texts(report, "failed")
    assert audit(hub, f"hf:{REPO}@{published.alloy}").exit_code == 0
    hub.put("evil/tiny", published.files)
    report = audit(hub, f"hf:evil/tiny@{published.alloy}")
    assert report.exit_code == 3
    assert f"was released at hf:{REPO}, and this is hf:evil/tiny" in texts(report, "failed")
    hub.put(REPO, {GGUF: b"x" * len(published.files[GGUF])})
    assert audit(hub, f"hf:{REPO}@{published.alloy}").exit_code == 3


def test_attack_06_endless_data(tmp_path: Path, hub: LoopbackHub, published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terabytes in place of an alloy, attestations, a policy; a listing, a file, nesting without end: read to a bound."""
    folder = written(tmp_path / "out", published.files)
    alloy = folder / "tiny.alloy.json"
    assert verify_alloy(folder, ALICE).exit_code == 0
    for name in ("tiny.alloy.json", "tiny.attestations.jsonl"):
        os.truncate(folder / name, 10 * 2**40)
        report = verify_alloy(alloy, ALICE)
        assert report.exit_code == 3
        assert "are read" in texts(report, "failed")
        (folder / name).write_bytes(published.files[name])
    alloy.write_text('{"results":' + "[" * 500_000)
    assert verify_alloy(alloy, ALICE).exit_code == 3
    (tmp_path / "policy.yaml").write_bytes(b"keys: {" + b"a" * 2**21)
    with pytest.raises(Exception, match="at most 1048576 are read"):
        Policy.load(tmp_path / "policy.yaml")
    control = audit(hub)
    assert control.exit_code == 0
    monkeypatch.setattr(hf_hub, "MAX_ANSWER_BYTES", 1 << 20)
    hub.lies.endless_listing = True
    with pytest.raises(HubError, match="no more is read"):
        audit(hub)
    hub.lies.endless_listing = False
    for path, depth in (("tiny.alloy.json", Depth()), ("tiny.attestations.jsonl", Depth()), (GGUF, Depth(full=True))):
        hub.lies.endless_bytes = {path}
        assert audit(hub, depth=depth).exit_code == 3


def test_attack_20_cache_poisoning(tmp_path: Path) -> None:
    """A result that nobody trusted signed is no hit, however it got there, and neither is one of another setting: the work is done."""
    (tmp_path / "hello.txt").write_text("hello")
    home = Home(tmp_path)
    fan = " - {type: acme-shout, text: hello.txt, marks: 2}\n"
    first = home.run(fan)
    assert (first.done, home.run(fan).found) == (1, 1)
    wanted = Action("acme-shout", 1, {"marks": 3, "number": 0}, {"text": Digest.of(b"hello")})
    evil = {"text": home.store.put(b"evil")}
    log = home.log
    mallory = UnsafeSigner("mallory")
    log.append_foreign([dsse.sign(run_payload(wanted, evil), mallory)])  # by an untrusted key
    unsigned = json.loads(dsse.sign(run_payload(wanted, evil), mallory)) | {"signatures": []}
    with pytest.raises((StatementError, SignatureError)):
        log.append_foreign([json.dumps(unsigned).encode()])  # by nobody
    good = log.entry(0)
    with sqlite3.connect(home.folder / ".ledger/index.sqlite") as db:  # by writing where results are looked up
        db.execute("UPDATE entries SET key = ? WHERE number = 0", (bytes.fromhex(wanted.key.hex),))
    db.close()
    result = home.run(fan.replace("marks: 2", "marks: 3"))
    assert (result.found, result.done) == (0, 1)
    assert home.store.read(result.outputs["acme-shout"]["text"]) == b"HELLO!!! 0"
    # a parameter that decides, and stands outside of what the key is made of
    policy = Policy.load(home.folder / ".ledger/policy.yaml")
    assert find(home.log, policy, action_of(good.statement)) is not None
    hidden = json.loads(good.statement.payload)
    hidden["predicate"]["buildDefinition"]["marks"] = 9
    with pytest.raises(StatementError, match="unknown: marks"):
        log.append([json.dumps(hidden, sort_keys=True, separators=(",", ":")).encode()], ["a setting beside the spec"])
    for name, value in (("marks", 3), ("number", 1), ("more", 0)):
        other = Action("acme-shout", 1, {"marks": 2, "number": 0} | {name: value}, wanted.inputs)
        assert other.key != action_of(good.statement).key, "every setting is in the key"


def test_attack_21_toctou(tmp_path: Path) -> None:
    """A file that is exchanged between hashing and use: what is kept are the hashed bytes, or nothing."""
    target = tmp_path / "model.gguf"
    store = LocalCas(tmp_path / "store")
    target.write_bytes(BIG)
    assert store.read(store.add_file(target)) == BIG
    changes: tuple[Callable[[], object], ...] = (
        lambda: target.write_bytes(b"evil" * 256_000),
        lambda: (target.with_suffix(".new").write_bytes(b"e" * len(BIG)), target.with_suffix(".new").rename(target)),
        target.unlink,
    )
    for number, change in enumerate(changes):

        def meanwhile(_: int, change: Callable[[], object] = change) -> None:
            if target.exists():
                change()

        whole = BIG * 3 + bytes([number])
        for hashed in (files.hash_file, StatCache(tmp_path / "stat.sqlite").digest_of):
            target.unlink(missing_ok=True)
            target.write_bytes(whole)
            with pytest.raises((UnstableError, NotFoundError)):
                hashed(target, meanwhile)
        target.unlink(missing_ok=True)
        target.write_bytes(whole)
        with suppress(UnstableError, NotFoundError):  # or what was open is kept, whatever stands at the path by now
            assert store.read(store.add_file(target, meanwhile)) == whole
    assert not list(fsck.check(store, full=True))
    # and after the hashing: an object that was taken in by reference is checked when it is read
    target.write_bytes(BIG)
    before = target.stat()
    digest = store.add_file(target)
    linked = store.blob_file(digest).samefile(target)
    with target.open("r+b") as file:
        file.write(b"evil")
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    if not linked:  # the file system made a clone
        assert store.read(digest) == BIG
        return
    for read in (store.read, store.open, store.path):
        with pytest.raises(CorruptError, match="imported by reference"):
            read(digest)


def test_attack_22_symlink_escape(tmp_path: Path, published: Published) -> None:
    """Links out of a folder, in circles, to nothing, to folders, devices and pipes: refused on import, and in what is verified."""
    (tmp_path / "secret").write_bytes(b"secret")
    folder = written(tmp_path / "model", {"config.json": b"{}", "deep/x": b"x"})
    (folder / "inside").symlink_to("config.json")
    assert tree.hash_folder(folder).entry("inside").digest == Digest.of(b"{}"), "a link to a file of the folder is that file"
    for aim in ("../secret", str(tmp_path / "secret"), "link", "nothing", "deep", ".", "/dev/zero", "deep/../../secret"):
        (folder / "link").symlink_to(aim)
        store = MemoryCas()
        with pytest.raises(PathError):
            tree.import_folder(store, folder)
        assert list(store.list()) == []
        (folder / "link").unlink()
    out = written(tmp_path / "out", published.files)
    assert verify_alloy(out, ALICE).exit_code == 0
    (tmp_path / "evil.safetensors").write_bytes(b"evil")
    (out / "adapter_model.safetensors").symlink_to(tmp_path / "evil.safetensors")
    report = verify_alloy(out, ALICE)
    assert report.exit_code == 3
    assert "adapter_model.safetensors" in texts(report, "failed")
    (out / "adapter_model.safetensors").unlink()
    shutil.move(out / GGUF, tmp_path / "elsewhere.gguf")
    (out / GGUF).symlink_to(out / GGUF)
    assert verify_alloy(out, ALICE).exit_code == 3, "a link to itself"


def test_attack_23_path_traversal(tmp_path: Path, hub: LoopbackHub, published: Published) -> None:
    """Names that climb out, are absolute, hold NUL, are twins, or devices: no tree, no file, no listing."""
    store = LocalCas(tmp_path / "store")
    digest = store.put(b"x")
    twins = (("Model", "model"), ("a", "a/b"), (unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")), ("x", "x"))
    single = ("../x", "/x", "a/../../x", "a//b", "a\0b", "C:x", "a\\b", "nul", "con.txt", "a.", "a\n", "\u202ex" * 200)
    for paths in (*((path,) for path in single), *twins):
        with pytest.raises(PathError):
            tree.check_names(list(paths))
        entries = [{"digest": str(digest), "path": path, "size": 1} for path in sorted(paths)]
        lie = json.dumps({"entries": entries, "type": "tree/v1"}, separators=(",", ":"), ensure_ascii=False)
        name = store.put(lie.encode())
        assert not tree.is_tree(store, name)
        with pytest.raises((TreeError, PathError)):
            tree.export(store, name, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]
    good = tree.import_folder(store, written(tmp_path / "good", {"a/b": b"x"}))
    tree.export(store, good, tmp_path / "out")
    assert (tmp_path / "out/a/b").read_bytes() == b"x"
    assert audit(hub).exit_code == 0
    for path in ("../../.ssh/authorized_keys", "/etc/passwd", "a\\b.safetensors", "Config.json", "aux.json"):
        hub.lies.hostile_names = (path,)
        with pytest.raises(HubError):
            audit(hub)


@pytest.mark.parametrize("place", [".git/hooks", ".cache/huggingface", ".hidden", "__pycache__", "node_modules"])
def test_attack_24_ignored_path(tmp_path: Path, hub: LoopbackHub, published: Published, place: str) -> None:
    """No path is passed over: whatever lies where other tools do not look is named, and fails when something would load it."""
    out = written(tmp_path / "out", published.files)
    assert verify_alloy(out, ALICE).exit_code == 0
    written(out, {f"{place}/notes.txt": b"smuggled", f"{place}/model.safetensors": b"smuggled"})
    report = verify_alloy(out, ALICE)
    if place.startswith("."):
        assert f"{place.split('/')[0]}: not looked into" in texts(report, "unverified")
    else:
        assert report.exit_code == 3
        assert f"{place}/model.safetensors" in texts(report, "failed")
    assert audit(hub).exit_code == 0
    hub.put(REPO, {f"{place}/model.safetensors": b"smuggled"})
    report = audit(hub)
    assert report.exit_code == 3
    assert f"{place}/model.safetensors" in texts(report, "failed")


def test_attack_25_partial_download(tmp_path: Path, hub: LoopbackHub, published: Published) -> None:
    """A download that is cut, or has one byte changed and the right size, is no file of ours; what was cut is continued."""
    listing = HfHub().listing(REPO)
    for path in (GGUF, CONFIG):
        listed = listing.file(path)
        hub.lies.wrong_bytes = {path}
        with pytest.raises(HubMismatchError):
            HfHub().fetch(REPO, listing.commit, listed, tmp_path / "x")
        assert not (tmp_path / "x").exists()
        hub.lies.wrong_bytes = set()
        hub.lies.cut, hub.lies.cuts = 7, -1
        with pytest.raises(HubError):
            HfHub().read(REPO, listing.commit, path, limit=2**24)
        hub.lies.cut = None
        (tmp_path / "x").write_bytes(b"\0" + published.files[path][1:5])
        assert HfHub().fetch(REPO, listing.commit, listed, tmp_path / "x") == Digest.of(published.files[path])
        assert (tmp_path / "x").read_bytes() == published.files[path]
        (tmp_path / "x").unlink()
    out = written(tmp_path / "out", published.files)
    assert verify_alloy(out, ALICE).exit_code == 0
    whole = published.files[GGUF]
    for damaged in (whole[:-1], whole[:5] + bytes([whole[5] ^ 1]) + whole[6:], b""):
        (out / GGUF).write_bytes(damaged)
        report = verify_alloy(out, ALICE)
        assert report.exit_code == 3
        assert GGUF in texts(report, "failed")


def test_attack_26_store_corruption(tmp_path: Path) -> None:
    """Bytes exchanged in the store, size and mtime as they were: never served, and found by a scrub that reads nothing else."""
    store = LocalCas(tmp_path / "store")
    digest = store.put(BIG)
    with store.open(digest) as file:
        assert file.read() == BIG
    assert not list(fsck.check(store))
    place = store.blob_file(digest)
    before = place.stat()
    place.chmod(0o644)
    with place.open("r+b") as file:
        file.write(b"evil")
    place.chmod(before.st_mode)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = place.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_mode) == (before.st_size, before.st_mtime_ns, before.st_mode)
    for fresh in (store, LocalCas(tmp_path / "store")):
        for use in (fresh.read, fresh.open, fresh.path):
            with pytest.raises(CorruptError):
                use(digest)
    assert [finding.digest for finding in fsck.check(store)] == [digest]
    assert [finding.digest for finding in fsck.check(store, full=True)] == [digest]


@pytest.mark.parametrize(
    ("lie", "depth"),
    [
        ("wrong_bytes", Depth(full=True)),
        ("wrong_bytes", Depth(spot=300)),
        ("wrong_sha256", Depth()),
        ("wrong_oid", Depth()),
        ("wrong_size", Depth()),
        ("wrong_xet", Depth(spot=1)),
    ],
)
def test_attack_27_advertised_hash(tmp_path: Path, hub: LoopbackHub, published: Published, lie: str, depth: Depth) -> None:
    """The Hub lists one thing and has another: hashes, size and ids are compared with the attested ones, and bytes."""
    assert audit(hub, depth=depth).exit_code == 0
    setattr(hub.lies, lie, {GGUF})
    report = audit(hub, depth=depth)
    assert report.exit_code == 3
    assert GGUF in texts(report, "failed")
    if lie == "wrong_bytes":
        hub.lies.wrong_xet = set()
        listed = audit(hub)
        assert listed.exit_code == 0, "the listing is as it should be, and more is not claimed"
        assert "the bytes behind the listing" in texts(listed, "unverified")


def test_attack_28_namespace_reuse(tmp_path: Path, hub: LoopbackHub, published: Published) -> None:
    """A repository that was made again under its name, a name that looks alike, a branch that moves: pinned, compared, said."""
    seen = Depth(sightings=Sightings(tmp_path / "seen", hub.endpoint), now="2027-02-01T00:00:00Z")
    commit = hub.head(REPO)
    assert audit(hub, depth=seen).exit_code == 0
    assert audit(hub, depth=seen).exit_code == 0, "seen before"
    hub.put(REPO, {"README.md": b"# moved"})
    assert "moved" in "".join(row.text for row in audit(hub, depth=seen).rows)
    assert audit(hub, f"hf:{REPO}@{commit}").exit_code == 0, "a commit stays what it was"
    hub.lies.moved_revision = True
    with pytest.raises(HubMismatchError):
        audit(hub, f"hf:{REPO}@{commit}")
    hub.lies.moved_revision = False
    hub.lies.recreated = True
    assert audit(hub, depth=seen).exit_code == 3
    hub.lies.recreated = False
    hub.delete(REPO)
    hub.put(REPO, published.files)
    report = audit(hub, depth=seen)
    assert report.exit_code == 3
    assert "made anew" in texts(report, "failed") or "created" in texts(report, "failed")
    report = audit(hub, f"hf:{REPO}@{commit}")
    assert report.exit_code in (0, 3)
    hub.put("acrne/tiny", published.files)
    assert audit(hub, "hf:acrne/tiny").exit_code == 3, "released for another name"
    with pytest.raises(HubNotFoundError):
        audit(hub, "hf:acme/tlny")


@dataclass
class Quantized:
    """A ledger in which one GGUF file was quantised twice: honestly by alice, and by mallory, whom the reader trusts, with a backdoor."""

    folder: Path
    store: LocalCas
    policy: Policy
    honest: Action
    evil: Action
    backdoor: Digest

    def log(self, who: str) -> Log:
        return Log.open(self.folder / ".ledger", signer=UnsafeSigner(who), memory=Memory(self.folder / "state"))

    def again(self, action: Action) -> str:
        """What bob's rerun of an action comes to, in a real worker."""
        log = self.log("bob")
        runs = runs_behind(log.lookup(action.key)[0], log, self.policy, "bob")
        work = Rerun(self.folder / ".ledger", self.store, log, self.policy, me="bob", hands=self._hands)
        return " ".join(f"{one.outcome}{one.reason and ': '}{one.reason}" for one in work.run(runs))

    def _hands(self, threads: int) -> LocalExecutor:
        return LocalExecutor(self.folder / ".ledger", self.store.scratch(), jobs=1, threads=threads)


@pytest.fixture
def quantized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quantized:
    from stages.gguf_convert import GgufConvert
    from stages.toolchain import describe
    from tests.tiny import make_model

    monkeypatch.setenv("LEDGER_THREADS", "1")
    store = LocalCas(tmp_path / ".ledger")
    model = tree.import_folder(store, make_model(tmp_path / "model", layers=1, experts=2))
    direct = Direct(store, tmp_path)
    base = direct.run("gguf-convert", GgufConvert(outtype="F16"), {"model": model})["gguf"]
    log = Log.create(tmp_path / ".ledger", signer=UnsafeSigner("alice"), memory=Memory(tmp_path / "state"))
    honest, evil = (Action("gguf-quantize", 1, {"type": kind}, {"gguf-base": base}) for kind in ("Q8_0", "Q5_0"))
    from stages.gguf_quantize import GgufQuantize

    outputs = [direct.run("gguf-quantize", GgufQuantize(type=kind), {"gguf-base": base})["gguf"] for kind in ("Q8_0", "Q5_0")]
    poisoned = bytearray(store.read(outputs[1]))
    poisoned[-1000:-900] = bytes(100)  # a hundred bytes of one tensor
    backdoor = store.put(bytes(poisoned))
    environment = describe()
    for action, output, who in ((honest, outputs[0], "alice"), (evil, backdoor, "mallory")):
        payload = run_payload(action, {"gguf": output}, purity="E", environment=environment)
        log.append_foreign([dsse.sign(payload, UnsafeSigner(who))])
    log.close()
    return Quantized(tmp_path, store, unsafe_policy("alice", "bob", "mallory"), honest, evil, backdoor)


def test_attack_32_malicious_quantizer(quantized: Quantized) -> None:
    """A GGUF that nobody trusted explains fails; one that a trusted quantiser signed is called unconfirmed, and a rerun exposes it."""
    stray = quantized.folder / "stray.gguf"
    stray.write_bytes(quantized.store.read(quantized.backdoor)[:-1] + b"\1")
    log = quantized.log("bob")
    assert "are in no trusted statement" in texts(verify_artifact(stray, log, quantized.policy), "failed")
    before = verify_artifact(quantized.backdoor, log, quantized.policy)
    assert before.exit_code == 0, "a trusted key says so"
    assert "mallory alone says so, nobody else has made it again" in texts(before, "attested")
    log.close()
    assert quantized.again(quantized.honest) == "equal"
    assert quantized.again(quantized.evil).startswith("contradicting: gguf-quantize")
    log = quantized.log("bob")
    after = verify_artifact(quantized.backdoor, log, quantized.policy)
    assert after.exit_code == 3
    assert "has two trusted results that differ in gguf" in texts(after, "failed")
    control = find(log, quantized.policy, quantized.honest)
    assert control is not None
    assert control.signers == ("alice", "bob")
