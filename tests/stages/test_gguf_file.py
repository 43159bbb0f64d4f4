import random
import struct
from pathlib import Path

import pytest

from stages.errors import InputError
from stages.gguf_file import TYPES, check, short


def gguf(tensors: list[tuple[str, tuple[int, ...], int, int]], *, data: int, pairs: bytes = b"", count: int = 0, pad: bool = True) -> bytes:
    """A GGUF file by hand: (name, shape, type number, offset) of each tensor, then `data` bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + pairs
    for name, shape, kind, offset in tensors:
        head += struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    body = bytes(data)
    return head + bytes(-len(head) % 32) + body + (bytes(-len(body) % 32) if pad else b"")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    pairs = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    pairs += text("llama.expert_count") + struct.pack("<II", 4, 8)
    pairs += text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc")
    pairs += text("numbers") + struct.pack("<IIQ3i", 9, 5, 3, 1, 2, 3)
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf([("a", (32, 2), 8, 0), ("b", (5,), 0, 96)], data=96 + 20, pairs=pairs, count=4))
    return path


def test_a_whole_file_gives_metadata_tensors_and_types(whole: Path) -> None:
    """Metadata of every kind, shapes, sizes and real types are read."""
    found = check(whole)
    assert found.metadata == {"general.architecture": "llama", "llama.expert_count": 8, "words": ["a", "bc"], "numbers": [1, 2, 3]}
    assert [(tensor.name, tensor.shape, tensor.type.name, tensor.size_bytes) for tensor in found.tensors] == [
        ("a", (32, 2), "Q8_0", 68),
        ("b", (5,), "F32", 20),
    ]
    assert (found.experts, found.tensor_types(), found.size_bytes) == (8, {"F32": 1, "Q8_0": 1}, whole.stat().st_size)


def test_every_truncation_is_refused(whole: Path) -> None:
    """Cut anywhere, a file is refused; only the padding behind the last tensor may be missing as a whole."""
    data, taken = whole.read_bytes(), []
    for length in range(len(data)):
        whole.write_bytes(data[:length])
        try:
            check(whole)
        except InputError:
            continue
        taken.append(length)
    assert taken == [len(data) - 12]


def test_bytes_behind_the_last_tensor_are_refused(whole: Path) -> None:
    """A file longer than its tensors is not the file that its header describes."""
    whole.write_bytes(whole.read_bytes() + b"\0")
    with pytest.raises(InputError, match="tensors end at byte"):
        check(whole)


@pytest.mark.parametrize(
    ("tensors", "data", "words"),
    [
        ([("a", (8,), 0, 0), ("b", (8,), 0, 0)], 64, "overlap or leave a gap"),
        ([("a", (8,), 0, 0), ("b", (8,), 0, 64)], 96, "overlap or leave a gap"),
        ([("a", (8,), 0, 0), ("a", (8,), 0, 32)], 64, "occurs twice"),
        ([("a", (8,), 99, 0)], 32, "unknown type 99"),
        ([("a", (33,), 8, 0)], 34, "do not divide"),
        ([("a", (2**62, 4), 0, 0)], 32, "tensors end at byte"),
        ([("a", (1, 1, 1, 1, 1), 0, 0)], 32, "5 dimensions"),
        ([], 0, "no tensors"),
    ],
)
def test_a_table_that_lies_is_refused(tmp_path: Path, tensors: list[tuple[str, tuple[int, ...], int, int]], data: int, words: str) -> None:
    """Overlaps, gaps, names twice, unknown types and impossible sizes are named."""
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf(tensors, data=data))
    with pytest.raises(InputError, match=words):
        check(path)


def test_lengths_that_lie_allocate_nothing(tmp_path: Path) -> None:
    """A string or array longer than the file is refused before it is read."""
    path = tmp_path / "x.gguf"
    for pairs in (
        struct.pack("<Q", 2**60),
        text("k") + struct.pack("<IIQ", 9, 4, 2**61),
        text("k") + struct.pack("<IIQ", 9, 8, 2**61),
        text("k") + struct.pack("<I", 77),
        text("k") + struct.pack("<IB", 0, 1) + text("k") + struct.pack("<IB", 0, 1),
    ):
        path.write_bytes(gguf([("a", (8,), 0, 0)], data=32, pairs=pairs, count=2))
        with pytest.raises(InputError, match="not a whole GGUF file"):
            check(path)


def test_random_damage_never_gives_another_error(whole: Path) -> None:
    """Whatever bytes stand there, the answer is a header or InputError."""
    data, chance = whole.read_bytes(), random.Random(0)
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        whole.write_bytes(damaged)
        try:
            check(whole)
        except InputError:
            continue


def test_types_agree_with_the_gguf_package() -> None:
    """Block sizes are those of the reference implementation, for every type that it knows."""
    import gguf as reference

    for kind, (block, size) in reference.GGML_QUANT_SIZES.items():
        assert (TYPES[kind.value].name, TYPES[kind.value].block, TYPES[kind.value].size_bytes) == (kind.name, block, size)


def test_objects_of_a_store_are_named_by_a_short_digest() -> None:
    """A path in a store is shown by the start of its digest, a person's file by its name."""
    assert short(Path("objects/ab") / ("c" * 62)) == "GGUF cccccccccccc"
    assert short(Path("model.gguf")) == "model.gguf"
