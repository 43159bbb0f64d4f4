"""Alloys, names and files that were made to harm whoever looks at them: shown as what they are, or refused."""

from __future__ import annotations

import json
import random
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.page.chromium import Page
from tests.page.look import check, rows, text, verdict
from tests.page.publication import POLICY, publish

MARKUP = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg onload='window.pwned = 1'><a xlink:href='javascript:window.pwned = 1'>",
    "</pre></details><iframe srcdoc='<script>parent.pwned = 1</script>'>",
    "javascript:window.pwned = 1",
    "{{constructor.constructor('window.pwned = 1')()}}",
    "<style>* { display: none }</style><base href='https://evil.example/'>",
    "<form action='https://evil.example/'><input name=verdict id=report>",
]


def everywhere(words: str) -> dict[str, Any]:
    """An alloy that says it in every place that is shown."""
    return {
        "name": words, "version": words, "description": words, "license": words, "author": words, words: words,
        "source": {"baseModel": words, "specialists": [{"baseModel": words}], "url": words},
        "results": {
            "artifacts": [{"stage": words, "output": words, "digest": "sha256:" + "a" * 64}],
            "benchmarks": [
                {"name": words, "metric": words, "score": words, "baseScore": words, "subset": words},
                {"benchmark": words, "digest": "sha256:" + "a" * 64, "subject": words, "metrics": {words: words}},
            ],
            "comparison": {"table": [[words, words], [words]]}, "actions": [words],
            "integrity": {
                "modelHash": words, "signature": {"publicKey": words},
                "fileHashes": [{"filename": words, "sha256": "b" * 64, "size": 3}, {"filename": words, "sha256": words}],
            },
        },
        "recipeHash": words, "receipt": {"publications": [{"url": words}], "verifyUrl": words},
    }  # fmt: skip


def harmless(page: Page) -> None:
    """Nothing ran, nothing was loaded, nothing but the page's own elements is there."""
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("({}).polluted") is None
    foreign = "#report :is(script, img, iframe, style, base, form, object, embed, link, meta, input)"
    assert page.call("selector => document.querySelectorAll(selector).length", foreign) == 0
    assert page.evaluate("[...document.querySelectorAll('#report a')].every(one => one.href.startsWith('https://huggingface.co/'))")
    attributes = "[...document.querySelectorAll('#report *')].flatMap(one => [...one.attributes]).map(one => one.name)"
    assert not [name for name in page.evaluate(attributes) if name.startswith(("on", "src")) or name == "style"]
    assert not [url for url in page.requests if "evil" in url]


def open_all(page: Page) -> None:
    """Unfold everything, twice: what is unfolded holds more to unfold."""
    for _ in range(3):
        page.evaluate("document.querySelectorAll('#report details').forEach(one => { one.open = true; })")
        page.evaluate("new Promise(done => setTimeout(done, 30))")


@pytest.mark.parametrize("words", MARKUP)
def test_markup_is_text(page: Page, tmp_path: Path, words: str) -> None:
    """In every field, as a key, as a file's name, in attestations: it is read by people, not by the browser."""
    alloy = tmp_path / "x.alloy.json"
    alloy.write_text(json.dumps(everywhere(words)))
    attestations = tmp_path / "x.attestations.jsonl"
    envelope = {
        "payload": b64encode(json.dumps({"_type": words}).encode()).decode(),
        "payloadType": words,
        "signatures": [{"sig": "AAAA", "keyid": words}],
    }
    attestations.write_text(json.dumps(envelope) + "\n" + words + "\n")
    named = tmp_path / words.replace("/", "_")[:100]
    named.write_text(words)
    assert check(page, [alloy, attestations, named], policy=POLICY) == "bad"
    open_all(page)
    assert words.split("'")[0][:60] in text(page)
    harmless(page)


def test_signed_markup_is_text_too(page: Page, tmp_path: Path) -> None:
    """Somebody whom one trusts may have signed it."""
    one = publish(tmp_path, change=lambda value: value.update(description=MARKUP[1], author=MARKUP[0]))
    assert check(page, one.three, policy=POLICY) == "good"
    open_all(page)
    assert MARKUP[1] in text(page, ".facts")
    harmless(page)


def test_keys_that_name_a_prototype_are_keys(page: Page, tmp_path: Path) -> None:
    """`__proto__`, `constructor`, `hasOwnProperty`: in the alloy, in its results, among metrics, in a policy."""
    inner = '{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}, "hasOwnProperty": 1, "toString": 1, "then": 1}'
    alloy = tmp_path / "x.alloy.json"
    alloy.write_text(
        f'{{"name": "x", "__proto__": {inner}, "constructor": {inner}, "source": {inner}, "results": {{"__proto__": {inner}, '
        f'"integrity": {inner}, "benchmarks": [{{"name": "__proto__", "metrics": {inner}}}, {inner}]}}}}'
    )
    assert check(page, [alloy], policy=POLICY) == "grey"
    open_all(page)
    assert "__proto__" in rows(page, "self-reported")
    harmless(page)
    assert check(page, [alloy], policy=f'{{"version": 1, "keys": {{"__proto__": {inner}}}}}') == "grey"
    harmless(page)


HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u115f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3000\u3164\ue000\ufeff\U000e0000-\U000e0fff]|\u0300{4}"
)

DECEPTIVE = {
    "right to left": ("tiny\u202egnp.gguf", "⟨U+202E⟩"),
    "isolates": ("\u2066a\u2069\u2067b", "⟨U+2066⟩"),
    "invisible": ("a\u200bb\u00adc\ufeffd\u2060", "⟨U+200B⟩"),
    "tags": ("x\U000e0041", "⟨U+E0041⟩"),
    "NUL and escapes": ("a\x00b\x1b[2J\x9b31m\r\n", "⟨U+0000⟩"),
    "lines": ("a\u2028b\u2029c", "⟨U+2028⟩"),
    "wide blanks": ("verified\u3000\u2003by alice", "⟨U+3000⟩"),
    "fillers": ("a\u3164b\u115f", "⟨U+3164⟩"),
    "piled marks": ("Z" + "\u0300" * 200, "⟨200 marks⟩"),
    "unassigned and private": ("\ue000\uffff\U0010ffff", "⟨U+E000⟩"),
}


@pytest.mark.parametrize(("words", "shown"), DECEPTIVE.values(), ids=DECEPTIVE)
def test_what_cannot_be_seen_is_made_visible(page: Page, tmp_path: Path, words: str, shown: str) -> None:
    """Nowhere on the page is a sign that hides, turns or breaks what is around it."""
    alloy = tmp_path / "x.alloy.json"
    alloy.write_text(json.dumps(everywhere(words)))
    check(page, [alloy], policy=POLICY)
    open_all(page)
    whole = text(page)
    assert shown in whole
    assert HARMFUL.search(whole) is None
    harmless(page)


def test_a_sentence_in_a_name_is_a_quotation(page: Page, tmp_path: Path) -> None:
    """A name that goes on as this page would write stands in quotation marks, in an element that no direction leaves."""
    name = "model.gguf, these 3 bytes, are proven by alice. Verified"
    (tmp_path / name).write_bytes(b"abc")
    check(page, [tmp_path / name], policy=POLICY)
    assert f"“{name}”, 3 bytes" in rows(page, "unverified")
    assert page.evaluate("[...document.querySelectorAll('#findings bdi')].some(one => one.textContent.includes('proven by alice'))")


def test_endless_values_are_cut(page: Page, tmp_path: Path) -> None:
    """Megabytes in one field, thousands of files and results: the page stays a page."""
    value = everywhere("x" * 3_000_000)
    value["results"]["integrity"]["fileHashes"] = [{"filename": f"f{n}.gguf", "sha256": f"{n:064x}"} for n in range(20_000)]
    value["results"]["benchmarks"] = [{"name": f"b{n}", "score": n} for n in range(5000)]
    alloy = tmp_path / "x.alloy.json"
    alloy.write_text(json.dumps(value))
    check(page, [alloy], policy=POLICY)
    open_all(page)
    assert "… (3000000 characters)" in text(page)
    assert page.evaluate("document.querySelectorAll('*').length") < 12_000
    assert len(text(page)) < 1_500_000


