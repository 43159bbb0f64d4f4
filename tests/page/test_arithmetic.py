"""The page's own arithmetic against the public vectors and against Python: hashes, signatures, numbers, JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
from base64 import b64encode
from pathlib import Path

import pytest

from ledger.dsse import pae
from ledger.errors import PublicKeyError
from ledger.keys import PublicKey
from store import canonical
from store.errors import CanonicalError
from tests.page.chromium import Page
from tests.page.look import attempts

VECTORS = Path(__file__).parents[1] / "vectors"

SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
]


def test_sha256_is_sha256_however_it_is_cut(page: Page) -> None:
    """Every length around the edges of blocks, and a long text in pieces of all sizes."""
    data = random.Random(1).randbytes(5000)
    found = page.call(
        """text => {
          const data = unbase64(text, "data"), all = [];
          for (let length = 0; length < 300; length++) all.push(hex(sha256(data.subarray(0, length))));
          for (let piece = 1; piece < 200; piece += 7) {
            const hash = new Sha256();
            for (let at = 0; at < data.length; at += piece) hash.update(data.subarray(at, at + piece));
            all.push(hex(hash.digest()));
          }
          return all;
        }""",
        b64encode(data).decode(),
    )
    whole = hashlib.sha256(data).hexdigest()
    assert found == [hashlib.sha256(data[:length]).hexdigest() for length in range(300)] + [whole] * len(range(1, 200, 7))


def test_sha1_and_sha512_are_what_they_are_called(page: Page) -> None:
    """The git id and the hash inside Ed25519, at every length around the edges of blocks."""
    data = random.Random(2).randbytes(300)
    found = page.call(
        """text => {
          const data = unbase64(text, "data"), hashes = start => [hex(sha1(start)), hex(sha512(start))];
          return Array.from(data, (_, at) => hashes(data.subarray(0, at)));
        }""",
        b64encode(data).decode(),
    )
    assert found == [[hashlib.sha1(data[:at]).hexdigest(), hashlib.sha512(data[:at]).hexdigest()] for at in range(300)]


@pytest.mark.parametrize("own", [True, False], ids=["BigInt", "WebCrypto"])
def test_ed25519_accepts_and_refuses_as_wycheproof_says(page: Page, own: bool) -> None:
    """All 151 public vectors, by the page's own arithmetic and by the browser's."""
    groups = json.loads((VECTORS / "ed25519/wycheproof.json").read_text())["testGroups"]
    cases = [[group["publicKey"]["pk"], one["sig"], one["msg"], one["result"] == "valid"] for group in groups for one in group["tests"]]
    assert len(cases) == 151
    found = page.call(
        """async (cases, own) => {
          if (own) ownEd25519 = Promise.resolve(false);
          else if (!await hasEd25519()) return "the browser has no Ed25519";
          const key = pk => PublicKey.parse(`ed25519:${base64(unhex(pk))}`), all = [];
          for (const [pk, sig, msg] of cases) all.push(await key(pk).verify(unhex(sig), unhex(msg)));
          return all;
        }""",
        cases,
        own,
    )
    assert found == [valid for *_, valid in cases]


@pytest.mark.parametrize("own", [True, False], ids=["BigInt", "WebCrypto"])
def test_ed25519_agrees_with_python_on_edge_cases(page: Page, own: bool) -> None:
    """CCTV's 914: whatever the page accepts, the program accepts, and the other way round; keys of small order are refused by both."""
    cases = [[one["key"], one["sig"], one["msg"].encode().hex()] for one in json.loads((VECTORS / "ed25519/cctv.json").read_text())]

    def python(key: str, sig: str, msg: str) -> bool | None:
        from ledger.errors import SignatureError

        try:
            PublicKey("ed25519", bytes.fromhex(key)).verify(bytes.fromhex(sig), bytes.fromhex(msg))
        except PublicKeyError:
            return None
        except SignatureError:
            return False
        return True

    found = page.call(
        """async (cases, own) => {
          if (own) ownEd25519 = Promise.resolve(false);
          const all = [];
          for (const [pk, sig, msg] of cases) {
            let key;
            try { key = PublicKey.parse(`ed25519:${base64(unhex(pk))}`); } catch (error) { faultText(error); all.push(null); continue; }
            all.push(await key.verify(unhex(sig), unhex(msg)));
          }
          return all;
        }""",
        cases,
        own,
    )
    assert found == [python(*case) for case in cases]


