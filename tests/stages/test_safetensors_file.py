"""What a safetensors header may say, and what each lie is called."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import InputError
from stages.safetensors_file import BITS, MAX_HEADER_BYTES, header_bytes, place, read_header, tensor_bytes

ATTACKS = Path(__file__).parents[1] / "attacks" / "safetensors"


def built(value: object, data: bytes = b"") -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text + data


def f32(start: int, stop: int, *shape: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}


FAULTS = {
    "truncated-length.safetensors": (b"\x10\x00\x00", "too few for a safetensors file. It is truncated: download it again"),
    "truncated-header.safetensors": (built({"a": f32(0, 8, 2)}, bytes(8))[:30], "file holds 22 after the length. It is truncated"),
    "truncated-data.safetensors": (
        built({"a": f32(0, 8, 2)}, bytes(5)),
        "header says 8 bytes of data, file holds 5. It is truncated: download it again",
    ),
    "header-length-huge.safetensors": ((2**63).to_bytes(8, "little") + b"{}", f"at most {MAX_HEADER_BYTES:,} are read"),
    "not-json.safetensors": (built(b"{'a': 1}"), "not strict JSON"),
    "starts-with-space.safetensors": (built(b" {}"), "does not start with '{'"),
    "invalid-utf8.safetensors": (built(b'{"\xff":1}'), "not strict JSON"),
    "key-twice.safetensors": (
        built(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "key given twice",
    ),
    "deep-nesting.safetensors": (built(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not strict JSON"),
    "overlap.safetensors": (built({"a": f32(0, 8, 2), "b": f32(4, 12, 2)}, bytes(12)), "tensor 'b' overlaps 'a'"),
    "same-bytes-twice.safetensors": (built({"a": f32(0, 8, 2), "b": f32(0, 8, 2)}, bytes(8)), "overlaps"),
    "hole.safetensors": (built({"a": f32(0, 8, 2), "b": f32(12, 20, 2)}, bytes(20)), "leaves a hole of 4 bytes after 'a'"),
    "hole-first.safetensors": (built({"a": f32(4, 12, 2)}, bytes(12)), "leaves a hole of 4 bytes after the beginning"),
    "trailing-bytes.safetensors": (built({"a": f32(0, 8, 2)}, bytes(9)), "Bytes that no tensor owns"),
    "size-lies.safetensors": (built({"a": f32(0, 8, 3)}, bytes(8)), "takes 12 bytes; its offsets say 8"),
    "half-a-byte.safetensors": (built({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, bytes(2)), "takes 2 bytes"),
    "unknown-dtype.safetensors": (built({"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "dtype 'F33'"),
    "negative-shape.safetensors": (built({"a": f32(0, 8, -1, -2)}, bytes(8)), "integers of at least 0"),
    "bool-shape.safetensors": (built({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, bytes(4)), "integers of at least 0"),
    "offsets-backwards.safetensors": (built({"a": f32(8, 0, 2)}, bytes(8)), "must not go backwards"),
    "negative-offset.safetensors": (built({"a": f32(-8, 0, 2)}, bytes(8)), "must not be negative"),
    "float-offset.safetensors": (
        built({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]}}, bytes(8)),
        "must be two integers",
    ),
    "huge-shape.safetensors": (built({"a": f32(0, 8, 2**62, 2**62)}, bytes(8)), "its offsets say 8"),
    "extra-field.safetensors": (built({"a": f32(0, 8, 2) | {"x": 1}}, bytes(8)), "exactly dtype, shape and data_offsets"),
    "metadata-not-text.safetensors": (built({"__metadata__": {"a": 1}}), "object of texts"),
    "name-dotdot.safetensors": (built({"../../etc/passwd": f32(0, 8, 2)}, bytes(8)), "leaves its folder"),
    "name-absolute.safetensors": (built({"/etc/passwd": f32(0, 8, 2)}, bytes(8)), "absolute path"),
    "name-drive.safetensors": (built({"C:\\x": f32(0, 8, 2)}, bytes(8)), "absolute path"),
    "name-nul.safetensors": (built({"a\x00b": f32(0, 8, 2)}, bytes(8)), "control character"),
    "name-empty.safetensors": (built({"": f32(0, 8, 2)}, bytes(8)), "empty name"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_lying_header_is_refused_by_name(fault: str) -> None:
    """Every attack file is refused with the file's name and the words that say what is wrong with it."""
    data, words = FAULTS[fault]
    with pytest.raises(InputError) as caught:
        read_header(io.BytesIO(data), fault, len(data))
    assert fault in str(caught.value)
    assert words in str(caught.value)


