"""What pruning needs to know about a family of models: the names of expert and router tensors on disk, the config keys that count them.

A family is data. A plug-in registers one in the group `alloy_ledger.families`:

    FAMILY = Family(
        name="my-moe",
        model_types=("my_moe",),
        layout="mlp-experts-unfused",
        experts=("model.layers.{layer}.mlp.experts.{expert}.{part}",),
        rows=("model.layers.{layer}.mlp.gate.weight",),
    )

Templates: `{layer}` and `{expert}` are decimal numbers, `{part}` is the rest of the name, so that scales and zero points of a quantised
expert go where its weights go. Names are those of safetensors files, which transformers keeps stable, never those of modules in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from stages import plugins
from stages.errors import InputError, PluginError

EXPERT_COUNT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
TOP_K_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")


class Role(Enum):
    """What happens to a tensor when experts are dropped."""

    EXPERT = "expert"
    """Belongs to one expert: dropped or renumbered."""
    ROWS = "rows"
    """One row of axis 0 per expert (router, its biases, stacked experts): sliced."""
    BEYOND = "beyond"
    """Of a layer after the last one that runs (multi-token prediction): nothing was measured there, so it is dropped."""
    VERBATIM = "verbatim"
    """Everything else."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor belongs: its role, and the numbers in its name (-1 where there is none)."""

    role: Role
    layer: int = -1
    expert: int = -1
    part: str = ""


def every_layer(config: Mapping[str, Any]) -> Iterable[int]:
    """All decoder layers have experts."""
    return range(int(config["num_hidden_layers"]))


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family.

    Attributes:
        name: as registered; recorded in specs.
        model_types: `model_type` values of config.json that it answers for.
        layout: the name of the tensor layout in recipes (`mlp-experts-unfused`, ...).
        experts: templates of tensors that belong to one expert.
        rows: templates of tensors with one row per expert on axis 0 that every layer with experts must have.
        optional_rows: the same, where a model may lack them (biases).
        moe_layers: config -> numbers of the layers that have experts.
        beyond_key: config key that counts further layers after the last (multi-token prediction), set to 0 when those are dropped.
    """

    name: str
    model_types: tuple[str, ...]
    layout: str
    experts: tuple[str, ...] = ()
    rows: tuple[str, ...]
    optional_rows: tuple[str, ...] = ()
    moe_layers: Callable[[Mapping[str, Any]], Iterable[int]] = every_layer
    beyond_key: str = ""

    @cached_property
    def _patterns(self) -> tuple[tuple[Role, re.Pattern[str]], ...]:
        expert = tuple((Role.EXPERT, _compile(text)) for text in self.experts)
        return expert + tuple((Role.ROWS, _compile(text)) for text in (*self.rows, *self.optional_rows))

    def place(self, name: str, config: Mapping[str, Any]) -> Place:
        """Where a tensor of a safetensors file belongs.

        Args:
            name: the tensor's.
            config: config.json, parsed.
        """
        text = text_config(config)
        beyond = re.match(r"(?:model\.)?layers\.(\d+)\.", name)
        if self.beyond_key and beyond and int(beyond.group(1)) >= int(text["num_hidden_layers"]):
            return Place(Role.BEYOND, int(beyond.group(1)))
        for role, pattern in self._patterns:
            found = pattern.fullmatch(name)
            if found:
                groups = found.groupdict()
                return Place(role, int(groups["layer"]), int(groups.get("expert") or -1), groups.get("part") or pattern.pattern)
        return Place(Role.VERBATIM)

    def rename(self, name: str, place: Place, expert: int) -> str:
        """The tensor's name when its expert gets another number."""
        for role, pattern in self._patterns:
            found = pattern.fullmatch(name) if role is Role.EXPERT else None
            if found:
                start, stop = found.span("expert")
                return f"{name[:start]}{expert}{name[stop:]}"
        raise InputError(f"tensor {name!r} belongs to no expert of family {self.name} (it was placed as {place.role.value})")

    def layers(self, config: Mapping[str, Any]) -> tuple[int, ...]:
        """Numbers of the layers that have experts, ascending."""
        return tuple(sorted(self.moe_layers(text_config(config))))

    def census(self, names: Iterable[str], config: Mapping[str, Any], experts: int) -> None:
        """Check that every layer with experts has its router and `experts` complete experts, and that no other layer has any.

        Args:
            names: all tensors of a model.
            config: config.json, parsed.
            experts: how many each layer must have.

        Raises:
            InputError: all that is missing or too much, together.
        """
        parts: dict[int, dict[int, set[str]]] = {}
        rows: dict[int, set[str]] = {}
        for name in names:
            place = self.place(name, config)
            if place.role is Role.EXPERT:
                parts.setdefault(place.layer, {}).setdefault(place.expert, set()).add(place.part)
            elif place.role is Role.ROWS:
                rows.setdefault(place.layer, set()).add(place.part)
        faults: list[str] = []
        expected = self.layers(config)
        for layer in sorted({*parts, *rows} - set(expected)):
            faults.append(f"layer {layer} has experts, which config.json says it has not")
        for layer in expected:
            for template in self.rows:
                if _compile(template).pattern not in rows.get(layer, set()):
                    faults.append(f"{template.format(layer=layer)} is missing")
            if not self.experts:
                continue
            held = parts.get(layer, {})
            whole = set().union(*held.values()) if held else set()
            if not whole:
                faults.append(f"layer {layer} has no expert at all ({self.experts[0].format(layer=layer, expert=0, part='..')})")
                continue
            for expert in range(experts):
                for part in sorted(whole - held.get(expert, set())):
                    faults.append(f"layer {layer}: expert {expert} lacks {part}")
            for expert in sorted(number for number in held if number >= experts):
                faults.append(f"layer {layer}: has an expert {expert}, but config.json says {experts} (0 to {experts - 1})")
        if faults:
            shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
            raise InputError(
                f"the model is not complete for family {self.name}: {shown}. Download it again, or its config.json belongs to another model"
            )