def test_p256_accepts_and_refuses_as_wycheproof_says(page: Page) -> None:
    """The public vectors for ECDSA over P-256 with SHA-256: DER in one form only, and nothing beyond its length."""
    data = json.loads((VECTORS / "ecdsa-p256/wycheproof.json").read_text())
    cases = []
    for group in data["testGroups"]:
        point = bytes.fromhex(group["publicKey"]["uncompressed"])
        raw = bytes([2 + (point[-1] & 1)]) + point[1:33]
        cases += [[b64encode(raw).decode(), one["sig"], one["msg"], one["result"] == "valid"] for one in group["tests"]]
    found = page.call(
        """async cases => {
          const all = [];
          for (const [key, sig, msg] of cases) all.push(await PublicKey.parse(`ecdsa-p256:${key}`).verify(unhex(sig), unhex(msg)));
          return all;
        }""",
        cases,
    )
    assert len(cases) > 400
    assert found == [valid for *_, valid in cases]


def test_keys_are_refused_as_in_python(page: Page) -> None:
    """Small order in both signs, no points, second encodings, wrong lengths: nothing that could be trusted twice or sign for many."""
    raws = [bytes.fromhex(one) for one in SMALL_ORDER]
    raws += [raw[:-1] + bytes([raw[-1] | 0x80]) for raw in raws]
    raws += [(2**255 - 19 + n).to_bytes(32, "little") for n in range(3)] + [bytes([2]) + bytes(31), bytes(31), bytes(33)]
    texts = [f"ed25519:{b64encode(raw).decode()}" for raw in raws]
    good = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    texts += [good, good.replace("URo", "URp"), good.replace("=", ""), "rsa:AAAA", "ed25519:"]
    texts += [f"ecdsa-p256:{b64encode(bytes([kind]) + bytes(31) + bytes([x])).decode()}" for kind in (2, 3, 4) for x in range(6)]

    def fine(text: str) -> bool:
        try:
            PublicKey.parse(text)
        except PublicKeyError:
            return False
        return True

    found = attempts(page, "text => PublicKey.parse(text).text === text", texts)
    assert found == [fine(text) or None for text in texts]
    assert found.count(True) >= 3


def test_json_is_read_as_strictly_as_in_python(page: Page) -> None:
    """What is refused there is refused here; what is read has the same canonical bytes."""
    texts: list[bytes] = [
        b'{"a":1}', b' [1, 2.50, -0, 1e3, 0.1, -1.5E-7, 1e21, 123456789012345678] ', b'{"a":1,"a":2}', b"\xef\xbb\xbf{}",
        b'"\xff"', b'"\\ud800"', b'"\\ud83d\\ude00 \\u00e9 \\/"', b'"\\udc00\\ud800"', b'"a\x00b"', b'"tab\tin"', b"NaN", b"Infinity",
        b"1e400", b"01", b"1.", b".5", b"+1", b"-", b"", b"{}{}", b"[1,]", b'{"a":}', b"{'a':1}", b"[1 2]", b"nul", b"truefalse",
        b"// x\n1", b'{"__proto__":{"x":1},"constructor":2}', b'"\\x41"', b'"\\u12"', b'"open', b"[" * 5000, b'{"a":' * 3000,
        b"9007199254740991", b"[9007199254740993]", b"-0.0", b"\x0c1", "\u00a01".encode(), b'{"\\u0061":1,"a":2}',
        b'"\xed\xa0\x80"', b"null", b"1" * 5000,
        '{"\ue000":1,"\U0001f600":2,"a":3}'.encode(),
    ]  # fmt: skip

    def python(data: bytes) -> str | None:
        try:
            value = canonical.loads(data)
        except CanonicalError:
            return None
        try:
            return canonical.dumps(value).decode()
        except CanonicalError:
            return "no canonical form"

    found = page.call(
        """texts => texts.map(text => {
          let value;
          try { value = parseJson(unbase64(text, "text"), "it"); } catch (error) { faultText(error); return null; }
          try { return canonical(value); } catch (error) { faultText(error); return "no canonical form"; }
        })""",
        [b64encode(one).decode() for one in texts],
    )
    assert found == [python(one) for one in texts]


