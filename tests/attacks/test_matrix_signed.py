"""The attack matrix, rows about keys, envelopes, statements and policies: 5, 9 to 18 and 30."""

from __future__ import annotations

import dataclasses
import json
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from ledger import cosign, dsse, locator, note, predicates, sshsig
from ledger.errors import (
    EnvelopeError,
    LocatorError,
    NoteError,
    PolicyError,
    PublicKeyError,
    SignatureError,
    StatementError,
    UntrustedError,
    VerificationError,
)
from ledger.keys import ECDSA_P256, ED25519, P256Signer, PublicKey
from ledger.log import Log
from ledger.lookup import accept, find
from ledger.memory import Memory
from ledger.note import Checkpoint
from ledger.policy import Policy
from ledger.predicates import KeyEvent
from ledger.report import Report
from ledger.standing import narrowed, of
from ledger.statement import Statement
from ledger.testing import UnsafeClock, UnsafeSigner, append_runs, run_payload, unsafe_log, unsafe_policy
from ledger.verify import verify_alloy, verify_artifact
from store.actions import Action
from store.digest import Digest
from tests.cli.conftest import Desk
from tests.ledger.test_published import World
from tests.ledger.test_suites import load
from tests.reports import texts

ALICE, BOB, CAROL, MALLORY = (UnsafeSigner(name) for name in ("alice", "bob", "carol", "mallory"))
POLICY = unsafe_policy("alice")
PRUNE = Action("expert-prune", 1, {"keep": 6}, {"model": Digest.of(b"base")})
QUANT = Action("gguf-quantize", 1, {"type": "Q8_0"}, {"gguf-base": Digest.of(b"f16")})
GOOD, EVIL = {"model": Digest.of(b"good")}, {"model": Digest.of(b"evil")}


def two_of_three(**more: str) -> Policy:
    keys = "".join(f'  {one.name}: "{one.public}"\n' for one in (ALICE, BOB, CAROL))
    keys += "".join(f"  {name}: {text}\n" for name, text in more.items())
    names = ", ".join(("alice", "bob", "carol", *more))
    return Policy.parse(f"version: 1\nkeys:\n{keys}rules:\n  - {{keys: [{names}], threshold: 2}}\n")


def signed_by(payload: bytes, *signatures: tuple[UnsafeSigner, str | None], payload_type: str = dsse.PAYLOAD_TYPE) -> bytes:
    """An envelope with these signatures, each under the key id that it is said to be by (None: its own)."""
    ones = [json.loads(dsse.sign(payload, signer, payload_type=payload_type))["signatures"][0] for signer, _ in signatures]
    for one, (_, keyid) in zip(ones, signatures, strict=True):
        one["keyid"] = one["keyid"] if keyid is None else keyid
    value = {"payload": b64encode(payload).decode(), "payloadType": payload_type, "signatures": ones}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def found(folder: Path, policy: Policy, *envelopes: bytes, action: Action = PRUNE) -> dict[str, Digest] | None:
    """What a ledger that received these envelopes answers to an action."""
    log = unsafe_log(folder)
    log.append_foreign(list(envelopes))
    hit = find(log, policy, action)
    return None if hit is None else dict(hit.outputs)


def test_attack_05_mix_and_match(tmp_path: Path, world: World) -> None:
    """The statement of run A with the outputs of run B: under A's signature, under A's key in the index, in an alloy."""
    one, other = run_payload(PRUNE, GOOD), run_payload(QUANT, EVIL)
    mixed = json.loads(dsse.sign(one, ALICE)) | {"payload": b64encode(other).decode()}
    assert found(tmp_path / "control", POLICY, dsse.sign(one, ALICE)) == GOOD
    assert found(tmp_path / "mixed", POLICY, json.dumps(mixed).encode(), action=QUANT) is None
    assert found(tmp_path / "other", POLICY, dsse.sign(other, ALICE)) is None, "a run of B answers nothing about A"
    assert verify_alloy(world.out, POLICY).exit_code == 0
    world.edit(lambda value: value["results"]["artifacts"][1].update(digest=str(world.base)))
    assert verify_alloy(world.out, POLICY).exit_code == 3


