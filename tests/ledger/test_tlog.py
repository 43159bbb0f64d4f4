"""The Merkle tree against a plain reading of RFC 6962, and its proofs against every kind of lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import tlog
from ledger.errors import ProofError
from ledger.tlog import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(b"entry %d" % number) for number in range(40)]


# --- RFC 6962 section 2.1, word for word and slowly; shares nothing with the code under test ---------------------------------------


def plain_root(data: Sequence[bytes]) -> bytes:
    if not data:
        return hashlib.sha256(b"").digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    k = max(2**power for power in range(64) if 2**power < len(data))
    return hashlib.sha256(b"\x01" + plain_root(data[:k]) + plain_root(data[k:])).digest()


def plain_path(m: int, data: Sequence[bytes]) -> list[bytes]:
    if len(data) == 1:
        return []
    k = max(2**power for power in range(64) if 2**power < len(data))
    if m < k:
        return [*plain_path(m, data[:k]), plain_root(data[k:])]
    return [*plain_path(m - k, data[k:]), plain_root(data[:k])]


def plain_subproof(m: int, data: Sequence[bytes], whole: bool) -> list[bytes]:
    if m == len(data):
        return [] if whole else [plain_root(data)]
    k = max(2**power for power in range(64) if 2**power < len(data))
    if m <= k:
        return [*plain_subproof(m, data[:k], whole), plain_root(data[k:])]
    return [*plain_subproof(m - k, data[k:], False), plain_root(data[:k])]


datas = st.lists(st.binary(max_size=3), max_size=70)


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    """RFC 6962: MTH({}) = SHA-256()."""
    assert root([]) == Frontier().root == EMPTY_ROOT
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_known_roots() -> None:
    """The roots of the eight standard test entries of the certificate-transparency implementations."""
    entries = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in entries]
    assert root(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert root(leaves[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(datas)
def test_the_root_is_the_rfcs(data: list[bytes]) -> None:
    """Any tree, by the recursive definition."""
    assert root([leaf_hash(item) for item in data]) == plain_root(data)


def test_a_node_cannot_pass_for_a_leaf() -> None:
    """The prefixes keep a tree over two hashes apart from a leaf that holds them."""
    assert node_hash(LEAVES[0], LEAVES[1]) != leaf_hash(LEAVES[0] + LEAVES[1])


@given(datas)
def test_a_frontier_grows_like_the_tree_and_survives_its_bytes(data: list[bytes]) -> None:
    """Append by append the same root, the size, one hash for each 1 bit, and the same after serialising; the old value stays."""
    frontier = Frontier()
    for number, item in enumerate(data):
        grown = frontier.append(leaf_hash(item))
        assert frontier.root == plain_root(data[:number])
        frontier = Frontier.parse(grown.to_bytes())
        assert frontier == grown
        assert frontier.size == number + 1
        assert len(frontier.hashes) == (number + 1).bit_count()
    assert frontier.root == plain_root(data)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 7, b"\0" * 8 + b"x" * 32, b"\0" * 7 + b"\x03" + b"x" * 32, b"\0" * 8 + b"x", b"\xff" * 8 + b"x" * 32 * 64]
)
def test_frontier_bytes_that_do_not_fit_are_refused(data: bytes) -> None:
    """A length that is not the size's, or a size that no tree has."""
    with pytest.raises(ProofError):
        Frontier.parse(data)


def test_what_is_not_a_hash_is_refused() -> None:
    """Data in place of its leaf hash would be a silent mistake."""
    with pytest.raises(ProofError, match="a leaf hash has 32 bytes; got 5"):
        Frontier().append(b"entry")
    with pytest.raises(ProofError):
        Frontier(1, (b"short",))


@settings(max_examples=60)
@given(datas.filter(bool), st.data())
def test_inclusion_proofs_are_the_rfcs_and_verify(data: list[bytes], choice: st.DataObject) -> None:
    """PATH(m, D[n]) for any entry of any tree."""
    index = choice.draw(st.integers(0, len(data) - 1))
    leaves = [leaf_hash(item) for item in data]
    proof = inclusion_proof(leaves, index)
    assert list(proof) == plain_path(index, data)
    verify_inclusion(leaves[index], index, len(data), proof, plain_root(data))


