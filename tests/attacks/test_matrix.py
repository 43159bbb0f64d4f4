"""The attack matrix has 32 rows, and each is a test that is named by its number: the attack fails closed, and without it all is well.

The rows are in `test_matrix_signed.py` (what keys, envelopes and policies let through), `test_matrix_log.py` (what a log lets through) and
`test_matrix_bytes.py` (what files, the store and the Hub let through). More of the same attacks, from many sides, are in the other files
of this folder and with the parts that refuse them; docs/security.md lists both.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROWS = {
    1: "arbitrary_artifact", 2: "rollback", 3: "freeze", 4: "fast_forward", 5: "mix_and_match", 6: "endless_data", 7: "fork",
    8: "log_tamper", 9: "policy_weakening", 10: "key_compromise_below_threshold", 11: "duplicate_signatures", 12: "key_substitution",
    13: "back_dated_commit", 14: "cross_protocol", 15: "payload_type_confusion", 16: "ambiguous_json", 17: "signature_malleability",
    18: "prefix_collision", 19: "second_preimage", 20: "cache_poisoning", 21: "toctou", 22: "symlink_escape", 23: "path_traversal",
    24: "ignored_path", 25: "partial_download", 26: "store_corruption", 27: "advertised_hash", 28: "namespace_reuse", 29: "replace_refs",
    30: "builder_impersonation", 31: "crash", 32: "malicious_quantizer",
}  # fmt: skip
"""As docs/security.md and the tests name them."""


def test_every_row_is_a_test_of_its_own_and_documented() -> None:
    """`test_attack_<number>_<name>` for each row, once, with a sentence; and docs/security.md names it in the row of that number."""
    source = "".join(path.read_text() for path in sorted(HERE.glob("test_matrix_*.py")))
    found = re.findall(r'^def (test_attack_\d\d_\w+)\([^)]*\) -> None:\n    """(.+)', source, re.MULTILINE)
    assert [name for name, _ in sorted(found)] == [f"test_attack_{number:02}_{name}" for number, name in ROWS.items()]
    assert all(sentence.strip() for _, sentence in found)
    page = (HERE.parents[1] / "docs/security.md").read_text()
    for number, name in ROWS.items():
        assert re.search(rf"^\| {number} \|.*`{name}`", page, re.MULTILINE), f"row {number}, {name}, is not in docs/security.md"
