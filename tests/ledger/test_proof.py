"""Offline proofs: one text for one proof, its packed form, what they prove, and every way in which they can be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import cosign, dsse, note, proof, qr, statement, tlog
from ledger.errors import LedgerError, LogError, ProofError
from ledger.locator import VERIFY_PAGE
from ledger.policy import Policy
from ledger.proof import FRAGMENT, Proof, is_packed, pack, unpack
from ledger.publication import Publication
from ledger.report import Report
from ledger.testing import UnsafeSigner, append_runs, chain_of_runs, unsafe_log, unsafe_policy
from store.digest import Digest

VECTORS = Path(__file__).parents[1] / "vectors" / "proof"
ALICE, BOB, MALLORY = UnsafeSigner("alice"), UnsafeSigner("bob"), UnsafeSigner("mallory")
TRUSTING = unsafe_policy("alice")

ALLOY = b'{"name":"tiny-6e","version":"1.0.0"}\n'
RELEASE = Publication(
    event="released",
    target="hf:example/tiny-6e",
    name="tiny-6e",
    version="1.0.0",
    alloy=("tiny-6e.alloy.json", Digest.of(ALLOY)),
    recipe_hash=Digest.of(b"recipe"),
    model_hash=Digest.of(b"model"),
)
ENVELOPE = dsse.sign(RELEASE.payload(), ALICE)


def proof_of(
    envelope: bytes = ENVELOPE, *, number: int = 3, size: int = 7, signer: UnsafeSigner = ALICE, origin: str = "example.com/log"
) -> Proof:
    """The proof of an envelope among entries that say nothing."""
    leaves = [tlog.leaf_hash(b"entry %d" % place) for place in range(size)]
    leaves[number] = tlog.leaf_hash(envelope)
    checkpoint = note.sign_checkpoint(note.Checkpoint(origin, size, tlog.root(leaves)), signer)
    return Proof(envelope, number, size, tlog.inclusion_proof(leaves, number), checkpoint)


def large(number: int, size: int) -> Proof:
    """The proof of the release in a log of any size, whose other entries are random."""
    node, hashes, last, place = tlog.leaf_hash(ENVELOPE), list[bytes](), size - 1, number
    while last:
        if place & 1 or place < last:
            hashes.append(os.urandom(32))
            node = tlog.node_hash(hashes[-1], node) if place & 1 else tlog.node_hash(node, hashes[-1])
        place, last = place >> 1, last >> 1
    return Proof(ENVELOPE, number, size, tuple(hashes), note.sign_checkpoint(note.Checkpoint("ledger/0123456789abcdef", size, node), ALICE))


PROOF = proof_of()
TEXT = PROOF.to_text()
URL = PROOF.to_qr(VERIFY_PAGE)


def statuses(one: Proof, policy: Policy = TRUSTING) -> list[str]:
    return [row.status for row in one.check(policy)]


# --- as text -------------------------------------------------------------------------------------------------------------------------


def test_the_example_of_the_documentation() -> None:
    """Text, QR text and picture in tests/vectors/proof are this proof, whatever packs and draws them."""
    assert (VECTORS / "released.tlog-proof").read_bytes() == TEXT
    assert (VECTORS / "tiny-6e.alloy.json").read_bytes() == ALLOY
    assert Proof.from_qr((VECTORS / "released.qr.txt").read_text()) == PROOF
    assert Proof.from_qr(qr.read_one(VECTORS / "released.png")) == PROOF
    assert Policy.load(VECTORS / "policy.yaml").keys == {"alice": ALICE.public}


def test_a_text_is_a_c2sp_tlog_proof() -> None:
    """Header, extra, index, path, an empty line, the checkpoint."""
    head, checkpoint = TEXT.split(b"\n\n", 1)
    assert head.decode().split("\n") == [
        "c2sp.org/tlog-proof@v1",
        f"extra {b64encode(ENVELOPE).decode()}",
        "index 3",
        *(b64encode(item).decode() for item in PROOF.hashes),
    ]
    assert checkpoint == PROOF.checkpoint
    assert Proof.from_text(TEXT) == PROOF


def test_proofs_of_a_log(tmp_path: Path) -> None:
    """Every entry of a real log is proven against its newest checkpoint; there is no proof of an entry that is not there."""
    log = unsafe_log(tmp_path)
    append_runs(log, chain_of_runs(6))
    for number in range(6):
        one = Proof.of(log, number)
        assert (one.number, one.size, one.checkpoint) == (number, 6, log.checkpoint)
        assert Proof.from_text(one.to_text()) == Proof.from_qr(one.to_qr(VERIFY_PAGE)) == one
        assert statuses(one) == ["proven", "proven"]
    with pytest.raises(LogError):
        Proof.of(log, 6)
    log.close()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        TEXT[:100],
        TEXT.replace(b"tlog-proof@v1", b"tlog-proof@v2"),
        TEXT.replace(b"\nextra ", b"\nExtra "),
        TEXT.replace(b"index 3\n", b""),
        TEXT.replace(b"index 3", b"index 03"),
        TEXT.replace(b"index 3", b"index -3"),
        TEXT.replace(b"index 3", b"index 3 "),
        TEXT.replace(b"\n\n", b"\n", 1),
        TEXT.replace(b"\n", b"\r\n"),
        b"\n" + TEXT,
        TEXT + b"\n",
        TEXT.replace(b"=\n", b"\n", 1),
        TEXT.replace(b"index 3\n", b"index 3\nAAAA\n"),
        TEXT.replace("—".encode(), b"--"),
        TEXT.replace(b"c2sp.org/tlog-proof@v1\n", b"c2sp.org/tlog-proof@v1\nextra AA==\n"),
    ],
)
def test_a_text_of_another_form_is_refused(text: bytes) -> None:
    """One proof has one text: every other way to write it is refused."""
    with pytest.raises(ProofError):
        Proof.from_text(text)


def test_a_proof_without_its_envelope_says_so() -> None:
    """C2SP lets the `extra` line be absent; then nothing says which entry it is about."""
    lines = TEXT.split(b"\n")
    with pytest.raises(ProofError, match="no `extra` line"):
        Proof.from_text(b"\n".join([lines[0], *lines[2:]]))


def test_every_changed_byte_of_a_text_is_refused() -> None:
    """By the reader or by the check; nothing that is left says the same of something else."""
    for place in range(len(TEXT)):
        broken = TEXT[:place] + bytes([TEXT[place] ^ 1]) + TEXT[place + 1 :]
        try:
            one = Proof.from_text(broken)
        except ProofError:
            continue
        assert "failed" in statuses(one) or statuses(one)[0] == "unverified", place


def test_absurd_proofs_are_refused() -> None:
    """Too large, too long a path, hashes of other lengths, another size than the checkpoint's."""
    with pytest.raises(ProofError, match="at most"):
        Proof.from_text(TEXT + b"x" * proof.MAX_PROOF_BYTES)
    with pytest.raises(ProofError, match="at most 63"):
        Proof(ENVELOPE, 0, 7, (bytes(32),) * 64, PROOF.checkpoint)
    with pytest.raises(ProofError):
        Proof(ENVELOPE, 0, 7, (bytes(31),), PROOF.checkpoint)
    with pytest.raises(ProofError, match="a log of 8 entries, its checkpoint about one of 7"):
        Proof(ENVELOPE, 0, 8, PROOF.hashes, PROOF.checkpoint)


