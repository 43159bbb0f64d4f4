"""What a training corpus is: documents, each of a domain, in text files or JSON lines.

A corpus is one of
- a JSON lines blob: one document a line, `{"domain": "prose", "text": "..."}`;
- a tree of such files (`*.jsonl`) and of text files (`*.txt`). The domain of a text file is the first part of its path without the suffix:
  `prose.txt` and `prose/emma.txt` are both of the domain `prose`, and so are JSON lines without a `domain` in `prose.jsonl`.
  A line of a text file that holds a form feed alone ends a document.

>>> [document.text for document in documents(b"one\\n\\f\\ntwo\\n", CorpusFile("prose.txt", Digest.of(b""), "text", "prose"))]
['one\\n', 'two\\n']
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stages.errors import InputError
from store import tree
from store.cas import Cas
from store.digest import Digest

Form = Literal["text", "jsonl"]

_DOCUMENT_END = re.compile(r"^\f\n", re.MULTILINE)
_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file of a corpus.

    Attributes:
        domain: of its documents that name none themselves.
    """

    name: str
    digest: Digest
    form: Form
    domain: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text and its domain."""

    domain: str
    text: str


def corpus_files(store: Cas, corpus: Digest) -> tuple[CorpusFile, ...]:
    """The files of a corpus in the order of their names.

    Raises:
        InputError: none, or one that is neither `*.txt` nor `*.jsonl`.
    """
    if not tree.is_tree(store, corpus):
        return (CorpusFile("corpus.jsonl", corpus, "jsonl", "text"),)
    files = []
    for entry in tree.load(store, corpus).entries:
        stem, _, suffix = entry.path.rpartition(".")
        if suffix not in ("txt", "jsonl"):
            raise InputError(f"corpus {corpus.short}: {entry.path} is neither a .txt nor a .jsonl file; keep other files out of the folder")
        form: Form = "text" if suffix == "txt" else "jsonl"
        files.append(CorpusFile(entry.path, entry.digest, form, _domain(stem.split("/")[0], entry.path)))
    if not files:
        raise InputError(f"corpus {corpus.short} holds no file; it needs one text file per domain, or JSON lines")
    return tuple(files)


def documents(data: bytes, file: CorpusFile) -> Iterator[Document]:
    """The documents of a file; empty ones are skipped.

    Raises:
        InputError: not UTF-8, or a line that is no JSON object with a `text`.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file.name}: not UTF-8 at byte {error.start}: {data[error.start : error.start + 4]!r}") from error
    if file.form == "text":
        yield from (Document(file.domain, part) for part in _DOCUMENT_END.split(text) if part.strip())
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{file.name} line {number}: not JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InputError(f'{file.name} line {number}: a document is an object with a "text", not {line[:60]!r}')
        if row["text"].strip():
            yield Document(_domain(row.get("domain", file.domain), f"{file.name} line {number}"), row["text"])


def _domain(name: object, where: str) -> str:
    if not isinstance(name, str) or not _DOMAIN.match(name):
        raise InputError(f"{where}: domain {name!r} must be letters, digits, '_' and '-'")
    return name