@settings(max_examples=60)
@given(datas, st.data())
def test_consistency_proofs_are_the_rfcs_and_verify(data: list[bytes], choice: st.DataObject) -> None:
    """PROOF(m, D[n]) for any two sizes; m = 0 needs none."""
    old = choice.draw(st.integers(0, len(data)))
    proof = consistency_proof([leaf_hash(item) for item in data], old)
    assert list(proof) == (plain_subproof(old, data, True) if old else [])
    verify_consistency(old, plain_root(data[:old]), len(data), plain_root(data), proof)


def refused(check: Callable[..., None], *claim: Any) -> bool:
    try:
        check(*claim)
    except ProofError:
        return True
    return False


def test_no_other_inclusion_claim_passes() -> None:
    """Every size up to 12: another index, size, leaf or root, a hash more, a hash less, any flipped byte."""
    for size in range(1, 13):
        for index in range(size):
            leaf, top, proof = LEAVES[index], root(LEAVES[:size]), inclusion_proof(LEAVES[:size], index)
            for other in range(size + 2):
                if other != index:
                    assert refused(verify_inclusion, leaf, other, size, proof, top)
            assert refused(verify_inclusion, LEAVES[index + 1], index, size, proof, top)
            assert refused(verify_inclusion, leaf, index, size, proof, root(LEAVES[: size + 1]))
            assert refused(verify_inclusion, leaf, index, size, (*proof, LEAVES[0]), top)
            for number in range(len(proof)):
                assert refused(verify_inclusion, leaf, index, size, proof[:number] + proof[number + 1 :], top)
                for at in range(32):
                    bent = list(proof)
                    bent[number] = bent[number][:at] + bytes([bent[number][at] ^ 1]) + bent[number][at + 1 :]
                    assert refused(verify_inclusion, leaf, index, size, bent, top)


def test_no_other_consistency_claim_passes() -> None:
    """Every pair of sizes up to 12: another old tree, another new tree, a hash more, a hash less, any flipped byte."""
    for new in range(1, 13):
        for old in range(new + 1):
            before, after = root(LEAVES[:old]), root(LEAVES[:new])
            proof = consistency_proof(LEAVES[:new], old)
            forged = root([*LEAVES[: old - 1], LEAVES[39]]) if old else root(LEAVES[39:])
            assert refused(verify_consistency, old, forged, new, after, proof)
            if old:
                assert refused(verify_consistency, old, before, new, root([LEAVES[39], *LEAVES[1:new]]), proof)
            assert refused(verify_consistency, old, before, new, after, (*proof, LEAVES[0]))
            for number in range(len(proof)):
                assert refused(verify_consistency, old, before, new, after, proof[:number] + proof[number + 1 :])
                for at in range(32):
                    bent = list(proof)
                    bent[number] = bent[number][:at] + bytes([bent[number][at] ^ 1]) + bent[number][at + 1 :]
                    assert refused(verify_consistency, old, before, new, after, bent)


def test_sizes_out_of_order_are_refused() -> None:
    """No entry beyond the end, no log that shrinks, no empty log with a root of its own, no short hash."""
    top = root(LEAVES[:3])
    for check in (
        lambda: inclusion_proof(LEAVES[:3], 3),
        lambda: inclusion_proof([], 0),
        lambda: consistency_proof(LEAVES[:3], 4),
        lambda: verify_inclusion(LEAVES[0], -1, 3, (), top),
        lambda: verify_inclusion(LEAVES[0], 0, 0, (), top),
        lambda: verify_inclusion(LEAVES[0][:31], 0, 1, (), LEAVES[0]),
        lambda: verify_inclusion(LEAVES[0], 0, 2**63, (), LEAVES[0]),
        lambda: verify_consistency(3, top, 2, root(LEAVES[:2]), ()),
        lambda: verify_consistency(-1, top, 2, top, ()),
        lambda: verify_consistency(0, EMPTY_ROOT, 0, top, ()),
        lambda: verify_consistency(0, top, 3, top, ()),
        lambda: verify_consistency(2, root(LEAVES[:2]), 3, top, (LEAVES[2][:31],)),
        lambda: verify_consistency(3, top, 4, root(LEAVES[:4]), ()),
    ):
        with pytest.raises(ProofError):
            check()


def test_an_empty_log_is_a_prefix_of_every_log() -> None:
    """There is nothing to prove, and the old root must be the empty one."""
    verify_consistency(0, EMPTY_ROOT, 3, root(LEAVES[:3]), ())
    verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, ())


def test_the_largest_power_below() -> None:
    """Where the tree of n leaves splits."""
    assert [tlog._split(size) for size in range(2, 10)] == [1, 2, 2, 4, 4, 4, 4, 8]
