"""Put pruned shards together as a model: config.json with the new count, a new index, the other files as they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneAssemble:
    """What decides the bytes besides the inputs."""

    family: str
    """Registered name of the family, as for prune-shard."""


STAGE = Leaf(
    name="prune-assemble",
    version=1,
    spec=PruneAssemble,
    inputs=("model", "plan", "shard-*"),
    outputs=("model",),
    purity="P",
    run="stages.prune_assemble:run",
)


def new_names(count: int) -> list[str]:
    """File names of `count` shards.

    >>> new_names(1), new_names(2)
    (['model.safetensors'], ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'])
    """
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def to_json(value: object) -> bytes:
    """JSON as transformers writes it: two spaces, keys in their order, a newline at the end."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def run(spec: PruneAssemble, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Build the pruned model's tree from `shard-*`, which follow the source's weight files in the order of their names."""
    from stages import plugins
    from stages.expert_select import read_plan
    from stages.families import family as counts
    from stages.tensors import INDEX, entry, read_config, read_shard_header, weight_files
    from store import tree
    from store.tree import Tree, TreeEntry

    store = context.store
    family = plugins.load("families", spec.family)
    source = tree.load(store, inputs["model"])
    plan = read_plan(store.read(inputs["plan"]))
    config = read_config(store, source)
    files = weight_files(source)
    shards = [inputs[name] for name in sorted(inputs) if name.startswith("shard-")]
    if len(shards) != len(files):
        raise InputError(f"the model has {len(files)} weight files and {len(shards)} pruned shards were given: expected one for each")

    headers = [read_shard_header(store, digest, f"pruned {item.path}") for digest, item in zip(shards, files, strict=True)]
    whole = [(digest, header) for digest, header in zip(shards, headers, strict=True) if header.tensors]
    names = new_names(len(whole))
    entries: dict[str, TreeEntry] = {}
    where: dict[str, str] = {}
    for name, (digest, header) in zip(names, whole, strict=True):
        entries[name] = TreeEntry(name, digest, header.size_bytes)
        for item in header.tensors:
            if item.name in where:
                raise InputError(f"tensor {item.name} is in {where[item.name]} and in {name} after pruning")
            where[item.name] = name
    changed = counts.with_expert_count(config, plan.keep)
    if family.beyond_key and type(changed.get(family.beyond_key)) is int:
        dropped = config[family.beyond_key]
        changed[family.beyond_key] = 0
        if dropped:
            context.warn(f"{dropped} multi-token prediction layer(s) were dropped: nothing was measured there")
    family.census(where, changed, plan.keep)

    def add(name: str, data: bytes) -> None:
        entries[name] = TreeEntry(name, store.put(data), len(data))

    add("config.json", to_json(changed))
    if len(names) > 1:
        total = sum(item.size_bytes for _, header in whole for item in header.tensors)
        add(INDEX, to_json({"metadata": {"total_size": total}, "weight_map": {name: where[name] for name in sorted(where)}}))
    old = {item.path for item in files} | {INDEX}
    entries |= {other.path: other for other in source.entries if other.path not in old and other.path not in entries}
    result = Tree.of(entries.values())
    before = sum(item.size for item in files)
    after = sum(header.size_bytes for _, header in whole)
    context.note("weights_bytes_before", before)
    context.note("weights_bytes_after", after)
    context.note("shards_empty", len(shards) - len(whole))
    context.note("tensors", len(where))
    if entry(result, "tokenizer.json") is None and entry(result, "tokenizer.model") is None:
        context.warn("the model has no tokenizer file")
    return Outcome({"model": store.put(result.to_bytes())})
