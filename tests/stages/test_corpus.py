"""Corpora: which files, which documents, which domains, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.corpus import CorpusFile, Document, corpus_files, documents
from stages.errors import InputError
from store import tree
from store.digest import Digest
from store.memory import MemoryCas

HERE = Path(__file__).parents[2] / "examples" / "tiny-moe" / "corpus"
DOMAINS = ("prose", "python", "tables")


def folder(tmp_path: Path, files: dict[str, str]) -> tuple[MemoryCas, Digest]:
    store = MemoryCas()
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return store, tree.import_folder(store, tmp_path)


def test_domain_is_the_first_part_of_the_path(tmp_path: Path) -> None:
    """`prose.txt` and `prose/emma.txt` are of one domain."""
    store, corpus = folder(tmp_path / "c", {"prose.txt": "a", "prose/emma.txt": "b", "code.jsonl": '{"text": "c"}\n'})
    assert [(file.name, file.domain, file.form) for file in corpus_files(store, corpus)] == [
        ("code.jsonl", "code", "jsonl"),
        ("prose.txt", "prose", "text"),
        ("prose/emma.txt", "prose", "text"),
    ]


def test_json_lines_name_their_domains() -> None:
    """A JSON lines blob is a corpus by itself; each line has its own domain."""
    store = MemoryCas()
    corpus = store.put(b'{"domain": "a", "text": "one"}\n\n{"text": "two"}\n')
    (file,) = corpus_files(store, corpus)
    assert list(documents(store.read(corpus), file)) == [Document("a", "one"), Document("text", "two")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ('["text"]', 'line 2: a document is an object with a "text"'),
        ('{"text": 1}', 'line 2: a document is an object with a "text"'),
        ('{"text": "x", "domain": "../x"}', "line 2: domain '../x' must be"),
    ],
)
def test_bad_lines_are_named(line: str, message: str) -> None:
    """A line that is no document is an error with its number."""
    file = CorpusFile("c.jsonl", Digest.of(b""), "jsonl", "text")
    with pytest.raises(InputError, match=message):
        list(documents(b'{"text": "fine"}\n' + line.encode() + b"\n", file))


def test_text_that_is_not_utf8_is_refused() -> None:
    """Bytes that are not UTF-8 are an error with their place, not replaced silently."""
    with pytest.raises(InputError, match="not UTF-8 at byte 2"):
        list(documents(b"ab\xff", CorpusFile("c.txt", Digest.of(b""), "text", "c")))


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    """A picture among the texts is an error, not skipped."""
    store, corpus = folder(tmp_path / "c", {"a.txt": "a", "b.png": "b"})
    with pytest.raises(InputError, match=r"b\.png is neither"):
        corpus_files(store, corpus)


def test_example_corpus_keeps_heldout_and_calibration_apart_from_training() -> None:
    """No run of 200 bytes of a held-out or calibration text occurs in the training text, nor do the two share one.

    Such a run would hold a whole 100-byte block, so blocks are looked for and each one found is widened.
    """
    import json

    training = "".join((HERE / "train" / f"{domain}.txt").read_text(encoding="utf-8") for domain in DOMAINS).encode()
    heldout = [(HERE / f"heldout-{domain}.txt").read_bytes() for domain in DOMAINS]
    samples = [json.loads(line) for line in (HERE / "calibration.jsonl").read_text(encoding="utf-8").splitlines()]
    calibration = [sample["text"].encode() for sample in samples]
    assert longest_shared_run([*heldout, *calibration], training) < 200
    assert longest_shared_run(calibration, b"\0".join(heldout)) < 200


def longest_shared_run(texts: list[bytes], other: bytes) -> int:
    """The longest run of bytes (of at least 199) that a text shares with `other`, or 0."""
    places: dict[bytes, list[tuple[int, int]]] = {}
    for number, text in enumerate(texts):
        for start in range(0, len(text) - 99, 100):
            places.setdefault(text[start : start + 100], []).append((number, start))
    longest = 0
    for at in range(len(other) - 99):
        for number, start in places.get(other[at : at + 100], ()):
            text, left, right = texts[number], 0, 100
            while start + left > 0 and at + left > 0 and text[start + left - 1] == other[at + left - 1]:
                left -= 1
            while start + right < len(text) and at + right < len(other) and text[start + right] == other[at + right]:
                right += 1
            longest = max(longest, right - left)
    return longest


def test_any_prefix_of_the_example_calibration_mixes_the_domains() -> None:
    """Every three lines in a row hold one sample of each domain."""
    import json

    domains = [json.loads(line)["domain"] for line in (HERE / "calibration.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(domains) >= 300
    assert all(sorted(domains[start : start + 3]) == list(DOMAINS) for start in range(0, len(domains) - 2, 3))
