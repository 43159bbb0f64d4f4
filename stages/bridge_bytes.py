"""How likely a model holds each byte of each held-out text: its part of the byte ensemble that bridges are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import InputError
from stages.hf_model import LoadIn
from stages.stage import Context, Leaf, Outcome
from store.digest import Digest

FORM = "bridge-bytes/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeBytes:
    """How the model is loaded."""

    load_in: LoadIn = "auto"


STAGE = Leaf(
    name="bridge-bytes",
    version=1,
    spec=BridgeBytes,
    inputs=("model", "held-out"),
    outputs=("bytes",),
    purity="E",
    run="stages.bridge_bytes:run",
    share=("model",),
)


def run(spec: BridgeBytes, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Read each text byte by byte, exactly (docs/ensemble.md): `starts` (N + 1) into `log_probs` (T), nats, of the bytes that came.

    That is enough for every mixture: what it says of the byte that came, and its next weights, depend on no other symbol.

    Raises:
        InputError: the model cannot be read byte by byte, or holds a text for impossible.
    """
    import numpy as np
    import torch

    from stages.bridge_protocol import held_out
    from stages.byte_lm import byte_lm
    from stages.many_worlds import tensor_file

    key = f"bridge-bytes:{inputs['model']}:{spec.load_in}"
    if key not in context.memo:
        context.memo[key] = byte_lm.load(context.folder(inputs["model"]), spec.load_in)
    member: byte_lm.ByteLm = context.memo[key]
    texts = held_out.read(context.store.read(inputs["held-out"]))
    starts, found = [0], []
    for number, text in enumerate(texts):
        rows = member.rows(text.text)
        found.append(rows[np.arange(len(text.text)), np.frombuffer(text.text, np.uint8)])
        starts.append(starts[-1] + len(text.text))
        context.progress(number + 1, len(texts), "texts")
    values = np.concatenate(found) if found else np.zeros(0)
    if not np.isfinite(values).all():
        raise InputError("the model holds a held-out text for impossible; it cannot take part in an ensemble that is scored on it")
    tensors = {"starts": torch.tensor(starts, dtype=torch.int64), "log_probs": torch.from_numpy(values)}
    return Outcome({"bytes": tensor_file.write(context.store, FORM, {}, tensors)})
