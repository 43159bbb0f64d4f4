"""File names of GGUF models by the GGUF naming convention, read and written.

`[<Sidecar>-]<BaseName>-<SizeLabel>[-<FineTune>]-<Version>[-<Encoding>][-<Type>][-<Shard>].gguf`. Runners and the Hub read type and size
from such names, and one that the convention's own expression does not match is taken apart wrongly: a word that begins with a digit (`6e`)
would be read as the size. So words of a recipe's name that cannot be part of a BaseName follow the size, as FineTune.

>>> str(GgufName(base="Mixtral", size="8x7B", version="v0.1", encoding="Q4_K_M"))
'Mixtral-8x7B-v0.1-Q4_K_M.gguf'
>>> str(name_of("tiny-moe-6e", "1.0.0", size="6x1.7M", encoding="F16"))
'tiny-moe-6x1.7M-6e-v1.0-F16.gguf'

Source: ggml docs/gguf.md, "GGUF Naming Convention"; the expression and the cases in tests/stages/test_gguf_name.py are that page's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from stages.errors import InputError
from stages.gguf_file import GgufFile

_FORM = re.compile(
    r"^(?:(?P<sidecar>mmproj|mtp)-)?"
    r"(?P<base>[A-Za-z0-9\s]*(?:(?:-(?:(?:[A-Za-z\s][A-Za-z0-9\s]*)|(?:[0-9\s]*)))*))-"
    r"(?:(?P<size>(?:\d+x)?(?:\d+\.)?\d+[A-Za-z](?:-[A-Za-z]+(\d+\.)?\d+[A-Za-z]+)?)(?:-(?P<fine_tune>[A-Za-z0-9\s-]+))?)?-"
    r"(?:(?P<version>v\d+(?:\.\d+)*))(?:-(?P<encoding>(?!LoRA|vocab)[\w_]+))?(?:-(?P<kind>LoRA|vocab))?(?:-(?P<shard>\d{5}-of-\d{5}))?\.gguf\Z",
    re.ASCII,
)
_SIZE = re.compile(r"(?:\d+x)?(?:\d+\.)?\d+[QTBMK]\Z", re.ASCII)
_BASE_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z|[0-9]+\Z")
_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufName:
    """A name taken apart; parts that are absent are empty.

    Attributes:
        base: BaseName. size: SizeLabel, `8x7B`. version: `v1.0`. fine_tune: FineTune. encoding: `Q4_K_M`.
        kind: Type, `LoRA` or `vocab`. shard: `00001-of-00009`. sidecar: `mmproj` or `mtp`.
    """

    base: str
    size: str
    version: str
    fine_tune: str = ""
    encoding: str = ""
    kind: str = ""
    shard: str = ""
    sidecar: str = ""

    @classmethod
    def parse(cls, filename: str) -> GgufName | None:
        """A file name that follows the convention, taken apart; None of any other."""
        found = _FORM.match(filename)
        return cls(**{name: text or "" for name, text in found.groupdict().items()}) if found else None

    def __str__(self) -> str:
        parts = (self.sidecar, self.base, self.size, self.fine_tune, self.version, self.encoding, self.kind, self.shard)
        return "-".join(part for part in parts if part) + ".gguf"


def name_of(name: str, version: str, *, size: str, encoding: str) -> GgufName:
    """The name of a file that a recipe made.

    Args:
        name: the recipe's, with its variant; whatever is no letter or digit separates words.
        version: the recipe's, `1.0.0`; a patch of 0 is left out, as the convention writes two numbers.
        size: `6x1.7M`.
        encoding: the type, `Q4_K_M`.

    Raises:
        InputError: there is no word that could be a BaseName, or the parts would be read back as others.
    """
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    count = next((number for number, word in enumerate(words) if number and not _BASE_WORD.match(word)), len(words))
    short = version.removesuffix(".0") if version.count(".") == 2 else version
    made = GgufName(
        base="-".join(words[:count]), size=size, fine_tune="-".join(words[count:]), version=f"v{short}", encoding=encoding
    )  # fmt: skip
    if GgufName.parse(str(made)) != made:
        raise InputError(f"no file name by the GGUF naming convention says {name!r}, size {size!r}, version {version!r}, type {encoding!r}")
    return made


def size_label(file: GgufFile) -> str:
    """Parameters of a model as the convention writes them: the file's own `general.size_label`, else counted.

    Of a mixture of experts: their number, and the parameters of the model as if it had one, `6x1.7M`.
    """
    told = file.metadata.get("general.size_label")
    if isinstance(told, str) and _SIZE.match(told):
        return told
    own = [tensor for tensor in file.tensors if tensor.shape]
    expert = sum(prod(tensor.shape) for tensor in own if "_exps" in tensor.name)
    shared = sum(prod(tensor.shape) for tensor in own) - expert
    return f"{file.experts}x{_rounded(shared + expert / file.experts)}" if file.experts and expert else _rounded(shared + expert)


def _rounded(count: float) -> str:
    """At least two digits.

    >>> _rounded(1_690_000), _rounded(46_700_000_000), _rounded(140)
    ('1.7M', '47B', '0.1K')
    """
    scale, letter = next(((scale, letter) for scale, letter in _SCALES if count > scale), _SCALES[-1])
    value = count / scale
    return f"{value:.{1 if round(value) < 10 else 0}f}{letter}"
