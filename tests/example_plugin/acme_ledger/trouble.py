"""A leaf that fails in the way its spec asks for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stages.errors import InputError
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What goes wrong."""

    kind: Literal["killed", "input", "bug", "memory", "slow", "undeclared"]


STAGE = Leaf(
    name="acme-trouble", version=1, spec=Trouble, inputs=("text",), outputs=("text",), purity="P", run="acme_ledger.trouble:run"
)  # fmt: skip


def run(spec: Trouble, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Fail."""
    match spec.kind:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "input":
            raise InputError("line 1 is not what it claims to be")
        case "bug":
            raise RuntimeError("an unforeseen fault")
        case "memory":
            raise MemoryError
        case "slow":
            time.sleep(1.0)
    name = "surprise" if spec.kind == "undeclared" else "text"
    return Outcome({name: context.store.put(b"late")})
