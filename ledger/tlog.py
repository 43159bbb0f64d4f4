"""The Merkle tree of RFC 6962: one root for a whole log, short proofs that an entry is in it and that it only grew.

A leaf is hashed as SHA-256(0x00 || data), a node as SHA-256(0x01 || left || right), so no node can pass for a leaf. A tree of n leaves
splits at the largest power of two below n; an odd leaf moves up unhashed. The root of the empty tree is SHA-256 of nothing.

Everywhere here a leaf is its 32-byte `leaf_hash`, never the data, and a root is 32 bytes.

>>> leaves = [leaf_hash(data) for data in (b"a", b"b", b"c")]
>>> frontier = Frontier()
>>> for leaf in leaves:
...     frontier = frontier.append(leaf)
>>> frontier.root == root(leaves)
True
>>> verify_inclusion(leaves[2], 2, 3, inclusion_proof(leaves, 2), frontier.root)
>>> verify_consistency(2, root(leaves[:2]), 3, frontier.root, consistency_proof(leaves, 2))

Source: RFC 6962 section 2.1; the verifying algorithms are those of RFC 9162 sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ledger.errors import ProofError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
_MAX_SIZE = 2**63 - 1


def leaf_hash(data: bytes) -> bytes:
    """The 32-byte hash of an entry's bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, in log order. O(n)."""
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
    return frontier.root


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that must be kept of a tree to append to it: its size and the roots of its perfect subtrees, largest first.

    A value: `append` gives a new one, so a group of appends that fails half-way leaves the old one as it was.
    There is one hash for each 1 bit of the size; `Frontier()` is the empty tree.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= _MAX_SIZE:
            raise ProofError(f"a tree cannot have {self.size} leaves")
        if len(self.hashes) != self.size.bit_count() or any(len(item) != HASH_BYTES for item in self.hashes):
            raise ProofError(
                f"the frontier of a tree of {self.size} leaves has {self.size.bit_count()} hashes of 32 bytes; got {len(self.hashes)} of "
                f"{sorted({len(item) for item in self.hashes})} bytes"
            )

    def append(self, leaf: bytes) -> Frontier:
        """The frontier with one more leaf hash."""
        _check_hash(leaf, "leaf")
        hashes, node, size = list(self.hashes), leaf, self.size
        while size & 1:
            node = node_hash(hashes.pop(), node)
            size >>= 1
        return Frontier(self.size + 1, (*hashes, node))

    @property
    def root(self) -> bytes:
        """The root of the tree, 32 bytes."""
        if not self.hashes:
            return EMPTY_ROOT
        node = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            node = node_hash(left, node)
        return node

    def to_bytes(self) -> bytes:
        """The size as 8 bytes, big-endian, then the hashes."""
        return self.size.to_bytes(8, "big") + b"".join(self.hashes)

    @classmethod
    def parse(cls, data: bytes) -> Frontier:
        """Read back what `to_bytes` gave.

        Raises:
            ProofError: the length does not fit the size.
        """
        if len(data) < 8 or (len(data) - 8) % HASH_BYTES:
            raise ProofError(f"a frontier has 8 bytes and then hashes of 32; got {len(data)} bytes")
        hashes = tuple(data[start : start + HASH_BYTES] for start in range(8, len(data), HASH_BYTES))
        return cls(int.from_bytes(data[:8], "big"), hashes)


# --- proofs --------------------------------------------------------------------------------------------------------------------


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The hashes that lead from leaf `index` (from 0) to the root over all `leaves`, lowest first. O(n).

    Raises:
        ProofError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise ProofError(f"no entry {index} in a log of {len(leaves)} entries")
    start, stop, proof = 0, len(leaves), []
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            proof.append(root(leaves[middle:stop]))
            stop = middle
        else:
            proof.append(root(leaves[start:middle]))
            start = middle
    return tuple(reversed(proof))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` is number `index` (from 0) of the tree of `size` leaves that has this root.

    Raises:
        ProofError: the proof does not show that.
    """
    for item, name in ((leaf, "leaf"), (root, "root"), *((item, "proof") for item in proof)):
        _check_hash(item, name)
    if not 0 <= index < size <= _MAX_SIZE:
        raise ProofError(f"no entry {index} in a log of {size} entries")
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError(f"the inclusion proof of entry {index} in {size} has {len(proof)} hashes, more than the tree is high")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    if last or node != root:
        raise ProofError(
            f"the inclusion proof of entry {index} leads to {node.hex()[:12]}, not to the root {root.hex()[:12]} of {size} entries"
        )


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """The hashes that show that the tree over `leaves` extends the one over the first `old_size` of them. O(n).

    Empty when the old tree is empty or is the whole.

    Raises:
        ProofError: the old tree is larger than the new.
    """
    if not 0 <= old_size <= len(leaves):
        raise ProofError(f"a log of {len(leaves)} entries cannot extend one of {old_size}")
    if old_size in (0, len(leaves)):
        return ()
    start, stop, whole, proof = 0, len(leaves), True, []
    while old_size != stop:
        middle = start + _split(stop - start)
        if old_size <= middle:
            proof.append(root(leaves[middle:stop]))
            stop = middle
        else:
            proof.append(root(leaves[start:middle]))
            start, whole = middle, False
    if not whole:
        proof.append(root(leaves[start:stop]))
    return tuple(reversed(proof))


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the new tree begins with all of the old one's leaves, unchanged.

    Raises:
        ProofError: the proof does not show that.
    """
    for item, name in ((old_root, "old root"), (new_root, "new root"), *((item, "proof") for item in proof)):
        _check_hash(item, name)
    if not 0 <= old_size <= new_size <= _MAX_SIZE:
        raise ProofError(f"a log of {new_size} entries cannot extend one of {old_size}")
    what = f"a log of {new_size} entries (root {new_root.hex()[:12]}) extends one of {old_size} (root {old_root.hex()[:12]})"
    if old_size in (0, new_size):
        expected = EMPTY_ROOT if old_size == 0 else new_root
        if proof or old_root != expected or (new_size == 0 and new_root != EMPTY_ROOT):
            raise ProofError(f"it is not proven that {what}")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:  # a perfect old tree is itself the first node of the path
        path.insert(0, old_root)
    if not path:
        raise ProofError(f"an empty proof does not show that {what}")
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError(f"the proof that {what} has {len(proof)} hashes, more than the tree is high")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last or old != old_root or new != new_root:
        raise ProofError(f"it is not proven that {what}")


def _split(size: int) -> int:
    """The largest power of two below `size` (2 or more)."""
    return 1 << ((size - 1).bit_length() - 1)


def _check_hash(item: bytes, name: str) -> None:
    if len(item) != HASH_BYTES:
        raise ProofError(f"a {name} hash has 32 bytes; got {len(item)}")
