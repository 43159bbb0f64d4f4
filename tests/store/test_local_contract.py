from pathlib import Path

from store.cas import ManagedCas
from store.digest import Digest
from store.local import LocalCas
from store.testing import CasContract


class TestLocalCas(CasContract):
    def make(self, folder: Path) -> LocalCas:
        return LocalCas(folder)

    def inside(self, cas: ManagedCas, digest: Digest) -> bytes | None:
        assert isinstance(cas, LocalCas)
        path = cas.root / "objects" / digest.hex[:2] / digest.hex[2:]
        return path.read_bytes() if path.exists() else None

    def plant(self, cas: ManagedCas, digest: Digest, data: bytes) -> None:
        assert isinstance(cas, LocalCas)
        path = cas.root / "objects" / digest.hex[:2] / digest.hex[2:]
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(0o444)