# --- packed --------------------------------------------------------------------------------------------------------------------------


def test_a_proof_among_a_million_entries_fits_a_code_that_phones_read(tmp_path: Path) -> None:
    """Level M, at most 125 modules wide, and it comes back from the picture; among a thousand at most 109."""
    for number, size, width in ((999, 1000, 109), (777_777, 1_000_000, 125)):
        one = large(number, size)
        url = one.to_qr(VERIFY_PAGE)
        code = qr.encode(url)
        assert code.error == "M"
        assert code.symbol_size(border=0)[0] <= width
        (tmp_path / "proof.png").write_bytes(qr.png(url))
        assert Proof.from_qr(qr.read_one(tmp_path / "proof.png")) == one
        assert statuses(one) == ["proven", "proven", "attested"]


def test_the_page_before_a_packed_proof_does_not_matter() -> None:
    """Any page, none, and white space around it."""
    digits = URL.partition("#")[2]
    for text in (digits, f"https://example.com/other?x=1#{digits}", f"  {URL}\n"):
        assert is_packed(text)
        assert Proof.from_qr(text) == PROOF
    for text in ("hf:org/name@sha256:" + "0" * 64, digits + "x", FRAGMENT, f"see {digits}"):
        assert not is_packed(text)


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=80), st.binary(max_size=90), st.integers(0, 3))
def test_any_text_packs_and_unpacks(words: str, data: bytes, depth: int) -> None:
    """With base64 of base64 of anything in it, hex, and phrases of the format."""
    inner = hashlib.sha256(data).hexdigest().encode() + b64encode(data) + b'"}]}' + words.encode()
    for _ in range(depth):
        inner = b64encode(inner) + b'{"payload":"' + words.encode()
    assert unpack(pack(inner)) == inner