def test_canonical_json_is_that_of_the_reference(page: Page) -> None:
    """The six public triples of RFC 8785."""
    for path in sorted((VECTORS / "jcs/input").glob("*.json")):
        found = page.call("text => canonical(parseJson(unbase64(text, 'text'), 'it'))", b64encode(path.read_bytes()).decode())
        assert found.encode() == bytes.fromhex((VECTORS / "jcs/outhex" / f"{path.stem}.txt").read_text().replace("\n", " "))


def test_numbers_have_pythons_text_where_recipes_are_hashed(page: Page) -> None:
    """A recipe's hash writes a number with a fraction as Python's repr, whose exponents begin elsewhere than JavaScript's."""
    generator = random.Random(3)
    values = [struct.unpack("<d", generator.randbytes(8))[0] for _ in range(3000)]
    values += [sign * 10.0**power * n for power in range(-9, 25) for n in (1, 1.5, 3.3333333333333335) for sign in (1, -1)]
    values += [0.0, -0.0, 5e-324, 1.7976931348623157e308]
    values = [value for value in values if value == value and abs(value) != float("inf")]
    found = page.call("texts => texts.map(text => pythonFloat(Number(text)))", [repr(value) for value in values])
    assert found == [repr(value) for value in values]


def test_pae_counts_bytes(page: Page) -> None:
    """The worked example of the DSSE protocol, and a type that is not ASCII."""
    for kind, body in (("http://example.com/HelloWorld", b"hello world"), ("typ/ä😀", b"\x00\xff" * 40)):
        found = page.call("(kind, body) => base64(pae(kind, unbase64(body, 'body')))", kind, b64encode(body).decode())
        assert base64.b64decode(found) == pae(kind, body)


def test_base64_has_one_text_for_one_value(page: Page) -> None:
    """Spare bits, missing or superfluous padding, blanks and mixed alphabets are refused."""
    good = [b64encode(bytes(range(length))).decode() for length in range(40)]
    bad = ["A", "AB", "ABC", "AB=", "AAA=A", "AA==AA==", "A===", "AB==", "AAB=", "AAAA\n", " AAAA", "AA-_", "AA*A", "=", "===="]
    found = attempts(page, "text => base64(unbase64(text, 'it'))", [*good, *bad])
    assert found == [*good, *([None] * len(bad))]
    assert page.evaluate("base64(unbase64('-_-_', 'it', true))") == "+/+/"


def test_merkle_proofs_hold_and_fail_as_the_public_probes_say(page: Page) -> None:
    """transparency-dev's inclusion probes: good ones, and every way in which one is wrong."""
    probes = {name: one for name, one in json.loads((VECTORS / "merkle/probes.json").read_text()).items() if name.startswith("inclusion/")}
    assert len(probes) > 80
    found = page.call(
        """probes => probes.map(([leaf, number, size, proof, root]) => {
          const bytes = text => unbase64(text, "it");
          try { checkInclusion(bytes(leaf), BigInt(number), BigInt(size), proof.map(bytes), bytes(root)); return true; }
          catch (error) { faultText(error); return false; }
        })""",
        [
            [one["leafHash"] or "", str(one["leafIdx"]), str(one["treeSize"]), one["proof"] or [], one["root"] or ""]
            for one in probes.values()
        ],
    )
    # Two probes call an empty text the root of one empty leaf hash; no hash of 32 bytes is that.
    assert found == [not one["wantErr"] and len(base64.b64decode(one["root"] or "")) == 32 for one in probes.values()]
