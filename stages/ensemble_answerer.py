"""An ensemble's tree as an `stages.questions.Answerer`: its members read byte by byte, and combined at every byte.

An ensemble of one is that member: every rule of one member gives its row as it is, so `ByteLm` answers itself, to the last bit.
Baselines that read tokens (`Combiner.answerer`) answer for themselves, also of one member. All members are in memory together.
"""

from __future__ import annotations

from stages import ensemble_tree
from stages.hf_model import LoadIn
from stages.questions import Answerer
from stages.stage import Context
from store.digest import Digest


def load(model: Digest, context: Context, load_in: LoadIn) -> Answerer:
    """The answerer of an ensemble; no member is loaded before all are known to be those that it names.

    Raises:
        InputError: a member is another than the ensemble says, does not load, or cannot be read byte by byte.
        PluginError, SpecError: a combiner that is not installed, or does not have these settings.
    """
    from stages.byte_lm import byte_lm
    from stages.byte_lm.ensemble import Ensemble
    from stages.combiners.combiner import find, read

    config = ensemble_tree.checked(context.store, model)
    combiner, settings = read(config.combiner, config.settings)
    folders = [context.folder(model) / ensemble_tree.folder(member.name) for member in config.members]
    if combiner.answerer is not None:
        return combiner.answerer(settings, folders, load_in)
    rule = find(config.combiner, config.settings, len(config.members))
    members = [byte_lm.load(folder, load_in, tolerance=config.tolerance) for folder in folders]
    if len(members) == 1:
        return members[0]
    return Ensemble(members, rule, skip_below=config.skip_below)
