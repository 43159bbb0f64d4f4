import pytest

from stages import quant
from stages.errors import PluginError, SpecError
from stages.gguf_convert import GgufConvert
from stages.gguf_quantize import GgufQuantize
from stages.quant import Quant
from stages.stage import Graph, Ref
from store.digest import Digest
from store.memory import MemoryCas

MODEL = Digest.of(b"model")


def expand(*types: str, format: str = "gguf") -> Graph:
    return quant.expand(Quant(format=format, types=types), {"model": MODEL}, MemoryCas())


def test_quantised_types_come_from_the_f16_file() -> None:
    """F16 is converted once and is the base of all others, in the order asked for."""
    graph = expand("F16", "Q8_0", "Q4_K_M")
    assert [(node.id, node.spec) for node in graph.nodes] == [
        ("F16", GgufConvert(outtype="F16")),
        ("Q8_0", GgufQuantize(type="Q8_0")),
        ("Q4_K_M", GgufQuantize(type="Q4_K_M")),
    ]
    assert graph.nodes[2].inputs == {"gguf-base": Ref("F16", "gguf")}
    assert graph.outputs == {f"gguf-{kind}": Ref(kind, "gguf") for kind in ("F16", "Q8_0", "Q4_K_M")}


def test_the_base_is_made_even_when_nobody_asked_for_it() -> None:
    """Only what was asked for is an output."""
    graph = expand("Q4_K_M", "F32")
    assert [node.id for node in graph.nodes] == ["F32", "F16", "Q4_K_M"]
    assert set(graph.outputs) == {"gguf-Q4_K_M", "gguf-F32"}


def test_types_are_spelled_as_the_format_spells_them() -> None:
    """Lower case and repetitions are the same type."""
    assert set(expand("q4_k_m", "Q4_K_M").outputs) == {"gguf-Q4_K_M"}


@pytest.mark.parametrize(("types", "words"), [(("Q4_K_N",), "has no type Q4_K_N; known: F32, F16.*Q4_K_M"), ((), "at least one type")])
def test_unknown_types_are_refused_with_the_known_ones(types: tuple[str, ...], words: str) -> None:
    """Before anything runs."""
    with pytest.raises(SpecError, match=words):
        expand(*types)


def test_an_unknown_format_is_refused() -> None:
    """The nearest name is offered."""
    with pytest.raises(PluginError, match="did you mean 'gguf'"):
        expand("F16", format="ggup")
