"""Who spoke in an answer of several members: what a record keeps of the weights, small enough to stand beside every question.

>>> import numpy as np
>>> found = about(("code", "prose"), [np.array([0.5, 0.5]), np.array([0.9, 0.1]), np.array([0.2, 0.8])])
>>> found["symbols"], found["turns"], found["shares"]["mean"]
(3, [['code', 2], ['prose', 1]], {'code': '0.5333', 'prose': '0.4667'})
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def about(names: Sequence[str], parts: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """What is told of one answer, as JSON.

    Args:
        names: of M members.
        parts: (M,) of every symbol of the answer, each member's part in what was said of it (`stages.combiners.combiner.Rule.parts`);
            of a generation what ended it is one too, the end of the text or the last byte of a stop.

    Returns:
        `symbols`: how many. `shares`: member -> part, decimal text of four decimals, at the `first` symbol (what the prompt has set),
        at the `last`, and the `mean`. `most`: the member of the largest mean. `turns`: [member, symbols] in order, who had the largest
        part; the earlier member where two are alike. An answer of no symbols has `symbols` alone.
    """
    import numpy as np

    if not parts:
        return {"symbols": 0}
    table = np.stack(parts)
    mean = table.mean(axis=0)
    speakers = [int(number) for number in table.argmax(axis=1)]
    return {
        "symbols": len(parts),
        "shares": {"first": _shown(names, table[0]), "last": _shown(names, table[-1]), "mean": _shown(names, mean)},
        "most": names[int(mean.argmax())],
        "turns": [[names[speaker], len(list(turn))] for speaker, turn in groupby(speakers)],
    }


def _shown(names: Sequence[str], parts: NDArray[np.float64]) -> dict[str, str]:
    return {name: f"{float(part):.4f}" for name, part in zip(names, parts, strict=True)}
