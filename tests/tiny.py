"""Tiny random models with real tokenizers, made on the spot: transformers' whole file layout in a second and a megabyte.

The weights are random but not degenerate (routers spread, logits differ), float32, and a function of the seed alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXT = (
    "def add(left, right):\n    return left + right\n\nclass Stack:\n    def push(self, item):\n        self.items.append(item)\n",
    "The river ran slowly past the mill, and nobody on the bridge could say when the wheel had last turned.\n",
    '{"name": "ledger", "version": [1, 0, 2], "entries": {"first": true, "last": null}}\n',
    "for index in range(10):\n    print(index, index * index)\n",
    "In the morning the town was quiet; the market opened late and closed early, as it had all winter long.\n",
    "id,name,price\n1,apple,0.30\n2,pear,0.45\n3,plum,0.25\n",
)
"""What the tokenizer is trained on: code, prose and data."""

SAMPLES = [{"text": text * 3, "domain": domain} for text, domain in zip(TEXT, ["code", "prose", "data"] * 2, strict=True)]
"""A small calibration set of three domains."""


def make_tokenizer(folder: Path, *, vocab: int = 512) -> None:
    """Save a byte-level BPE tokenizer with `<s>` (id 0) and `</s>` (id 1); any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def make_model(
    folder: Path,
    *,
    family: str = "mixtral",
    hidden: int = 64,
    intermediate: int = 64,
    layers: int = 2,
    experts: int = 8,
    top_k: int = 2,
    vocab: int = 512,
    seed: int = 0,
    max_shard_size: str | int = "5GB",
    dtype: str = "float32",
    **config: Any,
) -> Path:
    """Save a random model of a family, with its tokenizer, as `save_pretrained` lays it out.

    Args:
        folder: made if need be.
        family: mixtral, qwen3_moe, olmoe, phimoe, granitemoe, deepseek_v2 or deepseek_v3 (first layer dense, one shared expert).
        hidden: size of the stream between layers.
        intermediate: size inside each expert.
        layers: decoder layers.
        experts: per layer.
        top_k: experts per token.
        vocab: tokens.
        seed: of the weights.
        dtype: of the stored weights.
        max_shard_size: smaller than the model gives several shards and an index.
        config: further fields of the family's config; they win.

    Returns:
        The folder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts_per_tok": top_k,
        "max_position_embeddings": 2048,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    if family in ("mixtral", "phimoe", "granitemoe"):
        fields |= {"intermediate_size": intermediate, "num_local_experts": experts}
    elif family == "qwen3_moe":
        fields |= {"intermediate_size": 2 * intermediate, "moe_intermediate_size": intermediate, "num_experts": experts}
        fields |= {"head_dim": hidden // 4, "norm_topk_prob": True}
    elif family == "olmoe":
        fields |= {"intermediate_size": intermediate, "num_experts": experts}
    elif family in ("deepseek_v2", "deepseek_v3"):
        fields |= {"intermediate_size": 2 * intermediate, "moe_intermediate_size": intermediate, "n_routed_experts": experts}
        fields |= {"first_k_dense_replace": 1, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4}
        fields |= {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
    else:
        raise ValueError(f"make_model knows no family {family!r}")
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(fields | config)), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.dim() > 1:
                scale = 1.0 if name.endswith(("gate.weight", "lm_head.weight")) or "router" in name else 3.0
                parameter.normal_(0.0, scale / parameter.shape[-1] ** 0.5, generator=generator)
        for name, buffer in sorted(model.named_buffers()):
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(0.0, 0.1, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    make_tokenizer(folder, vocab=vocab)
    return folder


def corpus(samples: list[dict[str, str]]) -> bytes:
    """A calibration set as JSON lines."""
    return "".join(json.dumps(sample) + "\n" for sample in samples).encode()


def change_tensor(folder: Path, name: str, change: Any) -> None:
    """Change (or, where `change` gives None, remove) one tensor of a single-file model."""
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "model.safetensors")
    changed = change(arrays.pop(name))
    save_file(arrays if changed is None else arrays | {name: changed}, folder / "model.safetensors", {"format": "pt"})