def _compile(template: str) -> re.Pattern[str]:
    text = re.escape(template).replace(r"\{layer\}", r"(?P<layer>0|[1-9]\d*)").replace(r"\{expert\}", r"(?P<expert>0|[1-9]\d*)")
    return re.compile(text.replace(r"\{part\}", r"(?P<part>.+)"))


# --- config.json -----------------------------------------------------------------------------------------------------------------


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that describes the language model: itself, or its `text_config` for a model with further modalities."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) and any(key in inner for key in EXPERT_COUNT_KEYS) else config


def expert_count(config: Mapping[str, Any]) -> int:
    """Experts of each layer.

    Raises:
        InputError: config.json has no such count, or two that differ.
    """
    return _count(config, EXPERT_COUNT_KEYS, "how many experts a layer has")


def top_k(config: Mapping[str, Any]) -> int:
    """Experts that the router picks for each token.

    Raises:
        InputError: config.json does not say.
    """
    return _count(config, TOP_K_KEYS, "how many experts a token gets")


def groups(config: Mapping[str, Any]) -> int:
    """Groups of consecutive experts among which the router first chooses (DeepSeek's `n_group`); 1 where there are none."""
    value = text_config(config).get("n_group")
    return value if type(value) is int and value > 1 else 1


def _count(config: Mapping[str, Any], keys: tuple[str, ...], what: str) -> int:
    text = text_config(config)
    found = {key: text[key] for key in keys if type(text.get(key)) is int}
    if not found:
        raise InputError(f"config.json does not say {what} (none of {', '.join(keys)}): is it a mixture of experts?")
    if len(set(found.values())) > 1:
        raise InputError(f"config.json contradicts itself about {what}: {found}")
    return int(next(iter(found.values())))


def with_expert_count(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The config with every key that counts routed experts set, at the top level and in `text_config`; the order of keys stays."""
    changed: dict[str, Any] = {key: count if key in EXPERT_COUNT_KEYS and type(value) is int else value for key, value in config.items()}
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        changed["text_config"] = with_expert_count(inner, count)
    return changed


def find(config: Mapping[str, Any]) -> Family:
    """The registered family of a model, by the `model_type` of its config.json (or of its `text_config`).

    Raises:
        PluginError: no registered family answers for it; the known ones are listed.
    """
    wanted = [value for value in (text_config(config).get("model_type"), config.get("model_type")) if isinstance(value, str)]
    known: list[str] = []
    for name in plugins.names("families"):
        family = plugins.load("families", name)
        if not isinstance(family, Family):
            raise PluginError(f"family {name!r} is a {type(family).__name__}; it must be a stages.families.Family")
        known += family.model_types
        if any(item in family.model_types for item in wanted):
            return family
    raise PluginError(
        f"no family for model_type {wanted[0] if wanted else None!r} (architectures: {config.get('architectures')}). "
        f"Known: {', '.join(sorted(known))}. A package can add one: see stages/families/family.py"
    )
