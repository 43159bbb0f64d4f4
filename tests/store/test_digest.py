import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.digest import Digest
from store.errors import DigestError


@given(st.binary())
def test_a_digest_is_the_sha256(data: bytes) -> None:
    """`of` hashes, `parse` reads what `str` wrote, equal bytes give equal digests."""
    digest = Digest.of(data)
    assert digest.hex == hashlib.sha256(data).hexdigest()
    assert str(digest) == f"sha256:{digest.hex}"
    assert Digest.parse(str(digest)) == digest
    assert hash(Digest.of(memoryview(data))) == hash(digest)
    assert digest.short == str(digest)[:19]


@pytest.mark.parametrize(
    "text",
    [
        *("", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 65, "sha256:" + "a" * 64 + "\n", "a" * 64),
        *("sha512:" + "a" * 64, " sha256:" + "a" * 64, "sha256:" + "g" * 64, "sha256:" + "١" * 64, None, 7),
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    """Only `sha256:` and 64 lowercase hex digits make a digest; the message shows the text."""
    with pytest.raises(DigestError) as caught:
        Digest.parse(text)
    assert repr(text) in str(caught.value)


def test_digests_are_ordered_and_no_text() -> None:
    """Digests sort by their text and equal no string."""
    one, two = sorted([Digest("sha256:" + "b" * 64), Digest("sha256:" + "a" * 64)])
    assert one < two
    assert one != str(one)
    assert repr(one) == f"Digest('sha256:{'a' * 64}')"
