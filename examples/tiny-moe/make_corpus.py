"""Make the corpus of this example from five Debian packages: `python make_corpus.py FOLDER_WITH_DEBS`.

Get the packages with the `apt-get download` line of corpus/README.md. Their SHA-256 are pinned below, nothing else is read, and no
random numbers are used, so the same files come out anywhere.

What is done with the text: a *document* is a Python module, a chapter of a novel, or 40 consecutive lines of a table. The documents of
a domain are ordered by the SHA-256 of their text and dealt out in that order: held-out first, then calibration, then training. A
held-out or calibration document that shares a run of 200 bytes with the training text (a licence header, say) is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGES = {
    "libpython3.11-minimal": "69f41cfa3f4ba17284e538f843069d7529c53c207d2ae17a5b02785944870e33",
    "libpython3.11-stdlib": "10f13e000ee757f5f2d2d3569f9e30546214a0c850acd78695feae373bfa3e53",
    "r-cran-janeaustenr": "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    "tzdata": "3254eb870c8a949518214805aee5e4276af7699988ea8b9a3a583cd0f1eab31c",
    "unicode-data": "5efef23bbb1c6a133ecbdd63a2cfa07159ccacf5466a49e2426101c5ecd691fc",
}

TRAIN_BYTES = {"prose": 2_000_000, "python": 2_000_000, "tables": 1_100_000}
HELDOUT_BYTES = 64_000  # of each domain; about 20,000 tokens
HELDOUT_PIECE_BYTES = 1_500  # heldout.txt changes the domain this often
HELDOUT_PIECES = 17  # of each domain in heldout.txt; about 25,000 tokens in all
CALIBRATION_SAMPLES = 100  # of each domain in calibration.jsonl; about 40,000 tokens in all
MORE_SAMPLES = 120  # of each domain in calibration-more.jsonl, which begins with calibration.jsonl
CALIBRATION_SAMPLE_BYTES = 430
DOCUMENT_BYTES = 8_000  # at most this much of one held-out or calibration document, so that there are several
OVERLAP_BYTES = 200
DOCUMENT_END = "\f\n"  # a line that holds a form feed alone: where one document ends and the next starts

TABLES = ("UnicodeData.txt", "Scripts.txt", "LineBreak.txt", "EastAsianWidth.txt", "PropList.txt", "tzdata.zi", "zone.tab")
TABLE_LINES = 40
NOT_MODULES = re.compile(r"/(encodings|idlelib|lib2to3|pydoc_data|test|tests)/|_sysconfigdata")


def main() -> None:
    """Read the packages, write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("debs", type=Path, help="folder that holds the downloaded packages")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "corpus")
    arguments = parser.parse_args()
    files = {name: files_of(package(arguments.debs, name)) for name in PACKAGES}
    documents = {
        "prose": list(chapters(files["r-cran-janeaustenr"])),
        "python": list(modules(files["libpython3.11-minimal"] | files["libpython3.11-stdlib"])),
        "tables": list(blocks(files["unicode-data"] | files["tzdata"])),
    }
    heldout: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for folder in ("train", "licenses"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    for domain, texts in documents.items():
        held, calibration, train = deal(domain, texts)
        heldout[domain] = [piece for text in held for piece in pieces(text, HELDOUT_PIECE_BYTES)]
        samples[domain] = [piece for text in calibration for piece in pieces(text, CALIBRATION_SAMPLE_BYTES)]
        write(arguments.out / "train" / f"{domain}.txt", DOCUMENT_END.join(train))
        write(arguments.out / f"heldout-{domain}.txt", "\n".join(held))
    domains = sorted(documents)
    mixed = [heldout[domain][number] for number in range(HELDOUT_PIECES) for domain in domains]
    write(arguments.out / "heldout.txt", "\n".join(mixed))
    for name, count in (("calibration.jsonl", CALIBRATION_SAMPLES), ("calibration-more.jsonl", MORE_SAMPLES)):
        rows = [{"domain": domain, "text": samples[domain][number]} for number in range(count) for domain in domains]
        write(arguments.out / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for name in PACKAGES:
        (licence,) = [data for path, data in files[name].items() if path.endswith(f"/doc/{name}/copyright")] or [b""]
        if licence:  # libpython3.11-stdlib links to that of libpython3.11-minimal
            write(arguments.out / "licenses" / f"{name}.txt", licence.decode("utf-8"))


def write(path: Path, text: str) -> None:
    """Write a file and print its line of corpus/README.md."""
    data = text.encode()
    path.write_bytes(data)
    print(f"| {path.parent.name}/{path.name} | {len(data):,} | `{hashlib.sha256(data).hexdigest()}` |")


# --- packages ------------------------------------------------------------------------------------------------------------------


def package(folder: Path, name: str) -> bytes:
    """The bytes of a package, checked against its pinned digest."""
    found = [path for path in sorted(folder.glob(f"{name}_*.deb")) if hashlib.sha256(path.read_bytes()).hexdigest() == PACKAGES[name]]
    if not found:
        raise SystemExit(f"{folder} has no {name}_*.deb with sha256 {PACKAGES[name]}; see corpus/README.md for where it comes from")
    return found[0].read_bytes()


def files_of(deb: bytes) -> dict[str, bytes]:
    """The regular files of a Debian package (an `ar` archive that holds `data.tar.*`), by path."""
    place = 8
    while place < len(deb):
        name, size = deb[place : place + 16].decode().strip(), int(deb[place + 48 : place + 58])
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(deb[place + 60 : place + 60 + size])) as archive:
                members = [member for member in archive.getmembers() if member.isfile()]
                return {member.name: reader.read() for member in members if (reader := archive.extractfile(member))}
        place += 60 + size + size % 2
    raise SystemExit("a package holds no data.tar")


# --- documents -----------------------------------------------------------------------------------------------------------------


def modules(files: dict[str, bytes]) -> Iterator[str]:
    """Modules of the Python standard library between 1 and 60 kB; form feeds removed."""
    for path, data in files.items():
        if path.endswith(".py") and not NOT_MODULES.search(path) and 1_000 <= len(data) <= 60_000:
            yield data.decode("utf-8").replace("\f", "")


def chapters(files: dict[str, bytes]) -> Iterator[str]:
    """Chapters of Jane Austen's six novels; a paragraph is one line, paragraphs are parted by an empty line."""
    (data,) = [data for path, data in files.items() if path.endswith("/data/Rdata.rdb")]
    while data:  # R's lazy-load database: big-endian length, zlib stream, and again
        stream = zlib.decompressobj()
        lines = r_strings(stream.decompress(data[4:]))
        data = stream.unused_data
        text = re.sub(r"[ \t]*\n(?!\n)(?<!\n\n)", " ", "\n".join(lines))
        for chapter in re.split(r"(?i)(?=\n\n(?:volume \w+ *\n+)?chapter [0-9ivxl]+\b)", re.sub(r"\n{2,}", "\n\n", text)):
            if len(chapter) >= 1_000:
                yield "\n\n".join(paragraph.strip() for paragraph in chapter.strip().split("\n\n")) + "\n"


def r_strings(data: bytes) -> list[str]:
    """A character vector as R serialises it (XDR, version 3): a header, then per string a flag word, a length and the bytes."""
    place = 2 + 12
    place += 4 + int.from_bytes(data[place : place + 4], "big")  # the name of the native encoding
    kind, count = int.from_bytes(data[place : place + 4], "big") & 255, int.from_bytes(data[place + 4 : place + 8], "big")
    if data[:2] != b"X\n" or kind != 16:
        raise SystemExit("not a serialised character vector")
    place += 8
    strings = []
    for _ in range(count):
        length = int.from_bytes(data[place + 4 : place + 8], "big")
        strings.append(data[place + 8 : place + 8 + length].decode("utf-8"))
        place += 8 + length
    return strings


def blocks(files: dict[str, bytes]) -> Iterator[str]:
    """Tables, 40 lines at a time; comments and empty lines removed."""
    for name in TABLES:
        (data,) = [data for path, data in files.items() if path.endswith(f"/{name}") and "/right/" not in path]
        lines = [line for line in data.decode("utf-8").splitlines() if line and not line.startswith("#") and line.isascii()]
        for start in range(0, len(lines), TABLE_LINES):
            yield "\n".join(lines[start : start + TABLE_LINES]) + "\n"


# --- dealing out ---------------------------------------------------------------------------------------------------------------


def deal(domain: str, texts: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Held-out, calibration and training documents of a domain, disjoint and without shared runs of 200 bytes."""
    texts = sorted(set(texts), key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    aside, calibration_bytes = [], MORE_SAMPLES * CALIBRATION_SAMPLE_BYTES * 2
    while sum(map(len, aside)) < 2 * HELDOUT_BYTES + calibration_bytes:
        aside.append(head(texts.pop(0)))
    train, size = [], 0
    while texts and size < TRAIN_BYTES[domain]:
        train.append(texts.pop(0))
        size += len(train[-1].encode())
    aside = apart(aside, "".join(train))
    held, size = [], 0
    while size < HELDOUT_BYTES:
        held.append(aside.pop(0))
        size += len(held[-1].encode())
    return held, apart(aside, "".join(held)), train


def head(text: str) -> str:
    """The start of a document, cut at the end of a line."""
    return text if len(text) <= DOCUMENT_BYTES else text[: text.rfind("\n", 0, DOCUMENT_BYTES) + 1]


def apart(texts: Sequence[str], other: str) -> list[str]:
    """The texts that share no run of 200 bytes with `other`.

    Such a run holds at least one whole 100-byte block of the text, counted from its start, so only those are looked for.
    """
    step, data = OVERLAP_BYTES // 2, other.encode()
    wanted: dict[bytes, set[int]] = {}
    for number, text in enumerate(texts):
        encoded = text.encode()
        for place in range(0, len(encoded) - step + 1, step):
            wanted.setdefault(encoded[place : place + step], set()).add(number)
    shared: set[int] = set()
    for place in range(len(data) - step + 1):
        shared |= wanted.get(data[place : place + step], set())
    return [text for number, text in enumerate(texts) if number not in shared]


def pieces(text: str, size: int) -> Iterator[str]:
    """Cut a text near `size` characters, at the end of a line, or of a word where a line is longer; a short rest is dropped."""
    while len(text) > size:
        cut = text.rfind("\n", size // 2, size) + 1 or text.rfind(" ", 0, size) + 1 or size
        yield text[:cut]
        text = text[cut:]


if __name__ == "__main__":
    main()
