"""Corpora: which files, which documents, which domains, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.corpus import CorpusFile, Document, corpus_files, documents
from stages.errors import InputError
from store import tree
from store.digest import Digest
from store.memory import MemoryCas


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