def test_attack_09_policy_weakening(tmp_path: Path, done: Desk) -> None:
    """A key that a log adds, a policy beside what is verified, an old policy after a revocation: none widens the reader's policy."""
    log = unsafe_log(tmp_path)
    event = KeyEvent(event="added", key=MALLORY.public, from_entry=0)
    for signer in (ALICE, MALLORY):
        log.append_foreign([signed_by(_event(event), (signer, None)), signed_by(run_payload(PRUNE, EVIL), (MALLORY, None))])
    assert of(log, POLICY) == POLICY
    assert find(log, POLICY, PRUNE) is None
    # an old policy is replayed: the revocation that stands in the log still holds
    append_runs(log, [(PRUNE, GOOD)])
    log.append_foreign([dsse.sign(_event(KeyEvent(event="revoked", key=BOB.public, from_entry=3)), BOB)])
    log.append_foreign([dsse.sign(run_payload(QUANT, EVIL), BOB)])
    old = unsafe_policy("alice", "bob")
    assert find(log, old, QUANT) is not None, "by the old policy alone it would count"
    assert find(log, of(log, old), QUANT) is None
    assert find(log, of(log, old), PRUNE) is not None
    # what lies beside the alloy is not read
    done.ok("verify", "shouting.alloy.json")
    (done.folder / "policy.yaml").write_text(f'version: 1\nkeys: {{mallory: "{MALLORY.public}"}}\nrules: [{{keys: [mallory]}}]\n')
    assert "mallory" not in done.ok("verify", "shouting.alloy.json").out
    # and a policy that cannot be met, or trusts nobody, is refused or said, never taken for a generous one
    for text in ("rules: [{keys: [], threshold: 1}]", "rules: [{keys: [alice], threshold: 0}]", "rules: [{keys: [alice], threshold: 2}]"):
        with pytest.raises(PolicyError):
            Policy.parse(f'version: 1\nkeys: {{alice: "{ALICE.public}"}}\n{text}\n')
    nobody = Policy.parse(f'version: 1\nkeys: {{alice: "{ALICE.public}"}}\n')
    with pytest.raises(UntrustedError, match="trusts nobody"):
        nobody.judge(Statement.parse(run_payload(PRUNE, GOOD)), frozenset([ALICE.public]), position=0)


def _event(event: KeyEvent) -> bytes:
    from ledger import statement

    return statement.make(event.subjects(), predicates.KEY_EVENT, event.predicate())


def test_attack_10_key_compromise_below_threshold(tmp_path: Path) -> None:
    """One of two keys of three that must agree is not enough, in one envelope or in entries of its own; a second one is."""
    policy, payload = two_of_three(), run_payload(PRUNE, EVIL)
    assert found(tmp_path / "one", policy, dsse.sign(payload, ALICE)) is None
    assert (
        found(tmp_path / "often", policy, dsse.sign(payload, ALICE), dsse.sign(run_payload(PRUNE, EVIL, byproducts={"x": 1}), ALICE))
        is None
    )
    assert found(tmp_path / "unequal", policy, dsse.sign(payload, ALICE), dsse.sign(run_payload(PRUNE, GOOD), BOB)) is None
    assert found(tmp_path / "control", policy, dsse.sign(payload, ALICE), dsse.sign(payload, BOB)) == EVIL
    assert found(tmp_path / "together", policy, signed_by(payload, (ALICE, None), (BOB, None))) == EVIL
    log = unsafe_log(tmp_path / "audit")
    append_runs(log, [(PRUNE, EVIL)])
    assert verify_artifact(EVIL["model"], log, policy).exit_code == 3
    assert verify_artifact(EVIL["model"], log, POLICY).exit_code == 0


def test_attack_11_duplicate_signatures(tmp_path: Path) -> None:
    """One key counts once: signing twice, under two key ids, under two names in the policy, as its own successor."""
    policy, payload = two_of_three(), run_payload(PRUNE, EVIL)
    for number, ids in enumerate([(None, None), (None, str(BOB.public)), ("", "x"), (str(BOB.public), str(CAROL.public))]):
        assert found(tmp_path / str(number), policy, signed_by(payload, *((ALICE, keyid) for keyid in ids))) is None
    with pytest.raises(PolicyError, match="the same key, which would count twice"):
        two_of_three(dave=f'"{ALICE.public}"')
    with pytest.raises(PolicyError, match="named twice"):
        Policy.parse(f'version: 1\nkeys: {{alice: "{ALICE.public}"}}\nrules: [{{keys: [alice, alice], threshold: 2}}]\n')
    successor = UnsafeSigner("alice's next")
    policy = two_of_three(next=f'{{key: "{successor.public}", replaces: alice}}')
    assert found(tmp_path / "successor", policy, signed_by(payload, (ALICE, None), (successor, None))) is None
    assert found(tmp_path / "control", policy, signed_by(payload, (BOB, None), (successor, None))) == EVIL


