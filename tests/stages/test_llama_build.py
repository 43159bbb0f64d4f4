import math
import struct
import sys
from pathlib import Path

import pytest

from stages import toolchain
from stages.errors import InputError, ToolError
from stages.llama_build import BINARIES, LlamaBuild, chunk_means, write_tokens
from stages.toolchain import Window

QUANTIZE = """
import shutil, sys
if sys.argv[3] == "Q4_K_M": shutil.copy(sys.argv[1], sys.argv[2])
else: sys.stderr.write("main: invalid ftype 'Q99'\\n"); sys.exit(1)
"""
TOKENIZE = """
import sys
text = open(sys.argv[sys.argv.index("-f") + 1], encoding="utf-8", newline="").read()
ids = [ord(letter) for letter in text]
print("some log line"); print([1] * ("--no-bos" not in sys.argv) + ids)
"""
PERPLEXITY = """
import math, struct, sys
if "--version" in sys.argv: sys.stderr.write("version: 9999 (abc1234)\\nbuilt with cc\\n"); sys.exit(0)
data = open(sys.argv[sys.argv.index("--kl-divergence-base") + 1], "rb").read()
assert data[:8] == b"_logits_"
n_ctx, n_vocab, n_chunk = struct.unpack_from("<Iii", data, 8)
scored = n_ctx - 1 - n_ctx // 2
assert len(data) == 20 + 4 * n_ctx * n_chunk + 2 * n_chunk * scored * (2 * ((n_vocab + 1) // 2) + 4), len(data)
assert sys.argv[sys.argv.index("-fa") + 1] == "off" and sys.argv[sys.argv.index("-ctk") + 1] == "f32"
tokens = struct.unpack_from(f"<{n_ctx * n_chunk}i", data, 20)
total = 0.0
for chunk in range(n_chunk):
    total += 2.0 + tokens[chunk * n_ctx] / 100  # a chunk's mean nll depends on its first token
    mean = total / (chunk + 1)
    row = f"{chunk + 1:4d}    {math.exp(mean):9.4f} ± {0.1:9.4f}    {mean:10.5f} ± {0.1:10.5f}    {1:10.5f} ± {0:10.5f}"
    print(row + f"    {1:6.3f} ± {1:6.3f} %    {1:6.3f} ± {1:6.3f} %")
"""


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A folder that looks like a llama.cpp build; its programs are Python."""
    folder = tmp_path / "llama.cpp"
    (folder / "build/bin").mkdir(parents=True)
    for name, code in zip(BINARIES, (QUANTIZE, PERPLEXITY, TOKENIZE), strict=True):
        path = folder / "build/bin" / name
        path.write_text(f"#!{sys.executable}\n{code}")
        path.chmod(0o755)
    (folder / "convert_hf_to_gguf.py").write_text("import sys; open(sys.argv[3], 'w').write(' '.join(sys.argv[4:]))")
    return folder


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A GGUF file with a vocabulary of 200."""
    import numpy as np
    from gguf import GGUFWriter

    path = tmp_path / "x.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_token_list([str(number) for number in range(200)])
    writer.add_tensor("a", np.zeros(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_chunks_are_evaluated_by_tokens(build: Path, gguf: Path) -> None:
    """Token ids go in exactly, each chunk's mean nll comes out to 1e-4, and the resolution says that tokens have no value of their own."""
    chain = LlamaBuild(build)
    chunks = [[7] * 16, [150] * 16, [3] * 16]
    values = list(chain.nll(gguf, chunks, Window(16), bos=None, threads=1))
    assert [len(set(chunk)) for chunk in values] == [1, 1, 1]
    assert [chunk[0] for chunk in values] == pytest.approx([2.07, 3.5, 2.03], abs=1e-4)
    assert chain.resolution == "chunk"


def test_the_tokens_file_is_a_hole(tmp_path: Path) -> None:
    """The zero log-probabilities of a large vocabulary take no space."""
    path = tmp_path / "base"
    write_tokens(path, [[1] * 512] * 8, Window(512), 150_000)
    assert path.stat().st_size > 6e8
    assert path.stat().st_blocks * 512 < 1e6
    with path.open("rb") as file:
        assert file.read(24) == b"_logits_" + struct.pack("<Iiii", 512, 150_000, 8, 1)


def test_the_finer_of_the_two_printed_values_is_taken() -> None:
    """Small perplexities have more digits in the logarithm, large ones in the perplexity."""
    small = f"   1   {2.5:9.4f} ± 0.1   {math.log(2.5):10.5f} ± 0.1"
    large = f"   1   {2715.6949:9.4f} ± 0.1   {math.log(2715.6949):10.5f} ± 0.1"
    assert chunk_means(small) == [0.91629]
    assert chunk_means(large) == [math.log(2715.6949)]


@pytest.mark.parametrize("said", ["   1   nan ± 0.1   nan ± 0.1", "   2   5.0 ± 0.1   1.60944 ± 0.1"])
def test_output_that_makes_no_sense_is_refused(said: str) -> None:
    """NaN, or a chunk that is not the next."""
    with pytest.raises(ToolError, match="llama-perplexity printed"):
        chunk_means(said)


def test_missing_programs_are_all_named(build: Path) -> None:
    """One message lists everything that the folder lacks and how to build it."""
    (build / "build/bin/llama-tokenize").unlink()
    (build / "build/bin/llama-quantize").unlink()
    (build / "convert_hf_to_gguf.py").unlink()
    with pytest.raises(ToolError, match=r"lacks llama-quantize, llama-tokenize, convert_hf_to_gguf.py .*cmake --build build"):
        LlamaBuild(build)


def test_a_failing_program_is_quoted(build: Path, gguf: Path, tmp_path: Path) -> None:
    """Its exit code and last words are in the error."""
    chain = LlamaBuild(build)
    chain.quantize(gguf, tmp_path / "out", "Q4_K_M", threads=2)
    assert (tmp_path / "out").read_bytes() == gguf.read_bytes()
    with pytest.raises(ToolError, match=r"quantise x.gguf to Q99 \(exit code 1\): main: invalid ftype"):
        chain.quantize(gguf, tmp_path / "out", "Q99", threads=2)


def test_the_lines_that_speak_of_failure_are_quoted_first(build: Path, gguf: Path) -> None:
    """llama.cpp says a great deal before and after the reason."""
    lines = ["llama_model_loader: loaded", "model_load: error loading model: tensor data is not within the file", *["later"] * 20]
    code = "import sys\n" + "".join(f"sys.stderr.write({line + chr(10)!r})\n" for line in lines) + "sys.exit(1)\n"
    (build / "build/bin/llama-tokenize").write_text(f"#!{sys.executable}\n{code}")
    with pytest.raises(
        ToolError, match=r"tokenise with x\.gguf \(exit code 1\): model_load: error loading model: tensor data is not within the file\Z"
    ):
        LlamaBuild(build).tokenize(gguf, "a", add_special=False)


def test_a_program_that_does_not_start_is_named(build: Path, gguf: Path) -> None:
    """A binary for another system, or without the permission to run."""
    (build / "build/bin/llama-tokenize").chmod(0o644)
    with pytest.raises(ToolError, match="llama-tokenize does not start"):
        LlamaBuild(build).tokenize(gguf, "a", add_special=False)


def test_fewer_chunks_than_asked_for_is_an_error(build: Path, gguf: Path) -> None:
    """Output that ends early is no result, whatever the exit code says."""
    path = build / "build/bin/llama-perplexity"
    path.write_text(f"#!{sys.executable}\nprint('ggml: out of memory')")
    with pytest.raises(ToolError, match="reported 0 chunks of 1, 5 times; it said: ggml: out of memory"):
        list(LlamaBuild(build).nll(gguf, [[1] * 16], Window(16), bos=None, threads=1))


def test_lost_lines_are_asked_for_again(build: Path, gguf: Path, tmp_path: Path) -> None:
    """llama-perplexity sometimes ends before its last lines are written; the next run has them."""
    path = build / "build/bin/llama-perplexity"
    mark = tmp_path / "ran"
    path.write_text(
        f"#!{sys.executable}\nimport os, sys\nif not os.path.exists({str(mark)!r}): open({str(mark)!r}, 'w'); sys.exit(0)\n{PERPLEXITY}"
    )
    assert len(list(LlamaBuild(build).nll(gguf, [[1] * 16], Window(16), bos=None, threads=1))) == 1


def test_tokens_of_another_vocabulary_are_refused(build: Path, gguf: Path) -> None:
    """An id that the file does not have never reaches the program."""
    with pytest.raises(InputError, match=r"token 200, and x\.gguf has 200 tokens"):
        list(LlamaBuild(build).nll(gguf, [[200] * 16], Window(16), bos=None, threads=1))


def test_text_is_tokenised_unchanged(build: Path, gguf: Path) -> None:
    """Line ends and letters beyond ASCII arrive as they are; BOS is found by comparing."""
    chain = LlamaBuild(build)
    assert chain.tokenize(gguf, "a\r\né", add_special=False) == [97, 13, 10, 233]
    assert toolchain.bos_of(chain, gguf) == 1


def test_a_tokenizer_that_prints_no_list_is_an_error(build: Path, gguf: Path) -> None:
    """Silence is not an empty text."""
    (build / "build/bin/llama-tokenize").write_text(f"#!{sys.executable}\nprint('hello')")
    with pytest.raises(ToolError, match="printed no list of ids"):
        LlamaBuild(build).tokenize(gguf, "a", add_special=False)


def test_the_folders_converter_converts(build: Path, tmp_path: Path) -> None:
    """The folder's own script is run, with the constant model name."""
    out = tmp_path / "out.gguf"
    LlamaBuild(build).convert(tmp_path, out, "BF16", pre=None, add_bos=True)
    assert out.read_text() == "--outtype bf16 --model-name model"


def test_identity_hashes_every_program(build: Path) -> None:
    """The version that the program tells, and the SHA-256 of everything that runs."""
    chain = LlamaBuild(build)
    found = chain.identity()
    assert found["version"] == "9999 (abc1234)"
    assert sorted(found["binaries"]) == sorted(BINARIES)
    assert all(len(value) == 64 for value in found["binaries"].values())
    assert chain.label() == "llama.cpp 9999 (abc1234)"


def test_the_tool_named_by_the_person_is_chosen(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--llama-cpp DIR` decides, one toolchain per worker, and the environment says which."""
    memo: dict[str, object] = {}
    chain = toolchain.choose({"llama-cpp": str(build)}, memo)
    assert isinstance(chain, LlamaBuild)
    assert toolchain.choose({"llama-cpp": str(build)}, memo) is chain
    monkeypatch.setenv("LEDGER_TOOLS", f'{{"llama-cpp": "{build}"}}')
    monkeypatch.setenv("LEDGER_THREADS", "3")
    described = toolchain.describe()
    assert (described["toolchain"]["name"], described["threads"]) == ("llama.cpp build", 3)
    monkeypatch.setenv("LEDGER_TOOLS", "{}")
    assert toolchain.describe()["toolchain"]["name"] == "cyllama"
