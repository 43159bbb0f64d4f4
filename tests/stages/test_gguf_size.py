from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stages import gguf_file
from stages.errors import SpecError
from stages.gguf_size import predict_bytes, predict_types
from stages.llama_cyllama import Cyllama

if TYPE_CHECKING:
    from tests.stages.conftest import Ggufs

CHAIN = Cyllama()


def deep(path: Path, *, layers: int, experts: int, hidden: int = 256, tied: bool = False, architecture: str = "llama") -> Path:
    """An F16 GGUF of a given shape, all zeros: what a converter writes, as far as quantising looks at it."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(1)
    writer.add_quantization_version(2)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(hidden)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(40)
    shapes = {"token_embd.weight": (40, hidden), "output_norm.weight": (hidden,)} | ({} if tied else {"output.weight": (40, hidden)})
    for layer in range(layers):
        block = {"attn_norm": (hidden,), "ffn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_output": (hidden, hidden)}
        block |= {"attn_k": (hidden // 2, hidden), "attn_v": (hidden // 2, hidden)}
        if experts:
            block |= {"ffn_gate_inp": (experts, hidden)} | {
                f"ffn_{part}_exps": (experts, hidden, hidden) for part in ("gate", "up", "down")
            }
        else:
            block |= {f"ffn_{part}": (hidden, hidden) for part in ("gate", "up", "down")}
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    for name, shape in shapes.items():
        wide = len(shape) == 1 or "gate_inp" in name
        writer.add_tensor(name, np.zeros(shape, dtype=np.float32 if wide else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M"])
@pytest.mark.parametrize(
    ("layers", "experts", "hidden", "tied"),
    [
        (1, 0, 256, False),
        (9, 0, 256, True),
        (17, 0, 256, False),
        (10, 4, 256, False),
        (3, 6, 256, False),
        (9, 8, 256, False),
        (3, 8, 96, False),
    ],
)
def test_the_size_is_predicted_to_the_byte(tmp_path: Path, kind: str, layers: int, experts: int, hidden: int, tied: bool) -> None:
    """Dense and mixed, tied and untied, few and many layers, rows that 256 divides or not: type by type and byte by byte."""
    base = deep(tmp_path / "base.gguf", layers=layers, experts=experts, hidden=hidden, tied=tied)
    CHAIN.quantize(base, tmp_path / "out.gguf", kind, threads=1)
    before, after = gguf_file.check(base), gguf_file.check(tmp_path / "out.gguf")
    expected = dict(zip((tensor.name for tensor in before.tensors), predict_types(before, kind), strict=True))
    assert {tensor.name: tensor.type for tensor in after.tensors} == expected
    assert after.size_bytes == predict_bytes(before, kind)


@pytest.mark.parametrize("architecture", ["olmoe", "qwen3moe"])
def test_other_architectures_follow_the_same_rules(tmp_path: Path, architecture: str) -> None:
    """What is claimed for an architecture was tried for it."""
    base = deep(tmp_path / "base.gguf", layers=9, experts=8, architecture=architecture)
    CHAIN.quantize(base, tmp_path / "out.gguf", "Q4_K_M", threads=1)
    assert gguf_file.check(tmp_path / "out.gguf").size_bytes == predict_bytes(gguf_file.check(base), "Q4_K_M")


def test_converted_models_are_predicted_too(ggufs: "Ggufs") -> None:
    """With a real tokenizer in the header."""
    base = gguf_file.check(ggufs.path("wide-F16"))
    assert predict_bytes(base, "Q4_K_M") == ggufs.store.size(ggufs.files["wide-Q4_K_M"])
    assert predict_bytes(base, "F16") == ggufs.store.size(ggufs.files["wide-F16"])


def test_what_is_not_known_is_not_guessed(ggufs: "Ggufs") -> None:
    """Other types are refused with the known ones."""
    with pytest.raises(SpecError, match=r"llama in Q3_K_M cannot be predicted; known: llama, .* in F16, Q8_0, Q4_K_M"):
        predict_bytes(gguf_file.check(ggufs.path("wide-F16")), "Q3_K_M")