def test_attack_12_key_substitution(tmp_path: Path, world: World) -> None:
    """A victim's key id on a stranger's signature, and keys that travel with what they sign, make nothing count."""
    payload = run_payload(PRUNE, EVIL)
    assert found(tmp_path / "keyid", POLICY, signed_by(payload, (MALLORY, str(ALICE.public)))) is None
    assert found(tmp_path / "control", POLICY, signed_by(payload, (ALICE, str(MALLORY.public)))) == EVIL, "a key id is a hint"
    embedded = json.loads(signed_by(payload, (MALLORY, None))) | {"publicKey": str(MALLORY.public), "keys": [str(MALLORY.public)]}
    log = unsafe_log(tmp_path / "embedded")
    try:
        log.append_foreign([json.dumps(embedded).encode()])
        assert find(log, POLICY, PRUNE) is None
    except EnvelopeError:
        assert log.size == 0
    assert verify_alloy(world.out, POLICY).exit_code == 0
    world.edit(lambda value: value["receipt"].update(keys={"alice": str(MALLORY.public)}, policy={"keys": [str(MALLORY.public)]}))
    assert verify_alloy(world.out, unsafe_policy("mallory")).exit_code == 3


def test_attack_13_back_dated_commit(tmp_path: Path) -> None:
    """What a revoked key signs after its revocation counts for nothing, whatever date it writes; what it signed before still does."""
    policy = unsafe_policy("alice", "bob")
    log = unsafe_log(tmp_path)
    log.append_foreign([dsse.sign(run_payload(PRUNE, GOOD), BOB)])
    log.append_foreign([dsse.sign(_event(KeyEvent(event="revoked", key=BOB.public, from_entry=1)), ALICE)])
    log.close()
    past = Log.open(tmp_path / ".ledger", signer=BOB, clock=UnsafeClock(start=1_000_000_000), memory=Memory(tmp_path / "state"))
    (late,) = append_runs(past, [(QUANT, EVIL)])
    assert late.when == 1_000_000_000, "the commit says that it is from 2001"
    standing = of(past, policy)
    with pytest.raises(UntrustedError, match="revoked at entry 1"):
        accept(late, standing)
    assert find(past, standing, QUANT) is None
    hit = find(past, standing, PRUNE)
    assert hit is not None
    assert hit.signers == ("bob",)
    assert verify_artifact(EVIL["model"], past, policy).exit_code == 3
    assert narrowed(policy, []) == policy


def test_attack_14_cross_protocol(tmp_path: Path) -> None:
    """A signature that was made for one thing says nothing about another: SSH namespaces, checkpoints, envelopes."""
    message = b"tree 123\n"
    assert sshsig.verify(message, sshsig.sign(message, ALICE, "git"), [ALICE.public]) == ALICE.public
    for namespace in ("file", "Git", "git\0", ""):
        with pytest.raises(SignatureError):
            sshsig.verify(message, sshsig.sign(message, ALICE, namespace), [ALICE.public])
    checkpoint = Checkpoint("ledger/test", 1, b"\0" * 32)
    signed = note.sign_checkpoint(checkpoint, ALICE)
    note.verify_note(note.parse_note(signed), [ALICE.public])
    raw = note.parse_note(signed).signatures[0].signature
    payload = run_payload(PRUNE, EVIL)
    value = {
        "payload": b64encode(payload).decode(),
        "payloadType": dsse.PAYLOAD_TYPE,
        "signatures": [{"keyid": "", "sig": b64encode(raw).decode()}],
    }
    with pytest.raises(SignatureError):
        dsse.verify(dsse.Envelope.parse(json.dumps(value).encode()), [ALICE.public])
    # an envelope's signature over what reads like a checkpoint is no signature of the checkpoint
    forged = json.loads(dsse.sign(checkpoint.text().encode(), ALICE))["signatures"][0]["sig"]
    line = b64encode(note.key_hash("ledger/test", ALICE.public) + b64decode(forged)).decode()
    with pytest.raises(SignatureError):
        note.verify_note(note.parse_note(f"{checkpoint.text()}\n— ledger/test {line}\n".encode()), [ALICE.public])
    # a witness signs what no log's checkpoint is, and its cosignature makes nobody a signer of the log
    cosigned = cosign.sign(signed, BOB, when=1)
    assert note.verify_note(note.parse_note(cosigned), [ALICE.public, BOB.public]) == {ALICE.public}
    with pytest.raises(NoteError):
        Checkpoint("cosignature/v1", 1, b"\0" * 32).text()
    # the same key material under another algorithm's name
    with pytest.raises((PublicKeyError, SignatureError)):
        PublicKey(ECDSA_P256, b"\x02" + ALICE.public.raw).verify(raw, b"x")


