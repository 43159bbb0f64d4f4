"""What people and QR codes say, as the page reads it: policies and locators, compared with the program's own readers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import locator, policy_text
from ledger.dsse import Envelope, verify
from ledger.errors import LocatorError, PolicyError, UntrustedError
from ledger.locator import HubSource
from ledger.note import parse_note
from ledger.policy import Policy
from ledger.predicates import EVALUATION
from ledger.statement import Statement, make
from ledger.testing import UnsafeSigner, run_payload, unsafe_policy
from store.actions import Action
from store.digest import Digest
from tests.page.chromium import Chromium, Page
from tests.page.conftest import Site

FULL = "0123456789abcdef" * 4
ALICE, BOB, CAROL = (str(UnsafeSigner(name).public) for name in ("alice", "bob", "carol"))
P256 = "ecdsa-p256:A2sX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKW"

READ = "text => { try { return Policy.parse(text).shape(); } catch (error) { faultText(error); return null; } }"
"""A policy as the page understands it, as `shape` below gives it; null when it is refused."""

SHAPE = """() => { const KINDS = ["stages", "artifacts", "predicates", "builders"]; Policy.prototype.shape = function () {
  const end = until => until === Infinity ? null : until;
  return {
    keys: Object.fromEntries([...this.keys].map(([name, key]) => [name, key.text])),
    spans: Object.fromEntries([...this.spans].map(([name, [first, until]]) => [name, [first, end(until)]])),
    replaces: Object.fromEntries(this.replaces), environment: this.environment,
    rules: this.rules.map(rule => [rule.keys, rule.threshold, ...KINDS.map(name => rule[name].texts)]),
    checkpoints: this.freshness && [this.freshness.witnesses, this.freshness.threshold, end(this.freshness.maxAge)],
  };
}; }"""


def shape(policy: Policy) -> dict[str, Any]:
    """The same of the program's reading."""

    def predicates(rule: Any) -> list[str]:
        if rule.predicates is not None:
            return list(rule.predicates)
        everything = "*" in rule.stages and "*" in rule.builders
        return ["*"] if everything else ["https://slsa.dev/provenance/v1"]

    spans = {name: [0, None] for name in policy.keys} | {name: [span.first, span.until] for name, span in policy.spans.items()}
    wanted = policy.checkpoints
    return {
        "keys": {name: str(key) for name, key in policy.keys.items()},
        "spans": spans,
        "replaces": dict(policy.replaces),
        "environment": policy.environment,
        "rules": [
            [list(rule.keys), rule.threshold, list(rule.stages), list(rule.artifacts), predicates(rule), list(rule.builders)]
            for rule in policy.rules
        ],
        "checkpoints": None if wanted is None else [list(wanted.names), wanted.threshold, wanted.max_age_s],
    }


@pytest.fixture(scope="module")
def reader(browser: Chromium, site: Site) -> Iterator[Page]:
    """One tab for all of these: they only call functions of it."""
    page = browser.page()
    page.open(site.page())
    page.call(SHAPE)
    yield page
    page.close()


