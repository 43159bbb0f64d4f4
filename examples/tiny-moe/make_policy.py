"""Write the policy that ships with the program for this example: `python make_policy.py NAME KEY > ../../ledger/trusted/tiny-moe.yaml`.

KEY is the public key that signed tiny-moe.attestations.jsonl. Each statement there must be signed by it, and the policy names every object
that they are about by its digest, so the key counts for these very objects and for nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ledger import dsse
from ledger.bundle import parse_lines
from ledger.keys import PublicKey
from ledger.statement import Statement

ATTESTATIONS = Path(__file__).with_name("tiny-moe.attestations.jsonl")


def main(name: str, key: str) -> None:
    """Print the policy."""
    digests: set[str] = set()
    for line in parse_lines(ATTESTATIONS.read_bytes()):
        envelope = dsse.Envelope.parse(line)
        dsse.verify(envelope, [PublicKey.parse(key)])
        digests |= {str(digest) for digest in Statement.parse(envelope.payload).subjects.values()}
    print(
        "# The key that signed examples/tiny-moe, trusted for what was made there and for nothing else. "
        "Written by make_policy.py of that folder."
    )
    print(f'version: 1\nkeys:\n  {name}: "{key}"\nrules:\n  - keys: [{name}]\n    artifacts:')
    print("\n".join(f"      - {digest}" for digest in sorted(digests)))


if __name__ == "__main__":
    main(*sys.argv[1:3])
