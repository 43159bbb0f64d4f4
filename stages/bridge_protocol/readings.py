"""What was read for a bridge, in memory: the target's tokens, the sources' states on the prefixes, and what the controls need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages import bridge_bytes, bridge_texts, hidden_states
from stages.bridge_protocol import held_out
from stages.bridges import target as targets
from stages.bridges.field import Field, align, of_rows, on_target_tokens
from stages.bridges.spec import BridgeSpec
from stages.bridges.target import BridgedTarget
from stages.errors import InputError
from stages.many_worlds import tensor_file


@dataclass(slots=True)
class Text:
    """One text that is used.

    Attributes:
        ids: (T,) the target's tokens, BOS in front where it has one. ends: (T,) bytes read after each.
        prefix_tokens: those that are not scored.
        prefix_bytes, scored_bytes: lengths.
        key, prefix: of text and prefix, 64 bits.
        states: source -> (P, h). source_ends: source -> bytes read after each state.
        prefix_text, handoff, log_probs: of held-out texts only: what was read; source -> what it would write; model -> (prefix_bytes +
            scored_bytes,) log probability of each byte, nats.
    """

    ids: Tensor
    ends: Sequence[int]
    prefix_tokens: int
    prefix_bytes: int
    scored_bytes: int
    key: int
    prefix: int
    domain: str
    held_out: bool
    states: Mapping[str, Tensor]
    source_ends: Mapping[str, Sequence[int]]
    prefix_text: str = ""
    handoff: dict[str, str] = field(default_factory=dict)
    log_probs: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Readings:
    """The texts of a bridge.

    Attributes:
        train, held_out: no text and no prefix is in both, or twice in one.
        left_out: why (short, seam, twice) -> how many texts are not used.
        layers: source -> after how many of its layers its states are.
    """

    train: Sequence[Text]
    held_out: Sequence[Text]
    left_out: Mapping[str, int]
    layers: Mapping[str, int]


def load(folder: Path, sources: Sequence[str], controls: Path | None = None) -> Readings:
    """Read the trees that `bridge-gather` makes.

    Args:
        folder: with the tokens and all the sources' states.
        sources: in order.
        controls: with hand-off texts and byte scores.

    Raises:
        InputError: blocks that do not belong together, or a side without texts.
    """
    texts: list[Text] = []
    left: dict[str, int] = {}
    for path in sorted(folder.glob("tokens-*")):
        file = tensor_file.read(path, bridge_texts.FORM)
        for reason, count in file.head["leftOut"].items():
            left[reason] = left.get(reason, 0) + count
        number = path.name.removeprefix("tokens-")
        texts += _block(file, {name: folder / f"states-{name}-{number}" for name in sources}, controls, number)
    seen: set[int] = set()
    sides: list[list[Text]] = []
    for side in (False, True):  # what training has read is not asked of the evaluation again
        sides.append([])
        for item in texts:
            if item.held_out == side and item.prefix not in seen:
                seen.add(item.prefix)
                sides[-1].append(item)
    for chosen, what in zip(sides, ("training", "held-out"), strict=True):
        if len(chosen) < 2:
            raise InputError(f"{len(chosen)} {what} texts can be used; at least 2 are needed. Take more texts, or another heldoutPercent")
    layers = {name: _layer(sorted(folder.glob(f"states-{name}-[0-9]*"))) for name in sources}
    return Readings(sides[0], sides[1], left | {"twice": len(texts) - len(seen)}, layers)


def _layer(paths: Sequence[Path]) -> int:
    found = {int(tensor_file.read_head(path, hidden_states.FORM)["layer"]) for path in paths}
    if len(found) != 1:
        raise InputError(f"states of {paths[0].name.removesuffix('-00000')} are of different layers: {sorted(found)}")
    return found.pop()


def _block(file: tensor_file.TensorFile, paths: Mapping[str, Path], controls: Path | None, number: str) -> list[Text]:
    columns: dict[str, list[int]] = {name: value.tolist() for name, value in file.tensors.items()}
    count, starts = len(columns["texts"]), columns["starts"]
    states: dict[str, tuple[list[int], list[int], Tensor]] = {}
    for name, path in paths.items():
        found = tensor_file.read(path, hidden_states.FORM)
        if len(found.tensors["texts"]) != count + 1:
            raise InputError(f"the states of {name} are of {len(found.tensors['texts']) - 1} texts; the target has {count} of that block")
        states[name] = (found.tensors["texts"].tolist(), found.tensors["ends"].tolist(), found.tensors["states"])
    texts = []
    for row in range(count):
        own = slice(starts[row], starts[row + 1])
        for name, (at, ends, _) in states.items():
            _refuse_beyond(ends[at[row] : at[row + 1]], columns["prefix_bytes"][row], f"text {row + 1} of block {number}: {name}")
        texts.append(
            Text(
                file.tensors["ids"][own],
                columns["ends"][own],
                columns["prefix_tokens"][row],
                columns["prefix_bytes"][row],
                columns["scored_bytes"][row],
                columns["texts"][row],
                columns["prefixes"][row],
                file.head["domains"][row],
                bool(columns["held_out"][row]),
                {name: values[at[row] : at[row + 1]] for name, (at, _, values) in states.items()},
                {name: ends[at[row] : at[row + 1]] for name, (at, ends, _) in states.items()},
            )
        )
    if controls is not None:
        _add_controls([text for text in texts if text.held_out], controls, number)
    return texts


def _refuse_beyond(ends: Sequence[int], cut: int, who: str) -> None:
    """The protocol, where it matters: states that have seen what is asked are refused, wherever they came from."""
    if max(ends, default=0) > cut:
        raise InputError(f"{who} has read beyond the cut, so its states may hold the answer")


def _add_controls(texts: Sequence[Text], folder: Path, number: str) -> None:
    kept = held_out.read((folder / f"held-out-{number}").read_bytes())
    if len(kept) != len(texts):
        raise InputError(f"{len(kept)} texts of block {number} are for the controls; {len(texts)} are held out")
    for text, item in zip(texts, kept, strict=True):
        text.prefix_text = item.prefix.decode()
    for path in sorted(folder.glob(f"handoff-*-{number}")):
        lines: list[Any] = [json.loads(line) for line in path.read_bytes().splitlines()]
        if len(lines) != len(texts):
            raise InputError(f"{path.name} is of {len(lines)} texts; {len(texts)} of that block are held out")
        for text, line in zip(texts, lines, strict=True):
            text.handoff[path.name.removeprefix("handoff-").removesuffix(f"-{number}")] = line["text"]
    for path in sorted(folder.glob(f"bytes-*-{number}")):
        file = tensor_file.read(path, bridge_bytes.FORM)
        starts = file.tensors["starts"].tolist()
        if len(starts) != len(texts) + 1:
            raise InputError(f"{path.name} is of {len(starts) - 1} texts; {len(texts)} of that block are held out")
        for row, text in enumerate(texts):
            values = file.tensors["log_probs"][starts[row] : starts[row + 1]]
            text.log_probs[path.name.removeprefix("bytes-").removesuffix(f"-{number}")] = values


# --- batches -------------------------------------------------------------------------------------------------------------------


def tokens(texts: Sequence[Text], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """(B, T) ids, padded on the right with 0, and (B, T) bool: which are scored. What stands before these is the prefix."""
    ids = torch.nn.utils.rnn.pad_sequence([text.ids for text in texts], batch_first=True)
    scored = torch.zeros(ids.shape, dtype=torch.bool)
    for row, text in enumerate(texts):
        scored[row, text.prefix_tokens : len(text.ids)] = True
    return ids.to(device), scored.to(device)


def uncertainty(texts: Sequence[Text], target: BridgedTarget) -> Tensor:
    """(B,) of the target after each prefix; it is shown nothing else."""
    lengths = torch.tensor([text.prefix_tokens for text in texts], device=target.device)
    prefixes = torch.nn.utils.rnn.pad_sequence([text.ids[: text.prefix_tokens] for text in texts], batch_first=True)
    return targets.uncertainty(target, prefixes.to(target.device), lengths)


def fields(texts: Sequence[Text], sources: Sequence[str], spec: BridgeSpec, given: Sequence[Text] | None = None) -> list[Field]:
    """What each source says, row by row; `given`: the texts whose states are taken, where they are not the texts themselves.

    A cache bridge has a state for each of the target's tokens of the prefix: the source's last one that has read no more bytes.
    """
    found = []
    for name in sources:
        rows = []
        for text, other in zip(texts, given or texts, strict=True):
            rows.append((text, other.states[name], other.source_ends[name]))
        if spec.inject != "cache":
            found.append(of_rows([states for _, states, _ in rows]))
            continue
        padded = [on_target_tokens(states, align(ends, text.ends[: text.prefix_tokens], hold=True)) for text, states, ends in rows]
        states = torch.nn.utils.rnn.pad_sequence([item for item, _ in padded], batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([item for _, item in padded], batch_first=True)
        found.append(Field(states, mask))
    return found
