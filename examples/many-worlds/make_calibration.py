"""Make corpus/calibration.jsonl: pieces of the three domains on which states of all models are taken. Run make_corpus.py first.

Pieces are drawn by SHA-256 from what the models were trained on, in equal parts, mixed, and no two overlap. What is held out from a
substrate's training is held out from it alone: the base models have read their own third of it.
"""

from __future__ import annotations

import json

from make_corpus import DOCUMENT_END, HERE, Dice

PIECES = 150
"""Of each domain."""
LENGTH = 480


def main() -> None:
    """Write the file."""
    dice = Dice("calibration")
    pieces = []
    for folder in sorted(path for path in (HERE / "corpus").iterdir() if path.is_dir()):
        texts = [file.read_text().replace(DOCUMENT_END, "") for file in sorted(folder.glob("*.txt"))]
        for number, text in enumerate(texts):
            own = [*range(number, PIECES, len(texts))]
            for slot in dice.shuffled(range(len(text) // (2 * LENGTH)))[: len(own)]:
                slotted = text[2 * LENGTH * slot : 2 * LENGTH * (slot + 1)]
                start = slotted.find("\n", 0, LENGTH) + 1  # of a line, where one begins in time
                pieces.append({"domain": folder.name, "text": slotted[start : start + LENGTH]})
    lines = [json.dumps(piece, sort_keys=True) + "\n" for piece in dice.shuffled(pieces)]
    (HERE / "corpus" / "calibration.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