GOOD = {
    "what init writes": policy_text.starting("me", UnsafeSigner("alice").public),
    "the shipped one": Path(next(iter(Policy.shipped().values())).source).read_text(),
    "one line": f'version: 1\nkeys: {{alice: "{ALICE}"}}\nrules: [{{keys: [alice], stages: ["gguf-*", "prune-*"]}}]\n',
    "no rules": f"version: 1\nkeys:\n  alice: {ALICE}\n",
    "the page of the format": f"""
version: 1
keys:
  alice: "{ALICE}"
  bob: {{key: "{BOB}", until: 1200}}   # retired: counts up to entry 1199
  carol: '{CAROL}'
  dora: {P256}
environment: same
rules:
  - keys: [alice]
  - keys: [bob, carol]
    threshold: 2
    stages: ["gguf-*", "prune-*"]
    builders: ["urn:x"]
  -   keys:
        - carol
      stages:
      - "perplexity-*"
      predicates: ["urn:alloy-ledger:evaluation:*"]
checkpoints: {{witnesses: [carol, alice], threshold: 2, maxAge: 30d}}
""",
    "a successor": f'version: 1\nkeys:\n  al: {ALICE}\n  a-2: {{key: "{BOB}", replaces: al, from: 7}}\nrules:\n- {{keys: [al, a-2]}}\n',
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_policies_mean_here_what_they_mean_to_the_program(reader: Page, text: str) -> None:
    """As YAML, and as the JSON that `ledger key export --as policy` prints."""
    policy = Policy.parse(text)
    assert reader.call(READ, text) == shape(policy)
    exported = json.dumps(policy.to_json())
    assert reader.call(READ, exported) == shape(Policy.parse(exported))


BAD = {
    "nothing": "",
    "only comments": "# nobody\n",
    "no version": "rules: []\n",
    "another version": "version: 2\n",
    "an unknown field": "version: 1\ntrust: all\n",
    "a field twice": f'version: 1\nkeys: {{a: "{ALICE}"}}\nkeys: {{b: "{BOB}"}}\n',
    "a JSON field twice": f'{{"version": 1, "keys": {{"a": "{ALICE}"}}, "keys": {{"b": "{BOB}"}}}}',
    "one key, two names": f'version: 1\nkeys: {{a: "{ALICE}", b: "{ALICE}"}}\n',
    "a threshold that nobody meets": f'version: 1\nkeys: {{a: "{ALICE}"}}\nrules: [{{keys: [a], threshold: 2}}]\n',
    "one holder": f'version: 1\nkeys: {{a: "{ALICE}", b: {{key: "{BOB}", replaces: a}}}}\nrules: [{{keys: [a, b], threshold: 2}}]\n',
    "a name that is no key": f'version: 1\nkeys: {{a: "{ALICE}"}}\nrules: [{{keys: [b]}}]\n',
    "a key twice in a rule": f'version: 1\nkeys: {{a: "{ALICE}"}}\nrules: [{{keys: [a, a]}}]\n',
    "no patterns": f'version: 1\nkeys: {{a: "{ALICE}"}}\nrules: [{{keys: [a], stages: []}}]\n',
    "a number for a pattern": f'version: 1\nkeys: {{a: "{ALICE}"}}\nrules: [{{keys: [a], stages: [1]}}]\n',
    "a key of small order": 'version: 1\nkeys: {a: "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}\n',
    "a bare star": f'version: 1\nkeys: {{a: "{ALICE}"}}\nrules: [{{keys: [a], stages: [*]}}]\n',
    "an alias": f'version: 1\nkeys: &k {{a: "{ALICE}"}}\nrules: *k\n',
    "a merge": f'version: 1\nkeys: {{<<: {{a: "{ALICE}"}}}}\n',
    "two documents": "version: 1\n---\nversion: 1\n",
    "a tab": "version: 1\nrules:\n\t- keys: [a]\n",
    "an until before its from": f'version: 1\nkeys: {{a: {{key: "{ALICE}", from: 5, until: 4}}}}\n',
    "a circle of holders": f'version: 1\nkeys: {{a: {{key: "{ALICE}", replaces: b}}, b: {{key: "{BOB}", replaces: a}}}}\n',
    "a fraction": "version: 1.0\n",
    "a truth value for a name": f'version: 1\nkeys: {{yes: "{ALICE}"}}\n',
    "no witnesses": "version: 1\ncheckpoints: {maxAge: 30d}\n",
    "an age without a unit": f'version: 1\nkeys: {{a: "{ALICE}"}}\ncheckpoints: {{witnesses: [a], maxAge: 30}}\n',
    "a list": "- version: 1\n",
    "a text": "version 1\n",
    "an open quotation": 'version: 1\nkeys: {a: "ed25519:}\n',
    "too far in": "version: 1\n  rules: []\n",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_policy_is_refused_by_both(reader: Page, text: str) -> None:
    """Nobody is trusted because of a text that two readers could read differently, or that says something impossible."""
    assert reader.call(READ, text) is None
    with pytest.raises(PolicyError):
        Policy.parse(text)


def test_yaml_that_is_more_than_plain_is_refused_with_a_sentence(reader: Page) -> None:
    """What YAML allows beyond what `ledger init` writes is refused here although the program reads it; the sentence says what to give."""
    for text in (
        "version: 1\nkeys: {\n}\n",
        'version: 1\nenvironment: "a\\x6ey"\n',
        "version: 1\nenvironment: >\n  any\n",
        "? version\n: 1\n",
        "version: !!int 1\n",
    ):
        words = reader.call("text => { try { Policy.parse(text); return null; } catch (error) { return faultText(error); } }", text)
        assert words is not None
        assert "of the policy:" in words
        assert "ledger key export --as policy" in words


def test_every_change_of_a_policy_is_read_alike_or_refused(reader: Page) -> None:
    """Of thousands of small changes of a policy the page takes none differently than the program, and none that the program refuses."""
    text, generator = GOOD["the page of the format"], random.Random(5)
    signs = [
        "",
        " ",
        "\n",
        ":",
        "-",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        "#",
        ",",
        "*",
        "&",
        "!",
        "|",
        "~",
        "1",
        "x",
        "\t",
        "\r",
        "?",
        "\\",
        "- ",
        ": ",
    ]
    variants = []
    for _ in range(3000):
        at = generator.randrange(len(text))
        variants.append(text[:at] + generator.choice(signs) + text[at + generator.randrange(3) :])
    taken = 0
    for variant, one in zip(variants, reader.call(f"texts => texts.map({READ})", variants), strict=True):
        if one is not None:
            taken += 1
            assert shape(Policy.parse(variant)) == one, variant
    assert taken > 300


# --- judging ---------------------------------------------------------------------------------------------------------------------


def test_statements_are_judged_as_in_python(reader: Page) -> None:
    """The table of the format's page: stages, thresholds, ends, predicates, at every place; and at no proven place."""
    policy = Policy.parse(GOOD["the page of the format"].replace('    builders: ["urn:x"]\n', ""))
    text = json.dumps(policy.to_json())
    run = [
        Statement.parse(run_payload(Action(stage, 1, {}, {}), {"x": Digest.of(b"x")}))
        for stage in ("train-segment", "gguf-quantize", "prune-shard", "perplexity-block")
    ]
    statements = [
        *run,
        Statement.parse(make({"x": Digest.of(b"x")}, EVALUATION, {})),
        Statement.parse(make({"sha256:fake": Digest.of(b"y")}, "urn:other", {})),
    ]
    signers = [[], ["alice"], ["bob"], ["carol"], ["bob", "carol"], ["alice", "bob"], ["alice", "bob", "carol"]]
    cases = [(one, names, place) for one in statements for names in signers for place in (None, 0, 5, 1199, 1200, 10**6)]

    def python(one: Statement, names: list[str], place: int | None) -> list[str]:
        try:
            return list(policy.judge(one, frozenset(UnsafeSigner(name).public for name in names), position=place))
        except UntrustedError:
            return []

    found = reader.call(
        """(text, cases) => { const policy = Policy.parse(text); return cases.map(([payload, keys, place]) => {
          const statement = parseStatement(utf8(payload));
          return policy.judgeTogether([{ statement, counting: policy.counting(new Set(keys), place) }])[0];
        }); }""",
        text,
        [[one.payload.decode(), [str(UnsafeSigner(name).public) for name in names], place] for one, names, place in cases],
    )
    assert found == [python(*case) for case in cases]
    assert sum(map(bool, found)) > 20


def test_patterns_match_as_a_shell_does(reader: Page) -> None:
    """Stars, question marks, sets and ranges, negated too; and none takes long."""
    from fnmatch import fnmatchcase

    patterns = [
        "*",
        "a*",
        "*a",
        "a*b*c",
        "?",
        "a?c",
        "[abc]",
        "[!abc]",
        "[a-c]x",
        "[]]",
        "[!]]",
        "[",
        "[a",
        "a[b-]c",
        "*[0-9]",
        "",
        "a.b",
        "ä*",
        "sha256:*",
        "**",
        "*?*",
    ]
    texts = ["", "a", "b", "abc", "axbyc", "]", "[", "[a", "a-c", "abc9", "a.b", "axb", "äö", "sha256:00", "A", "a\nb", "cx", "😀", "abbc"]
    found = reader.call("(patterns, texts) => patterns.map(one => texts.map(text => globMatches(one, text)))", patterns, texts)
    assert found == [[fnmatchcase(text, one) for text in texts] for one in patterns]
    assert reader.evaluate("globMatches('*a'.repeat(200) + 'b', 'a'.repeat(20000))") is False


# --- locators --------------------------------------------------------------------------------------------------------------------

PAGE = "https://alloy-ledger.github.io/verify/"
OLD_PAGE = "https://cambriantech.github.io/forge-alloy/verify/"
ON_HUB = "https://huggingface.co/org/tiny"

LOCATORS = [
    "  hf:org/tiny\n", "hf:org/tiny@v1.0", "hf:org/tiny@refs%2Fpr%2F1/a/b.gguf", f"hf:org/tiny@sha256:{FULL}", "hf:org/tiny/x@y.gguf",
    f"hf:org/tiny@main/x.gguf@sha256:{FULL.upper()}", f"hf:org/tiny@sha256:{FULL[:16]}", f"{PAGE}#hf:org/tiny@sha256:{FULL}",
    f"http://localhost:8000/v.html#hf%3Aorg%2Ftiny%40sha256%3A{FULL}", ON_HUB, "https://hf.co/org/tiny/tree/main",
    f"{ON_HUB}/resolve/refs%2Fpr%2F1/a/b%20c.gguf?download=true", f"{ON_HUB}/blob/main/t.alloy.json#sha256:{FULL}",
    "hf:org/tiny",
    f"{ON_HUB}/blob/main/t.alloy.json#sha256:{FULL[:16]}", f"{OLD_PAGE}#{FULL[:16]}", f"{OLD_PAGE}#github:forge-alloy@{FULL[:16]}",
    "https://x.org/verify/#https%3A%2F%2Fhuggingface.co%2Forg%2Ftiny", "https://example.org/a.alloy.json", FULL, f"sha256:{FULL}", FULL[:8],
    f"https://huggingface.co.evil.org/org/tiny#sha256:{FULL}", "https://HUGGINGFACE.co./org/tiny", "https://user@huggingface.co:443/org/tiny",
    "https://www.huggingface.co/org/tiny/commit/abc", "https://huggingface.co\\@evil.org/a/b", "https://huggingface.co/org/../../x/y",
    "", "tiny.alloy.json", FULL[:7], FULL + "0", "hf:tiny", "hf:org/../tiny", "hf:org/tiny@", "hf:org/tiny@../x", "hf:org/tiny/a/../b",
    "hf:org/tiny/",
    "hf:org/tiny/a\x1b[2J", "hf:org/t\u0456ny", "hf:org/tiny@sha256:xyz", f"hf:org/tiny@sha256:{FULL}0",
    "https://huggingface.co/datasets/org/tiny",
    "https://huggingface.co/tiny", f"{ON_HUB}/discussions/1", f"{ON_HUB}#usage", "https://", "https://[::1/x", "github:forge-alloy",
    "https://x.org/#sha256:", "hf:org/" + "a" * 5000, "javascript:alert(1)", "data:text/html,x", "hf:org/tiny/a\u202eb", "hf:org/tiny@a b",
]  # fmt: skip


@pytest.mark.parametrize("text", LOCATORS)
def test_locators_mean_here_what_they_mean_to_the_program(reader: Page, text: str) -> None:
    """The same place, the same expected hash, the same word for old forms; and what the program refuses is refused."""
    found = reader.call(
        """text => { try {
          const { source, expected, legacy } = parseLocator(text);
          return [source && (source.kind === "hub" ? [source.repo, source.revision, source.path] : source.url), expected, legacy];
        } catch (error) { faultText(error); return null; } }""",
        text,
    )
    try:
        one = locator.parse(text)
    except LocatorError:
        assert found is None
        return
    source: Any = None
    if isinstance(one.source, HubSource):
        source = [one.source.repo, one.source.revision, one.source.path]
    elif one.source is not None:
        source = one.source.url
    assert found == [source, one.expected.hex if one.expected else None, one.legacy]


# --- envelopes and notes -----------------------------------------------------------------------------------------------------------


def test_signatures_of_the_program_verify_here(reader: Page) -> None:
    """A checkpoint and an envelope by the program are signed here by the same key, and by no other."""
    from ledger.dsse import sign
    from ledger.note import Checkpoint, sign_checkpoint, verify_note

    signer = UnsafeSigner("alice")
    payload = make({"x": Digest.of(b"x")}, EVALUATION, {"a": 1})
    envelope, note = sign(payload, signer), sign_checkpoint(Checkpoint("ledger/x", 3, bytes(32)), signer)
    assert verify(Envelope.parse(envelope), [signer.public])
    assert verify_note(parse_note(note), [signer.public])
    found = reader.call(
        """async (envelope, note, mine, other) => {
          const one = parseEnvelope(utf8(envelope)), message = pae(one.payloadType, one.payload);
          const keys = [mine, other].map(text => PublicKey.parse(text));
          const signed = await Promise.all(keys.map(key => key.verify(one.signatures[0].sig, message)));
          const who = await logSigners(parseCheckpoint(utf8(note)), new Map([["mine", keys[0]], ["other", keys[1]]]));
          return [signed, [...who]];
        }""",
        envelope.decode(),
        note.decode(),
        str(signer.public),
        str(UnsafeSigner("bob").public),
    )
    assert found == [[True, False], ["mine"]]
    assert unsafe_policy("alice").keys["alice"] == signer.public
