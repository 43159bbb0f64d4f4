"""A language model run over a tree of token sequences: each token is computed once, whatever sequences go on from it.

All tokens of the tree share one cache of keys and values; a mask shows each token its own ancestors, so one forward pass can hold many
branches. What is no longer needed is dropped from the cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TooLong(InputError):
    """A text of more tokens than the model reads."""


TOLERANCE = 1e-3
"""Logits of a tree and of a plain sequence may differ so much, relative to their spread, before a model is refused."""


class TokenModel:
    """A causal language model of transformers.

    Attributes:
        length: tokens that it can read.
        rows: of its output.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        config = model.config.get_text_config()
        self.rows = int(model.get_output_embeddings().weight.shape[0])
        window = getattr(config, "sliding_window", None)
        lengths = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
        found = [int(item) for item in (*lengths, window) if isinstance(item, int) and item > 0]
        self.length = min(found) if found else 1 << 30
        if getattr(model, "_is_stateful", False):
            raise InputError(f"{type(model).__name__} keeps a state instead of keys and values; branches of a tree cannot share it")
        # transformers renames the argument in one architecture after another
        self.cache_name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        self._check()

    def _check(self) -> None:
        """Compare a small tree with plain sequences: a model that ignores masks or positions must not be used.

        Raises:
            InputError: they differ.
        """
        import numpy as np
        import torch

        first, left, right, last = (number % self.rows for number in (1, 2, 3, 5))
        cache = TokenCache(self)
        cache.forward([first], [0], [[]])
        cache.forward([left, right], [1, 1], [[0], [0]])
        tree = cache.forward([last], [2], [[0, 2]])[0]
        with torch.inference_mode():
            ids = torch.tensor([[first, right, last]], device=self.model.device)
            plain = self.model(input_ids=ids, use_cache=False).logits[0, -1].float().cpu().numpy()
        spread = float(np.max(np.abs(plain))) or 1.0
        limit = TOLERANCE if self.model.dtype is torch.float32 else 30 * TOLERANCE
        difference = float(np.max(np.abs(plain - tree))) / spread
        if not difference <= limit:
            raise InputError(
                f"{type(self.model).__name__} gives other logits in a tree than in a sequence (by {difference:.2g} of their spread): "
                "it does not follow position ids and masks, so it cannot be read byte by byte"
            )


class TokenCache:
    """Keys and values of one tree.

    Attributes:
        columns: tokens in it.
        forwards, tokens: what was computed since it was made, for those who count costs.
    """

    def __init__(self, owner: TokenModel) -> None:
        from transformers import DynamicCache

        self.owner = owner
        self._cache: Any = DynamicCache()
        self.columns = 0
        self.forwards = self.tokens = 0

    def forward(
        self, ids: Sequence[int], positions: Sequence[int], ancestors: Sequence[Sequence[int] | NDArray[np.intp]]
    ) -> NDArray[np.float32]:
        """Compute some tokens; each gets the next column.

        Args:
            ids: tokens, parents first.
            positions: of each in its own sequence.
            ancestors: columns that each one sees, beside its own; those of this call count as well.

        Returns:
            (len(ids), rows) logits of what follows each.

        Raises:
            TooLong: the sequence is longer than the model reads.
            InputError: a logit is not a number.
        """
        import numpy as np
        import torch

        self.refuse(max(positions))
        model, count = self.owner.model, len(ids)
        total = self.columns + count
        seen = np.zeros((count, total), dtype=np.bool_)
        for row, columns in enumerate(ancestors):
            seen[row, np.asarray(columns, dtype=np.intp)] = True
            seen[row, self.columns + row] = True
        mask = torch.zeros((1, 1, count, total), dtype=model.dtype)
        mask.masked_fill_(torch.from_numpy(~seen), torch.finfo(model.dtype).min)
        with torch.inference_mode():
            logits = model(
                input_ids=torch.tensor([list(ids)], device=model.device),
                position_ids=torch.tensor([list(positions)], device=model.device),
                attention_mask=mask.to(model.device),
                use_cache=True,
                **{self.owner.cache_name: self._cache},
            ).logits[0]
        self.columns, self.forwards, self.tokens = total, self.forwards + 1, self.tokens + count
        found: NDArray[np.float32] = logits.float().cpu().numpy()
        if not np.isfinite(found).all():
            raise InputError("the model gives a logit that is not a finite number: its weights hold NaN or infinity, or overflow")
        return found

    def refuse(self, position: int) -> None:
        """Refuse a sequence that is longer than the model reads.

        Raises:
            TooLong: the position is beyond.
        """
        if position >= self.owner.length:
            raise TooLong(f"a text of more than {self.owner.length} tokens is longer than the model reads; give a shorter one")

    def keep(self, columns: Sequence[int]) -> None:
        """Drop all other columns; those kept are numbered anew in the order given."""
        import torch

        index = torch.tensor(list(columns), dtype=torch.long, device=self.owner.model.device)
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys.index_select(-2, index), layer.values.index_select(-2, index)
        self.columns = len(columns)
