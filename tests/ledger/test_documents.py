"""The worked examples of docs/formats and docs/predicates are made anew here and must stand there, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ledger import cosign, dsse, predicates, tlog
from ledger.errors import UntrustedError
from ledger.keys import PublicKey
from ledger.note import Checkpoint, key_hash, parse_note, sign_checkpoint, verify_note
from ledger.openssh import ssh_public_line
from ledger.policy import Policy, Witnesses
from ledger.statement import Statement, make
from ledger.testing import UnsafeSigner
from store import canonical
from store.actions import Action
from store.digest import Digest

DOCS = Path(__file__).parents[2] / "docs"
ALICE, BOB = UnsafeSigner("alice"), UnsafeSigner("bob")
ACTION = Action("expert-prune", 1, {"keep": 6}, {"model": Digest.of(b"a model"), "profile": Digest.of(b"a profile")})
OUTPUTS = {"model": Digest.of(b"a smaller model")}
RUN = make(
    OUTPUTS,
    predicates.RUN,
    predicates.run_predicate(
        ACTION,
        purity="P",
        environment=None,
        builder="urn:alloy-ledger:builder:v1",
        invocation="run-1",
        started_on="2026-11-23T10:00:00Z",
        finished_on="2026-11-23T10:00:01Z",
        byproducts={"notes": {"seconds": 0.75}},
    ),
)


def blocks(page: str, kind: str = "") -> list[str]:
    """The fenced blocks of a page; of one language only when it is named."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), flags=re.M | re.S)
    return [text for language, text in found if not kind or language == kind]


def test_statement() -> None:
    """The payload of the example, its action's canonical JSON, and the key."""
    shown = blocks("formats/statement.md")
    assert RUN.decode() + "\n" in shown
    assert canonical.dumps(ACTION.to_json()).decode() + "\n" in shown
    assert str(ACTION.key) in (DOCS / "formats/statement.md").read_text()
    assert predicates.action_of(Statement.parse(shown[0][:-1].encode())) == ACTION


def test_envelope() -> None:
    """The envelope of the statement's payload by the unsafe key alice; read from the page, it verifies."""
    data = dsse.sign(RUN, ALICE)
    shown = blocks("formats/envelope.md", "json")
    assert [data.decode() + "\n"] == shown
    envelope = dsse.Envelope.parse(shown[0][:-1].encode())
    assert dsse.verify(envelope, [ALICE.public]) == {ALICE.public}
    assert envelope.payload == RUN
    text = (DOCS / "formats/envelope.md").read_text()
    assert f"DSSEv1 28 application/vnd.in-toto+json {len(RUN)} " in text
    assert tlog.leaf_hash(data).hex() in text


def test_keys() -> None:
    """The texts of one public key, and both kinds are parsed back."""
    text = (DOCS / "formats/keys.md").read_text()
    assert str(ALICE.public) in text
    assert f"{ssh_public_line(ALICE.public)} alice" in text
    assert {PublicKey.parse(found).algorithm for found in re.findall(r"^(?:ed25519|ecdsa-p256):\S+$", text, flags=re.M)} == {
        "ed25519",
        "ecdsa-p256",
    }


def test_checkpoint() -> None:
    """Leaf hashes, frontier, root and note of a log of three entries; proofs of two of its claims."""
    leaves = [tlog.leaf_hash(data) for data in (b"first", b"second", b"third")]
    note = sign_checkpoint(Checkpoint("example.com/log", 3, tlog.root(leaves)), ALICE)
    text = (DOCS / "formats/checkpoint.md").read_text()
    frontier = tlog.Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
        assert leaf.hex() in text
    shown = blocks("formats/checkpoint.md", "text")
    assert verify_note(parse_note(note), [ALICE.public]) == {ALICE.public}
    witnessed = cosign.sign(note, UnsafeSigner("witness"), when=1_700_000_000)
    assert shown == [note.decode(), witnessed.decode()]
    assert key_hash("example.com/log", ALICE.public).hex() in text
    assert frontier.to_bytes().hex() in text
    assert frontier.root.hex() in text
    for proof in (tlog.inclusion_proof(leaves, 0), tlog.consistency_proof(leaves, 2)):
        assert all(item.hex() in text for item in proof)


def test_policy() -> None:
    """The policy of the page judges as its table says."""
    page = (DOCS / "formats/policy.md").read_text()
    policy = Policy.parse(blocks("formats/policy.md", "yaml")[0])
    signers = {"alice": ALICE.public, "bob": BOB.public, "carol": UnsafeSigner("carol").public}
    assert {name: policy.keys[name] for name in signers} == signers
    rows = re.findall(r"^\| (run of (\S+)|evaluation) \| (.+?) \| (\d+) \| (.+?) \|$", page, flags=re.M)
    assert len(rows) >= 8
    for what, stage, signed_by, position, expected in rows:
        if what == "evaluation":
            statement = Statement.parse(make(OUTPUTS, predicates.EVALUATION, {}))
        else:
            value = predicates.run_predicate(
                Action(stage, 1, {}),
                purity="P",
                environment=None,
                builder="b",
                invocation="i",
                started_on="s",
                finished_on="f",
                byproducts={},
            )
            statement = Statement.parse(make(OUTPUTS, predicates.RUN, value))
        keys = frozenset(signers[name] for name in signed_by.split(", "))
        if expected == "not trusted":
            with pytest.raises(UntrustedError):
                policy.judge(statement, keys, position=int(position))
        else:
            assert policy.judge(statement, keys, position=int(position)) == tuple(expected.split(", ")), (what, signed_by, position)


def test_policy_with_witnesses() -> None:
    """The second policy of the page: a changed key is one holder, runs by one builder, witnesses within a month; as JSON it is the same."""
    policy = Policy.parse(blocks("formats/policy.md", "yaml")[1])
    assert policy.holders(("alice", "alice-2")) == 1
    assert policy.checkpoints == Witnesses(("witness",), 1, 30 * 86_400)
    assert policy.rules[0].builders == ("urn:alloy-ledger:builder:local",)
    assert Policy.parse(canonical.dumps(policy.to_json()).decode()) == policy


@pytest.mark.parametrize("page", ["run", "evaluation", "key-event"])
def test_predicates(page: str) -> None:
    """The example of each page is a predicate that can be signed and is read back; a run's has its action, a key event its event."""
    text = (DOCS / f"predicates/{page}.md").read_text()
    value = canonical.loads(blocks(f"predicates/{page}.md", "json")[0].encode())
    kind = {"run": predicates.RUN, "evaluation": predicates.EVALUATION, "key-event": predicates.KEY_EVENT}[page]
    assert f"`{kind}`" in text
    if page == "run":
        statement = Statement.parse(make(OUTPUTS, kind, value))
        assert predicates.action_of(statement).stage == "expert-prune"
        assert predicates.environment_of(statement)[1] is not None
        assert predicates.byproducts_of(statement) == {"notes": {"seconds": 0.75}}
    elif page == "key-event":
        key = PublicKey.parse(value["key"])
        event = predicates.KeyEvent.of(Statement.parse(make({str(key): Digest.of(str(key).encode())}, kind, value)))
        assert event.event == "superseded"
    else:
        Digest.parse(Statement.parse(make({"gguf": Digest.of(b"gguf")}, kind, value)).predicate["action"])