def test_a_text_with_control_characters_is_not_packed() -> None:
    """They are the marks of the packing."""
    with pytest.raises(ProofError, match="control characters"):
        pack(b"a\x01b")


def digits_of(data: bytes) -> str:
    """The digits as docs/formats/proof.md gives them."""
    lengths = {1: 3, 2: 5, 3: 8, 4: 10, 5: 13, 6: 15, 7: 17}
    groups = [data[at : at + 7] for at in range(0, len(data), 7)]
    return "".join(str(int.from_bytes(group, "big")).zfill(lengths[len(group)]) for group in groups)


def test_the_digits_are_those_of_the_documentation() -> None:
    """Groups of seven bytes in seventeen digits, the last one shorter."""
    assert f"{VERIFY_PAGE}#{FRAGMENT}{digits_of(pack(TEXT))}" == URL


def test_every_changed_or_missing_digit_is_refused() -> None:
    """By the reader or by the check."""
    digits = URL.rpartition(":")[2]
    for place in range(len(digits)):
        for text in (
            digits[:place] + str((int(digits[place]) + 5) % 10) + digits[place + 1 :],
            digits[:place],
            digits[:place] + digits[place + 1 :],
        ):
            try:
                one = Proof.from_qr(FRAGMENT + text)
            except ProofError:
                continue
            assert "failed" in statuses(one) or statuses(one)[0] == "unverified", place


def packed(template: bytes, raw: bytes = b"", *, version: int = 1) -> bytes:
    """A packing of a template of one's own."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflate.compress(template) + deflate.flush()
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
    return bytes([version]) + length + body + raw


def test_what_the_bytes_of_a_template_write() -> None:
    """The table of docs/formats/proof.md."""
    raw = bytes(range(32))
    assert unpack(packed(b"a\n\x01b", raw)) == b"a\n" + b64encode(raw) + b"b"
    assert unpack(packed(b"\x02", raw)) == raw.hex().encode()
    assert unpack(packed(b"\x03", b"\x05hello")) == b64encode(b"hello")
    assert unpack(packed(b"<\x04a\x04b\x05\x05>")) == b"<" + b64encode(b"a" + b64encode(b"b")) + b">"
    assert unpack(packed(b"\x14\x18")) == b'"}]}.alloy.json'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        packed(b"a", version=2),
        packed(b"a")[:-1],
        packed(b"a", b"x"),  # left over
        packed(b"\x01", bytes(31)),
        packed(b"\x03", b"\x06hello"),
        packed(b"\x03", b"\x80\x80\x80\x01"),
        packed(b"\x05"),
        packed(b"\x04a"),
        packed(b"\x04" * 4 + b"\x05" * 4),
        b"\x01\x03\x00\xff\xff",
        b"\x01\x7f" + packed(b"a")[2:],
        b"\x01\xff\xff\xff\xff\x7f",
    ],
)
def test_a_damaged_packing_is_refused(data: bytes) -> None:
    """Cut off, left over, another version, nested too deep, closed and not opened, not deflated."""
    with pytest.raises(ProofError):
        unpack(data)


@pytest.mark.parametrize("template", [b"a" * 10**7, b"\x11" * 60_000, b"\x04" + b"b" * 60_000 + b"\x05"])
def test_a_packing_that_unpacks_to_megabytes_is_refused(template: bytes) -> None:
    """Neither the inflated template nor what it writes may be larger than 64 KiB."""
    data = packed(template) if len(template) < 10**6 else None
    if data is None:  # its length needs a third byte
        body = zlib.compress(template, 9, wbits=-15)
        data = b"\x01" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7 & 0x7F | 0x80, len(body) >> 14]) + body
    assert len(data) < 12_000
    with pytest.raises(ProofError, match="more than 65,536 bytes"):
        unpack(data)


@given(st.binary(max_size=200))
def test_garbage_is_refused_without_a_crash(data: bytes) -> None:
    """Whatever a QR says."""
    for read in (unpack, Proof.from_text):
        with pytest.raises(ProofError):
            read(data)
    with pytest.raises(ProofError):
        Proof.from_qr(FRAGMENT + digits_of(b"\x01" + data))


# --- what it proves ------------------------------------------------------------------------------------------------------------------


def test_what_a_release_proves() -> None:
    """Its place, its signature; what it claims about the Hub is attested."""
    place, signature, claim = PROOF.check(TRUSTING)
    assert (place.status, place.entry, place.aside) == ("proven", 3, True)
    assert "entry 3 of the 7 of the log example.com/log, whose checkpoint alice signed" in place.text
    assert (signature.status, signature.entry, signature.aside) == ("proven", 3, False)
    assert str(Digest.of(ALLOY)) in signature.text
    assert (claim.status, claim.text.split(":")[0]) == ("attested", "alice released tiny-6e 1.0.0 to hf")


def test_a_stranger_proves_nothing() -> None:
    """His statement in his log: neither counts, and neither contradicts anybody whom the reader knows; he is told how to trust."""
    theirs = proof_of(dsse.sign(RELEASE.payload(), MALLORY), signer=MALLORY)
    assert statuses(theirs) == ["unverified", "unverified"]
    report = Report("", theirs.check(TRUSTING))
    assert (report.verdict, report.exit_code) == ("NOT VERIFIED", 3)
    assert "ledger key trust" in report.rows[1].hint
    assert statuses(theirs, unsafe_policy("alice", "mallory")) == ["proven", "proven", "attested"]


def test_a_trusted_statement_in_a_strangers_log_has_no_place() -> None:
    """The signature counts, the place does not, and that is said first."""
    rows = proof_of(signer=MALLORY).check(TRUSTING)
    assert [row.status for row in rows] == ["unverified", "proven", "attested"]
    assert "nobody signed whom test policy lets sign a log" in rows[0].text
    assert rows[1].entry is None


def test_a_strangers_statement_in_a_trusted_log_counts_for_nothing() -> None:
    """Anybody can have something logged."""
    theirs = proof_of(dsse.sign(RELEASE.payload(), MALLORY))
    assert statuses(theirs) == ["proven", "unverified"]
    assert Report("", theirs.check(TRUSTING)).verdict == "NOT VERIFIED"


def test_a_bad_signature_that_names_a_known_key_fails() -> None:
    """The statement was changed, or somebody signed in another's name: alone, and beside a good signature of his own."""
    theirs, ours = (json.loads(dsse.sign(RELEASE.payload(), signer)) for signer in (MALLORY, ALICE))
    forged = {"keyid": ours["signatures"][0]["keyid"], "sig": theirs["signatures"][0]["sig"]}
    for signatures in ([forged], [*theirs["signatures"], forged]):
        envelope = json.dumps({**theirs, "signatures": signatures}).encode()
        assert statuses(proof_of(envelope)) == ["proven", "failed"]


