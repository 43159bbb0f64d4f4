"""Make corpus/calibration.jsonl and corpus/bridges.jsonl: pieces of the three domains to train many-worlds on. make_corpus.py first.

The first is for substrates: states of all models are taken on it. The second has more and shorter pieces, for bridges. Pieces are drawn by
SHA-256 from what the models were trained on, in equal parts, mixed, and no two of a file overlap. What is held out from a training is held
out from it alone: the base models have read their own third of it.
"""

from __future__ import annotations

import json

from make_corpus import DOCUMENT_END, HERE, Dice

FILES = {"calibration": (150, 480), "bridges": (500, 320)}
"""Name -> (pieces of each domain, bytes of a piece)."""


def write(name: str, count: int, length: int) -> None:
    """Write one file."""
    dice = Dice(name)
    pieces = []
    for folder in sorted(path for path in (HERE / "corpus").iterdir() if path.is_dir()):
        texts = [file.read_text().replace(DOCUMENT_END, "") for file in sorted(folder.glob("*.txt"))]
        for number, text in enumerate(texts):
            own = [*range(number, count, len(texts))]
            for slot in dice.shuffled(range(len(text) // (2 * length)))[: len(own)]:
                slotted = text[2 * length * slot : 2 * length * (slot + 1)]
                start = slotted.find("\n", 0, length) + 1  # of a line, where one begins in time
                pieces.append({"domain": folder.name, "text": slotted[start : start + length]})
    lines = [json.dumps(piece, sort_keys=True) + "\n" for piece in dice.shuffled(pieces)]
    (HERE / "corpus" / f"{name}.jsonl").write_text("".join(lines))


def main() -> None:
    """Write both."""
    for name, (count, length) in FILES.items():
        write(name, count, length)


if __name__ == "__main__":
    main()