def test_attack_15_payload_type_confusion(tmp_path: Path) -> None:
    """A valid signature over the same bytes as something else: another payloadType, or the type changed afterwards."""
    payload = run_payload(PRUNE, EVIL)
    assert found(tmp_path / "control", POLICY, dsse.sign(payload, ALICE)) == EVIL
    for kind in ("application/json", "text/plain", "application/vnd.in-toto+json ", "application/vnd.in-toto+JSON"):
        other = signed_by(payload, (ALICE, None), payload_type=kind)
        with pytest.raises(SignatureError, match="expected"):
            dsse.verify(dsse.Envelope.parse(other), [ALICE.public])
        renamed = json.loads(other) | {"payloadType": dsse.PAYLOAD_TYPE}
        with pytest.raises(SignatureError, match="no valid signature"):
            dsse.verify(dsse.Envelope.parse(json.dumps(renamed).encode()), [ALICE.public])
        assert found(tmp_path / kind.replace("/", "_"), POLICY, other) is None


def test_attack_16_ambiguous_json(tmp_path: Path) -> None:
    """Two readers never read two things: keys given twice, byte order marks, invalid UTF-8, other spellings, in envelope and payload."""
    good, evil = dsse.sign(run_payload(PRUNE, GOOD), ALICE), run_payload(PRUNE, EVIL)
    assert found(tmp_path / "control", POLICY, good) == GOOD
    twice = good.replace(b'{"payload":', b'{"payload":"' + b64encode(evil) + b'","payload":', 1)
    envelopes = [
        twice,
        b"\xef\xbb\xbf" + good,
        good[:-1] + b',"x":"\xff"}',
        good + b"{}",
        good.replace(b'"payload"', b'"p\\u0061yload"', 1),
    ]
    for number, envelope in enumerate(envelopes[:4]):
        with pytest.raises(EnvelopeError):
            dsse.Envelope.parse(envelope)
        with pytest.raises(VerificationError):
            unsafe_log(tmp_path / str(number)).append_foreign([envelope])
    assert dsse.Envelope.parse(envelopes[4]).payload == dsse.Envelope.parse(good).payload, "an escape is another spelling of one key"
    # a statement that is validly signed, and ambiguous
    text = run_payload(PRUNE, GOOD)
    payloads = [
        text.replace(b'"predicateType":', b'"predicateType":"urn:x","predicateType":', 1),
        text.replace(b'"subject":[', b'"subject":[],"subject":[', 1),
        b"\xef\xbb\xbf" + text,
        text.replace(b"expert-prune", b"expert-\xff", 1),
        text.replace(b'"keep":6', b'"keep":6.0', 1),
        text.replace(b'"keep":6', b'"keep":9007199254740993', 1),
        text.replace(b'"keep":6', b'"keep":6,"ke\\u0065p":4', 1),
        text.replace(b'"keep":6', b'"keep":"\\ud800"', 1),
    ]
    for payload in payloads:
        assert payload != text
        envelope = dsse.sign(payload, ALICE)
        with pytest.raises(StatementError):
            Statement.parse(dsse.Envelope.parse(envelope).payload)


def test_attack_17_signature_malleability() -> None:
    """Every case of Wycheproof for Ed25519 (151) and P-256 (484) is judged as it must be: malleable, cut, padded, out of range, garbage."""
    judged = 0
    for group in load("ed25519/wycheproof.json")["testGroups"]:
        raw = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            judged += 1
            assert _accepts(ED25519, raw, case) == (case["result"] == "valid"), case
    for group in load("ecdsa-p256/wycheproof.json")["testGroups"]:
        point = bytes.fromhex(group["publicKey"]["uncompressed"])
        for case in group["tests"]:
            judged += 1
            assert _accepts(ECDSA_P256, bytes([2 | point[64] & 1]) + point[1:33], case) == (case["result"] == "valid"), case
    assert judged == 151 + 484
    # the malleable twin of a good signature: s plus the order of the group
    sig = ALICE.sign(b"message")
    twin = sig[:32] + (int.from_bytes(sig[32:], "little") + 2**252 + 27742317777372353535851937790883648493).to_bytes(32, "little")
    ALICE.public.verify(sig, b"message")
    with pytest.raises(SignatureError):
        ALICE.public.verify(twin, b"message")


