"""The target of a bridge, loaded once for all leaves of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages import hf_model
from stages.bridges.spec import BridgeSpec
from stages.hf_model import LoadIn
from stages.stage import Context
from store.digest import Digest

if TYPE_CHECKING:
    from stages.bridges.target import BridgedTarget


def target(digest: Digest, spec: BridgeSpec, load_in: LoadIn, context: Context) -> BridgedTarget:
    """The model, frozen, to take bridges of a spec.

    Raises:
        InputError: it does not load. SpecError: the spec does not fit it.
    """
    from stages.bridges.target import BridgedTarget

    key = f"bridge-target:{digest}:{load_in}"
    if key not in context.memo:
        context.memo[key] = hf_model.load(context.folder(digest), load_in)[0]
    return BridgedTarget(context.memo[key], spec)
