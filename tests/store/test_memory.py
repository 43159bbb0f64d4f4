from pathlib import Path

from store.cas import ManagedCas
from store.digest import Digest
from store.memory import MemoryCas
from store.testing import CasContract


class TestMemoryCas(CasContract):
    def make(self, folder: Path) -> MemoryCas:
        return MemoryCas()

    def inside(self, cas: ManagedCas, digest: Digest) -> bytes | None:
        assert isinstance(cas, MemoryCas)
        return cas._blobs.get(digest)

    def plant(self, cas: ManagedCas, digest: Digest, data: bytes) -> None:
        assert isinstance(cas, MemoryCas)
        cas._blobs[digest] = data


def test_what_was_done_to_a_path_does_not_matter() -> None:
    """A file that `path` gave and somebody changed is written anew."""
    cas = MemoryCas()
    digest = cas.put(b"abc")
    path = cas.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"abd")
    assert cas.path(digest).read_bytes() == b"abc"