def test_the_attack_files_are_the_ones_described() -> None:
    """The committed attack files, which other readers may want, hold exactly the bytes built above."""
    stored = {path.name: path.read_bytes() for path in ATTACKS.glob("*.safetensors")}
    assert stored == {name: data for name, (data, _) in FAULTS.items() if len(data) < 4096}


def test_every_truncation_of_a_good_file_is_refused() -> None:
    """A file cut anywhere is never taken for a whole one."""
    layout = place([("a", "F32", (2, 2)), ("b", "BF16", (3,))])
    data = header_bytes(layout, {"format": "pt"}) + bytes(22)
    assert read_header(io.BytesIO(data), "m", len(data)).tensors == layout
    for length in range(len(data)):
        with pytest.raises(InputError):
            read_header(io.BytesIO(data[:length]), "m", length)


def test_the_reference_library_reads_our_header(tmp_path: Path) -> None:
    """A file with our header opens with the safetensors library, empty tensors and scalars included."""
    from safetensors import safe_open

    layout = place([("z", "F32", (2, 3)), ("empty", "F16", (0, 5)), ("scalar", "I64", ()), ("ü", "U8", (3,))])
    file = tmp_path / "model.safetensors"
    file.write_bytes(header_bytes(layout, {"format": "pt"}) + bytes(layout[-1].stop))
    with safe_open(file, "np") as opened:
        assert sorted(opened.keys()) == sorted(item.name for item in layout)
        assert all(tuple(opened.get_slice(item.name).get_shape()) == item.shape for item in layout)
        assert opened.metadata() == {"format": "pt"}


def test_we_read_what_the_reference_library_writes(tmp_path: Path) -> None:
    """Headers written by the safetensors library are accepted, and data is found where they say."""
    import numpy as np
    from safetensors.numpy import save_file

    arrays: dict[str, Any] = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.arange(4, dtype=np.int64)}
    file = tmp_path / "model.safetensors"
    save_file(arrays, file, {"format": "np"})
    with file.open("rb") as opened:
        header = read_header(opened, file.name, file.stat().st_size)
        for item in header.tensors:
            opened.seek(header.data_start + item.start)
            assert opened.read(item.size_bytes) == arrays[item.name].tobytes()
    assert header.metadata == {"format": "np"}


tensors = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1), st.sampled_from(["F32", "BF16", "I8"]),
              st.lists(st.integers(0, 5), max_size=3).map(tuple)),
    unique_by=lambda item: item[0],
    max_size=6,
)  # fmt: skip


@given(tensors, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
def test_a_header_reads_back_as_what_was_placed(parts: list[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str]) -> None:
    """Round trip: place, write, read gives the same tensors, metadata and data offset."""
    layout = place(parts)
    head = header_bytes(layout, metadata)
    size = len(head) + sum(tensor_bytes(dtype, shape) for _, dtype, shape in parts)
    header = read_header(io.BytesIO(head + bytes(size - len(head))), "m", size)
    assert sorted(header.tensors, key=lambda item: item.name) == sorted(layout, key=lambda item: item.name)
    assert (header.metadata, header.data_start, header.size_bytes) == (metadata, len(head), size)
    assert len(head) % 8 == 0


@given(st.data())
def test_a_changed_byte_never_crashes_the_reader(data: st.DataObject) -> None:
    """Any single byte of a header may be anything: the answer is a header or an InputError, never another exception."""
    layout = place([("model.layers.0.w", "F32", (2, 2)), ("b", "BF16", (3,))])
    good = bytearray(header_bytes(layout, {"format": "pt"}) + bytes(22))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = read_header(io.BytesIO(bytes(good)), "m", len(good))
    except InputError:
        return
    assert sum(item.size_bytes for item in header.tensors) == len(good) - header.data_start


def test_every_dtype_of_the_library_is_known() -> None:
    """The table of element sizes agrees with numpy's where numpy has the type."""
    import numpy as np

    for ours, theirs in {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "I64": np.int64,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }.items():
        assert BITS[ours] == np.dtype(theirs).itemsize * 8


def make_attacks() -> None:
    """Write the attack files anew: `python -c 'import tests.stages.test_safetensors_file as t; t.make_attacks()'`."""
    ATTACKS.mkdir(parents=True, exist_ok=True)
    for name, (data, _) in FAULTS.items():
        if len(data) < 4096:
            (ATTACKS / name).write_bytes(data)