def test_a_known_key_that_the_policy_does_not_let_say_this_fails() -> None:
    """The reader has decided about it: a rule names the key, and for something else."""
    policy = Policy(TRUSTING.keys, (replace(TRUSTING.rules[0], artifacts=("other",), stages=("quant",)),))
    assert statuses(PROOF, policy)[-1] == "failed"


def test_an_empty_policy_trusts_nobody() -> None:
    """And nothing is verified."""
    assert statuses(PROOF, Policy({}, ())) == ["unverified", "unverified"]


def test_a_path_that_leads_elsewhere_fails() -> None:
    """Of another entry, with another number, with hashes swapped or left out; the place is then not used to judge the key."""
    for number, hashes in ((2, PROOF.hashes), (3, PROOF.hashes[::-1]), (3, PROOF.hashes[:-1]), (3, ()), (7, PROOF.hashes)):
        one = Proof(PROOF.envelope, number, 7, hashes, PROOF.checkpoint)
        rows = one.check(TRUSTING)
        assert rows[0].status == "failed"
        assert all(row.entry is None for row in rows)


def test_another_statement_with_the_same_path_fails() -> None:
    """Mix and match: a trusted statement that was never logged, with the proof of one that was."""
    other = dsse.sign(statement.make({"x": Digest.of(b"x")}, "https://example.com/seen", {"by": "me"}), ALICE)
    assert statuses(Proof(other, 3, 7, PROOF.hashes, PROOF.checkpoint))[0] == "failed"


