"""The profile: what each expert did on a calibration set, as sums from which every saliency follows. Bytes: docs/formats/profile.md.

Let X_e be the tokens whose top-k contains expert e in one layer, w the combine weight that the model really used, y the
expert's output before that weight, and n = ||y||_2. For every block of samples, domain, layer and expert the profile holds

    count           N = |X_e|
    weight          sum w              weight_norm     sum w n
    norm            sum n              norm_sq         sum n^2
    weight_norm_sq  sum (w n)^2        output          sum y (over all blocks)

Profiles merge by putting their blocks behind one another and adding `output`, so merging is associative, a superset of a calibration set
shares its blocks, and a bootstrap over blocks of sequences needs nothing else. All arrays are float64; all sums run in a fixed order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stages.errors import InputError, SpecError
from stages.safetensors_file import Header, header_bytes, place, read_header
from store import canonical
from store.errors import CanonicalError

if TYPE_CHECKING:
    from store.cas import Cas, Writer
    from store.digest import Digest

METRICS = ("count", "weight", "norm", "weight_norm", "norm_sq", "weight_norm_sq")
"""Sums per block, domain, layer and expert, in the order of the file."""

TYPE = "expert-profile/v1"
_KEY = "profile"
_FLOAT = np.dtype("<f8")
_STEP_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a profile is of.

    Attributes:
        model: digest of the model tree, as text.
        dtype: of the weights in memory during the forward passes.
        max_length: tokens after which a sample was cut.
        layers: numbers of the decoder layers with experts, ascending.
        experts, top_k, hidden: E, k and d of those layers.
        domains: sorted.
        blocks: B, blocks of samples.
    """

    model: str
    dtype: str
    max_length: int
    layers: tuple[int, ...]
    experts: int
    top_k: int
    hidden: int
    domains: tuple[str, ...]
    blocks: int

    def to_json(self) -> dict[str, Any]:
        """The JSON object in the file's metadata."""
        value: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return value | {"type": TYPE, "layers": list(self.layers), "domains": list(self.domains)}

    @classmethod
    def from_json(cls, value: Any) -> About:
        """Read back what `to_json` gave.

        Raises:
            InputError: a field is missing, unknown or of another kind.
        """
        if not isinstance(value, dict) or value.get("type") != TYPE or set(value) != {"type", *cls.__dataclass_fields__}:
            raise InputError(f"not a profile: expected the type {TYPE} and the fields {', '.join(cls.__dataclass_fields__)}")
        numbers = {name: value[name] for name in ("max_length", "experts", "top_k", "hidden", "blocks")}
        lists_fit = (
            isinstance(value["layers"], list)
            and isinstance(value["domains"], list)
            and all(type(item) is int and item >= 0 for item in value["layers"])
            and all(isinstance(item, str) for item in value["domains"])
            and value["layers"] == sorted(set(value["layers"]))
            and value["domains"] == sorted(set(value["domains"]))
        )
        texts_fit = isinstance(value["model"], str) and isinstance(value["dtype"], str)
        if not (lists_fit and texts_fit and all(type(item) is int and item > 0 for item in numbers.values())):
            raise InputError("a profile's metadata has a field of the wrong kind")
        return cls(model=value["model"], dtype=value["dtype"], layers=tuple(value["layers"]), domains=tuple(value["domains"]), **numbers)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Array name -> shape, in the order of the file."""
        sums = (self.blocks, len(self.domains), len(self.layers), self.experts)
        shapes: dict[str, tuple[int, ...]] = {"samples": sums[:2], "tokens": sums[:2]}
        shapes |= dict.fromkeys(METRICS, sums)
        return shapes | {"output": (len(self.domains), len(self.layers), self.experts, self.hidden)}


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile without its `output` sums, which are read when asked for.

    Attributes:
        samples, tokens: (B, D) counts per block and domain.
        sums: metric -> (B, D, L, E) float64.
    """

    about: About
    samples: NDArray[np.float64]
    tokens: NDArray[np.float64]
    sums: Mapping[str, NDArray[np.float64]]

    def total(self, metric: str, layer: int) -> NDArray[np.float64]:
        """(E,) a sum over all blocks and domains of one layer, added block by block and domain by domain.

        Args:
            metric: one of METRICS.
            layer: number of the decoder layer.

        Raises:
            SpecError: the profile has no such layer.
        """
        if layer not in self.about.layers:
            raise SpecError(f"the profile has no layer {layer}; it has {', '.join(map(str, self.about.layers))}")
        rows = self.sums[metric][:, :, self.about.layers.index(layer), :].reshape(-1, self.about.experts)
        result = np.zeros(self.about.experts, dtype=np.float64)
        for row in rows:
            result = result + row
        return result

    def mean(self, metric: str, layer: int) -> NDArray[np.float64]:
        """(E,) `total` per routed token; 0 for an expert that no token reached."""
        count = self.total("count", layer)
        return np.divide(self.total(metric, layer), count, out=np.zeros_like(count), where=count > 0)