def _accepts(algorithm: str, raw: bytes, case: dict[str, str]) -> bool:
    try:
        PublicKey(algorithm, raw).verify(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
    except (SignatureError, PublicKeyError):
        return False
    return True


def test_attack_18_prefix_collision(world: World) -> None:
    """Fewer than 256 bits of a hash are called a prefix and never give a green, whoever signed; a QR of this program has all of them."""
    whole = Digest.of(world.alloy.read_bytes())
    stranger = unsafe_policy("carol")
    for digits in (8, 16, 63):
        found = locator.parse(f"https://cambriantech.github.io/forge-alloy/verify/#{whole.hex[:digits]}").expected
        assert found is not None
        assert not found.full
        report = _expected(world, found, stranger)
        assert report.exit_code == 3, "a colliding file would do as well"
        assert not any(row.status == "proven" and not row.aside for row in report.rows)
        signed = _expected(world, found, POLICY)
        assert (signed.verdict, signed.exit_code) == ("NOT VERIFIED", 3), "a trusted signature does not make a hash of a prefix"
        assert f"are {4 * digits} bits" in texts(signed, "unverified")
        assert "leave the hash out" in "".join(row.hint for row in signed.rows if row.bars)
    assert _expected(world, locator.Expected(whole.hex), POLICY).exit_code == 0
    control = _expected(world, locator.Expected(whole.hex), stranger)
    assert "has the expected hash" in texts(control, "proven")
    other = _expected(world, locator.Expected("0" * 64), POLICY)
    assert other.exit_code == 3, "however trusted its signatures are"
    with pytest.raises(LocatorError):
        locator.Expected(whole.hex[:7])
    assert locator.parse(locator.verify_url("acme/tiny", whole, locator.VERIFY_PAGE)).expected == locator.Expected(whole.hex)


def _expected(world: World, expected: locator.Expected, policy: Policy) -> Report:
    from ledger.published import examine_alloy

    return examine_alloy(world.alloy, policy, expected=expected)


def test_attack_30_builder_impersonation(tmp_path: Path) -> None:
    """Who may sign for one builder says nothing for another: the statement's `builder.id` must be one that a rule lets its signer use."""
    policy = Policy.parse(
        f'version: 1\nkeys: {{alice: "{ALICE.public}", bob: "{BOB.public}"}}\n'
        "rules:\n  - {keys: [alice], builders: ['urn:alloy-ledger:builder:local', 'urn:alloy-ledger:builder:test']}\n"
        "  - {keys: [bob], builders: ['urn:acme:laptop']}\n"
    )
    payload = run_payload(PRUNE, EVIL)
    assert found(tmp_path / "control", policy, dsse.sign(payload, ALICE)) == EVIL
    assert found(tmp_path / "impersonated", policy, dsse.sign(payload, BOB)) is None
    assert found(tmp_path / "own", policy, dsse.sign(payload.replace(b"urn:alloy-ledger:builder:test", b"urn:acme:laptop"), BOB)) == EVIL
    for other in (
        b'{"id":"urn:alloy-ledger:builder:test "}',
        b'{"id":"URN:alloy-ledger:builder:test"}',
        b'{"id":7}',
        b"{}",
        b'"urn:acme:laptop"',
    ):
        lie = payload.replace(b'{"id":"urn:alloy-ledger:builder:test"}', other)
        assert lie != payload
        assert found(tmp_path / other.hex()[:40], policy, dsse.sign(lie, BOB)) is None


def test_keys_of_both_kinds_are_told_apart() -> None:
    """A control for rows 12 and 14: a P-256 key signs envelopes as well, under its own name and no other."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key

    signer = P256Signer("alice-models", derive_private_key(0xA11CE, SECP256R1()))
    envelope = dsse.Envelope.parse(dsse.sign(b"{}", signer))
    assert dsse.verify(envelope, [ALICE.public, signer.public]) == {signer.public}
    with pytest.raises(SignatureError):
        dsse.verify(dataclasses.replace(envelope, payload=b"[]"), [signer.public])
