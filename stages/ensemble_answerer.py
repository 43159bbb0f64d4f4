"""An ensemble's tree as an `stages.questions.Answerer`: its members read byte by byte, and combined at every byte.

An ensemble of one is that member: every rule of one member gives its row as it is, so `ByteLm` answers itself, to the last bit.
Baselines that read tokens (`Combiner.answerer`) answer for themselves, also of one member. Members are in memory together, or one after
another where `Context.memory_bytes` is too little for all: the answers are the same.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from stages import ensemble_tree
from stages.ensemble_tree import EnsembleConfig
from stages.errors import InputError
from stages.hf_model import LoadIn
from stages.questions import Answerer
from stages.stage import Context
from store.digest import Digest

_GIB = 2**30


def load(model: Digest, context: Context, load_in: LoadIn) -> Answerer:
    """The answerer of an ensemble; no member is loaded before all are known to be those that it names.

    Raises:
        InputError: a member is another than the ensemble says, does not load, cannot be read byte by byte, or alone exceeds the limit of
            memory.
        PluginError, SpecError: a combiner that is not installed, or does not have these settings.
    """
    from stages.byte_lm import byte_lm
    from stages.byte_lm.ensemble import Ensemble
    from stages.byte_lm.in_turn import InTurnEnsemble
    from stages.combiners.combiner import find, read

    config = ensemble_tree.checked(context.store, model)
    place = context.folder(model)
    folders = {member.name: place / ensemble_tree.folder(member.name) for member in config.members}
    together = fits(config, folders, load_in, context.memory_bytes)
    combiner, settings = read(config.combiner, config.settings)
    if combiner.answerer is not None:
        if not together:
            raise InputError(
                f"combiner {config.combiner} reads all members at every step, and they do not fit into memory together: raise vramGb, "
                "or take a combiner that reads bytes"
            )
        return combiner.answerer(settings, tuple(folders.values()), load_in)
    rule = find(config.combiner, config.settings, len(config.members))
    loaders = [partial(byte_lm.load, folder, load_in, tolerance=config.tolerance) for folder in folders.values()]
    if len(loaders) == 1:
        return loaders[0]()
    if not together:
        context.note("members_in_memory", "one after another")
        return InTurnEnsemble(loaders, rule, tuple(folders))
    return Ensemble([loader() for loader in loaders], rule, skip_below=config.skip_below)


def fits(config: EnsembleConfig, folders: dict[str, Path], load_in: LoadIn, memory_bytes: int | None) -> bool:
    """Whether the weights of all members fit into memory together; a limit only decides how they are loaded.

    Raises:
        InputError: one alone does not, or they do not together and the ensemble leaves members out (`skip_below`), which needs them all.
    """
    from stages.hf_model import held_bytes

    if memory_bytes is None:
        return True
    sizes = {name: held_bytes(folder, load_in) for name, folder in folders.items()}
    large = {name: size for name, size in sizes.items() if size > memory_bytes}
    limit = f"the limit is {memory_bytes / _GIB:.3g} GiB (vramGb in the recipe, or LEDGER_MEMORY_BYTES)"
    if large:
        told = ", ".join(f"{name} ({size / _GIB:.3g} GiB)" for name, size in large.items())
        raise InputError(
            f"{limit}, and the weights of {told} exceed it alone: raise it, load in a smaller type (loadIn), or leave out the member"
        )
    if sum(sizes.values()) <= memory_bytes:
        return True
    if config.skip_below > 0:
        raise InputError(
            f"{limit}, the members' weights are {sum(sizes.values()) / _GIB:.3g} GiB, and one after another none is left out: its answers "
            f"would be those of skip_below 0, not {config.skip_below}. Raise the limit, or make the ensemble with skipBelow 0"
        )
    return False