def write(
    about: About,
    counts: tuple[NDArray[np.float64], NDArray[np.float64]],
    sums: Mapping[str, NDArray[np.float64]],
    outputs: Iterator[NDArray[np.float64]],
    writer: Writer,
) -> None:
    """Write a profile.

    Args:
        about: what it is of; decides all shapes.
        counts: samples and tokens, (B, D) each.
        sums: metric -> (B, D, L, E).
        outputs: the bytes of `output` in order, in pieces of any length.
        writer: where to.
    """
    shapes = about.shapes
    layout = place((name, "F64", shape) for name, shape in shapes.items())
    writer.write(header_bytes(layout, {_KEY: canonical.dumps(about.to_json()).decode()}))
    for name, array in {"samples": counts[0], "tokens": counts[1], **{metric: sums[metric] for metric in METRICS}}.items():
        if array.shape != shapes[name]:
            raise SpecError(f"{name} has the shape {array.shape}; expected {shapes[name]}")
        writer.write(np.ascontiguousarray(array, dtype=_FLOAT).tobytes())
    written = 0
    for piece in outputs:
        written += piece.size
        writer.write(np.ascontiguousarray(piece, dtype=_FLOAT).tobytes())
    expected = int(np.prod(shapes["output"]))
    if written != expected:
        raise SpecError(f"output has {written} numbers; expected {expected}")


def read(file: BinaryIO, name: str, size: int) -> Profile:
    """Read a profile without its `output` sums.

    Args:
        file: seekable.
        name: what to call it in messages.
        size: bytes in the file.

    Raises:
        InputError: it is no profile, or it holds a number that no forward pass gives (NaN, infinity, a negative or broken count).
    """
    about, header = _open(file, name, size)
    arrays = {item: _array(file, header, item, about.shapes[item]) for item in about.shapes if item != "output"}
    for item, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(
                f"profile {name}: {item} holds NaN or infinity{_where(about, array)}. Profile again from weights that are finite"
            )
        counts = item in ("samples", "tokens", "count")
        if (array < 0).any() and item not in ("weight", "weight_norm"):
            raise InputError(f"profile {name}: {item} holds a negative number")
        if counts and (array != np.floor(array)).any():
            raise InputError(f"profile {name}: {item} holds a number that is no count")
    return Profile(about, arrays["samples"], arrays["tokens"], {metric: arrays[metric] for metric in METRICS})


def output_sums(file: BinaryIO, name: str, size: int, layer: int) -> NDArray[np.float64]:
    """(D, E, d) sums of the unweighted outputs of one layer's experts, per domain.

    Args:
        file: a profile.
        name: what to call it in messages.
        size: bytes in the file.
        layer: number of the decoder layer.

    Raises:
        InputError: it is no profile. SpecError: it has no such layer.
    """
    about, header = _open(file, name, size)
    if layer not in about.layers:
        raise SpecError(f"profile {name} has no layer {layer}; it has {', '.join(map(str, about.layers))}")
    per_layer = about.experts * about.hidden
    pieces = [
        _floats(file, header, (domain * len(about.layers) + about.layers.index(layer)) * per_layer, per_layer)
        for domain in range(len(about.domains))
    ]
    return np.stack(pieces).reshape(len(about.domains), about.experts, about.hidden)