REFUSED: dict[str, Callable[[], bytes]] = {
    "nesting without end": lambda: b"[" * 2_000_000,
    "objects without end": lambda: b'{"a":' * 500_000,
    "a key twice": lambda: b'{"name": "a", "name": "b"}',
    "a key twice, one escaped": lambda: b'{"name": "a", "n\\u0061me": "b"}',
    "a byte order mark": lambda: b"\xef\xbb\xbf{}",
    "half a character": lambda: b'{"name": "\\ud800"}',
    "no UTF-8": lambda: b'{"name": "\xff"}',
    "a list": lambda: b"[1]",
    "nothing": lambda: b"",
    "HTML": lambda: b"<!doctype html><script>window.pwned = 1</script>",
    "NaN": lambda: b'{"a": NaN}',
    "a number of a million digits": lambda: b'{"a": ' + b"1" * 1_000_000 + b"}",
    "a receipt that is none": lambda: b'{"receipt": {"ledger": {"entries": [{"number": -1}]}}}',
    "a checkpoint that is none": lambda: b'{"receipt": {"ledger": {"entries": [], "checkpoint": "x"}}}',
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_one_way_is_refused(page: Page, tmp_path: Path, make: Callable[[], bytes]) -> None:
    """With a sentence, and soon."""
    alloy = tmp_path / "x.alloy.json"
    alloy.write_bytes(make())
    assert check(page, [alloy], policy=POLICY) == "bad"
    assert "The alloy cannot be read" in rows(page, "failed")
    open_all(page)
    harmless(page)


def test_a_hundred_megabytes_are_not_read(page: Page, tmp_path: Path) -> None:
    """An alloy is small; whatever is larger than 64 MiB is refused by its size."""
    alloy = tmp_path / "x.alloy.json"
    with alloy.open("wb") as file:
        file.truncate(100 * 10**6)
    assert check(page, [alloy], policy=POLICY) == "bad"
    assert "at most 67108864 are read" in rows(page, "failed")


def test_no_value_of_another_kind_breaks_the_page(page: Page, tmp_path: Path) -> None:
    """Any value of a good alloy replaced by one of every other kind: found wrong or shown, never an error of the page, never green."""
    one = publish(tmp_path)
    found = page.call(
        """async (alloy, attestations, policy, seed) => {
          const values = [null, true, 7, -1.5, "x", "", [], {}, [[]], { a: {} }, "sha256:" + "f".repeat(64), 2 ** 60];
          const faults = [], paths = [], text = new TextDecoder().decode(unbase64(alloy, "a"));
          const walk = (value, path) => {
            paths.push(path);
            if (value && typeof value === "object") for (const key of Object.keys(value)) walk(value[key], [...path, key]);
          };
          walk(JSON.parse(text), []);
          let next = seed, tones = new Set();
          const random = n => { next = (next * 1103515245 + 12345) % 2147483648; return next % n; };
          for (let count = 0; count < 260; count++) {
            const changed = { top: JSON.parse(text) }, path = ["top", ...paths[random(paths.length)]], key = path.pop();
            let at = changed;
            for (const step of path) at = at[step];
            at[key] = values[random(values.length)];
            const given = {
              locator: null, listing: null, files: [], others: [], proofs: [], notes: [],
              alloy: { name: "x.alloy.json", bytes: utf8(JSON.stringify(changed.top)) },
              attestations: { name: "x.attestations.jsonl", bytes: unbase64(attestations, "b") },
            };
            try { const report = await examine(given, Policy.parse(policy)); tones.add(report.verdict.tone); render(report); }
            catch (error) { faults.push(`${path.concat(key).join(".")}: ${error.stack}`); }
          }
          return [faults, [...tones]];
        }""",
        b64encode(one.alloy.read_bytes()).decode(),
        b64encode(one.attestations.read_bytes()).decode(),
        POLICY,
        11,
    )
    assert found[0] == []
    assert set(found[1]) <= {"bad", "grey"}


def test_no_damaged_statement_breaks_the_page(page: Page, tmp_path: Path) -> None:
    """Envelopes whose statements are random JSON, validly signed by somebody trusted: read or refused."""
    from ledger.dsse import sign
    from ledger.testing import UnsafeSigner

    generator = random.Random(4)
    one = publish(tmp_path, released=False)
    good = json.loads(b64decode(json.loads(one.attestations.read_bytes().splitlines()[2])["payload"]))
    kinds = [
        "https://slsa.dev/provenance/v1",
        "urn:alloy-ledger:evaluation:v1",
        "urn:alloy-ledger:key-event:v1",
        "urn:alloy-ledger:publication:v1",
    ]
    lines = []
    for _ in range(150):
        value = json.loads(json.dumps(good))
        value["predicateType"] = generator.choice(kinds)
        holder: Any = value
        while isinstance(holder, dict) and holder:
            key = generator.choice(sorted(holder))
            if generator.random() < 0.4 or not isinstance(holder[key], dict):
                holder[key] = generator.choice([None, 1, "x", [], {}, {"sha256": {}}, ["x"], "sha256:" + "0" * 64])
                break
            holder = holder[key]
        lines.append(sign(json.dumps(value).encode(), UnsafeSigner("alice")))
    one.attestations.write_bytes(b"\n".join(lines) + b"\n")
    assert check(page, [one.alloy, one.attestations], policy=POLICY) == "bad"
    open_all(page)
    assert "this page failed" not in rows(page).lower()


def test_a_folder_is_dropped_whole(page: Page, tmp_path: Path) -> None:
    """Hidden folders are left out, and a folder of thousands of files does not end the page."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "model.safetensors").write_bytes(b"hidden")
    for n in range(300):
        (tmp_path / f"f{n}.txt").write_bytes(b"x")
    page.drop([tmp_path])
    assert verdict(page) == "grey"
    assert "300 files of which nothing here says anything" in rows(page, "unverified")


def test_what_results_were_made_from_is_no_result(page: Page, tmp_path: Path) -> None:
    """An alloy without a release that lists attested files of another model beside genuine results, none of which is there: grey."""

    def change(alloy: dict[str, Any]) -> None:
        results = alloy["results"]
        results["artifacts"] = [one for one in results["artifacts"] if one["output"] != "model"]
        listed = [one for one in results["integrity"]["fileHashes"] if one["filename"].startswith("model/")]
        results["integrity"] = {"fileHashes": listed}

    one = publish(tmp_path, released=False, change=change)
    files = [one.alloy, one.attestations, *sorted((one.folder / "model").iterdir())]
    assert check(page, files, policy=POLICY) == "grey"
    assert "3 of 3 results were not found here" in rows(page, "unverified")
    assert "None of the results that the alloy names is here" in text(page)
    assert check(page, [*files, one.folder / "tiny-Q4_K_M.gguf"], policy=POLICY) == "good"
    assert "2 of 3 results were not found here" in rows(page, "unverified")