def test_an_edited_checkpoint_fails() -> None:
    """A root or a size of one's own under the log's signature line."""
    text, _, line = PROOF.checkpoint.partition(b"\n\n")
    forged = text.replace(b"\n7\n", b"\n8\n") + b"\n\n" + line
    leaves = [tlog.leaf_hash(ENVELOPE), *(tlog.leaf_hash(bytes([place])) for place in range(6))]
    root = note.Checkpoint("example.com/log", 7, tlog.root(leaves)).text().encode() + b"\n" + line
    assert statuses(Proof(ENVELOPE, 3, 8, PROOF.hashes, forged))[0] == "failed"
    assert statuses(Proof(ENVELOPE, 0, 7, tlog.inclusion_proof(leaves, 0), root))[0] == "failed"


def policy(text: str) -> Policy:
    return Policy.parse(
        f'version: 1\nkeys: {{alice: {{key: "{ALICE.public}", {text}}}}}\nrules: [{{keys: [alice]}}]\n', source="test policy"
    )


def test_a_key_counts_at_its_entries_only() -> None:
    """A key that was retired signs no checkpoint any more, and without a place nothing of it counts; one from entry 3 on does."""
    assert statuses(PROOF, policy("from: 3")) == ["proven", "proven", "attested"]
    assert statuses(PROOF, policy("from: 4")) == ["proven", "failed"]
    assert statuses(PROOF, policy("until: 3")) == ["unverified", "failed"]
    assert statuses(PROOF, policy("until: 100")) == ["unverified", "failed"]


def test_a_key_for_other_artifacts_signs_no_log_and_no_release() -> None:
    """A rule names what it is for."""
    text = f'version: 1\nkeys: {{alice: "{ALICE.public}"}}\nrules: [{{keys: [alice], artifacts: ["other*"]}}]\n'
    assert statuses(PROOF, Policy.parse(text)) == ["unverified", "failed"]
    allowed = Policy.parse(text.replace("other*", "tiny-6e.alloy.json"))
    assert statuses(PROOF, allowed) == ["unverified", "proven", "attested"]


def test_a_policy_that_wants_witnesses_gets_them_or_fails() -> None:
    """Fresh enough: proven; too old, none, or a cosignature of another checkpoint: failed. They fit into the QR too."""
    text = f'version: 1\nkeys: {{alice: "{ALICE.public}", bob: "{BOB.public}"}}\nrules: [{{keys: [alice]}}]\n'
    wanting = Policy.parse(text + "checkpoints: {maxAge: 30d, witnesses: [bob], threshold: 1}\n")
    now = int(time.time())

    def seen(when: int) -> Proof:
        return Proof(ENVELOPE, 3, 7, PROOF.hashes, cosign.sign(PROOF.checkpoint, BOB, when=when))

    assert statuses(seen(now), wanting) == ["proven", "proven", "proven", "attested"]
    assert Proof.from_qr(seen(now).to_qr(VERIFY_PAGE)) == seen(now)
    for stale in (PROOF, seen(now - 31 * 86_400), seen(now + 86_400)):
        assert statuses(stale, wanting) == ["proven", "failed", "proven", "attested"]
    other = cosign.sign(proof_of(size=8).checkpoint, BOB, when=now).rpartition(b"\n\n")[2].splitlines()[-1]
    borrowed = Proof(ENVELOPE, 3, 7, PROOF.hashes, PROOF.checkpoint + other + b"\n")
    assert "failed" in statuses(borrowed, wanting)


def test_hostile_names_reach_no_terminal() -> None:
    """Control characters in an origin are refused; in names of subjects they cannot be signed; long ones are cut."""
    payload = statement.make({f"x{'y' * 500}": Digest.of(b"")}, "https://example.com/" + "z" * 500, {"by": "me"})
    rows = proof_of(dsse.sign(payload, ALICE), origin="log/" + "o" * 500).check(TRUSTING)
    assert all(len(row.text) < 900 and row.text.isprintable() for row in rows)


def test_an_envelope_that_is_none_fails() -> None:
    """A leaf of the log that says nothing that can be read."""
    assert statuses(proof_of(b"not an envelope")) == ["proven", "failed"]
    assert statuses(proof_of(dsse.sign(b"{}", ALICE))) == ["proven", "failed"]


def test_a_publication_that_cannot_be_read_fails() -> None:
    """Signed by a trusted key, and of another form."""
    payload = statement.make({"x": Digest.of(b"")}, "urn:alloy-ledger:publication:v1", {"event": "released"})
    assert statuses(proof_of(dsse.sign(payload, ALICE))) == ["proven", "proven", "failed"]


def test_errors_are_ledger_errors() -> None:
    """So that the command line knows their exit code."""
    with pytest.raises(LedgerError):
        Proof.from_qr("")