def _where(about: About, array: NDArray[np.float64]) -> str:
    if array.ndim != 4:
        return ""
    _, domain, layer, expert = (int(item) for item in np.argwhere(~np.isfinite(array))[0])
    return f" (layer {about.layers[layer]}, expert {expert}, domain {about.domains[domain]})"


def _open(file: BinaryIO, name: str, size: int) -> tuple[About, Header]:
    header = read_header(file, name, size)
    try:
        about = About.from_json(canonical.loads(header.metadata.get(_KEY, "null").encode()))
    except CanonicalError as error:
        raise InputError(f"profile {name}: its metadata is not JSON: {error}") from error
    found = {item.name: (item.dtype, item.shape) for item in header.tensors}
    expected = {item: ("F64", shape) for item, shape in about.shapes.items()}
    if found != expected:
        raise InputError(f"profile {name}: holds {found}; its metadata says {expected}")
    return about, header


def _array(file: BinaryIO, header: Header, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    item = header.by_name[name]
    file.seek(header.data_start + item.start)
    return np.frombuffer(file.read(item.size_bytes), dtype=_FLOAT).reshape(shape).astype(np.float64)


def _floats(file: BinaryIO, header: Header, first: int, count: int) -> NDArray[np.float64]:
    file.seek(header.data_start + header.by_name["output"].start + 8 * first)
    return np.frombuffer(file.read(8 * count), dtype=_FLOAT).astype(np.float64)


# --- merging ---------------------------------------------------------------------------------------------------------------------


def merge(store: Cas, digests: Sequence[Digest], writer: Writer) -> About:
    """Put profiles behind one another.

    Blocks keep their order; `output` is added in the order given, a stretch at a time, so memory does not depend on the model.
    Merging one profile gives its own bytes; bracketing changes `output` by rounding alone and everything else not at all.

    Args:
        store: where the profiles are.
        digests: at least one.
        writer: where the merged profile goes.

    Raises:
        InputError: they are of different models or settings.
    """
    if not digests:
        raise InputError("nothing to merge: no profile was given")
    parts = []
    for digest in digests:
        with store.open(digest) as file:
            parts.append(read(file, digest.short, store.size(digest)))
    first = parts[0].about
    for digest, part in zip(digests, parts, strict=True):
        for field in ("model", "dtype", "max_length", "layers", "experts", "top_k", "hidden"):
            if getattr(part.about, field) != getattr(first, field):
                raise InputError(
                    f"profile {digest.short} has {field} {getattr(part.about, field)}, {digests[0].short} has {getattr(first, field)}: "
                    "only profiles of one model and one setting merge"
                )
    domains = tuple(sorted({domain for part in parts for domain in part.about.domains}))
    about = replace(first, domains=domains, blocks=sum(part.about.blocks for part in parts))
    arrays = {name: np.zeros(shape) for name, shape in about.shapes.items() if name != "output"}
    row = 0
    for part in parts:
        columns = [domains.index(domain) for domain in part.about.domains]
        rows = slice(row, row + part.about.blocks)
        arrays["samples"][rows, columns] = part.samples
        arrays["tokens"][rows, columns] = part.tokens
        for metric in METRICS:
            arrays[metric][rows, columns] = part.sums[metric]
        row += part.about.blocks
    counts = (arrays["samples"], arrays["tokens"])
    write(about, counts, {name: arrays[name] for name in METRICS}, _added(store, digests, parts, about), writer)
    return about


def _added(store: Cas, digests: Sequence[Digest], parts: Sequence[Profile], about: About) -> Iterator[NDArray[np.float64]]:
    whole = len(about.layers) * about.experts * about.hidden
    step = min(whole, _STEP_BYTES // 8)
    for domain in about.domains:
        for start in range(0, whole, step):
            count = min(step, whole - start)
            result: NDArray[np.float64] | None = None
            for digest, part in zip(digests, parts, strict=True):
                if domain not in part.about.domains:
                    continue
                with contextlib.closing(store.open(digest)) as file:
                    _, header = _open(file, digest.short, store.size(digest))
                    piece = _floats(file, header, part.about.domains.index(domain) * whole + start, count)
                result = piece if result is None else result + piece
            yield np.zeros(count) if result is None else result
