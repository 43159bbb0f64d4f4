"""An ensemble as a causal language model of transformers over bytes: `from_pretrained`, `forward`, `generate`, `save_pretrained`.

    model = AvengersModel.from_pretrained(folder_or_hub_id)
    model.generate_text("Question: 7 times 8?\\nAnswer:", max_new_tokens=40, stop=["\\n"])

Its tokens are bytes (`stages.avengers.tokenization_avengers`), its logits the exact log probabilities of the next byte. Members are frozen:
there are no gradients. See docs/avengers.md.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation import GenerateDecoderOnlyOutput
from transformers.modeling_outputs import CausalLMOutput

from ledger.hf_hub import HfHub
from ledger.hub import is_commit
from ledger.locator import is_repository
from stages import ensemble_tree, hub_model
from stages.avengers import members
from stages.avengers.configuration_avengers import AvengersConfig
from stages.avengers.members import Source
from stages.byte_lm import byte_lm, in_turn
from stages.byte_lm.byte_lm import ByteLm
from stages.byte_lm.ensemble import Ensemble, Pick, Watch, combine, greedy, sampler
from stages.byte_lm.vocabulary import END, SYMBOLS
from stages.combiners.combiner import check, find
from stages.ensemble_tree import CONFIG, FOLDER, EnsembleConfig, Member
from stages.errors import InputError, SpecError
from stages.hf_model import LoadIn, held_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NO_EFFECT = ("_from_auto", "adapter_kwargs", "low_cpu_mem_usage", "trust_remote_code", "use_safetensors")
"""Arguments of `from_pretrained` that change nothing here, whatever they say."""
_NEUTRAL = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "top_p": 1.0,
    "top_k": 0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
}
"""Settings of a generation that change nothing with these values."""
_KNOWN = (
    *("max_length", "max_new_tokens", "do_sample", "temperature", "stop_strings", "num_return_sequences", "return_dict_in_generate"),
    *("eos_token_id", "pad_token_id", "bos_token_id", "use_cache", "cache_implementation", "transformers_version", "disable_compile"),
    *("assistant_confidence_threshold", "num_assistant_tokens", "num_assistant_tokens_schedule", "remove_invalid_values"),
)


@dataclass(frozen=True)
class _Loader:
    """Loads one member."""

    member: Member
    folder: Path
    load_in: LoadIn
    tolerance: float
    device: torch.device

    def __call__(self) -> ByteLm:
        found = byte_lm.load(self.folder, self.load_in, tolerance=self.tolerance)
        found.name = self.member.name
        found.model.model.to(self.device)
        return found


class AvengersModel(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Several models that speak as one.

    Attributes:
        source: the verified ensemble: its config and its members' folders.
        loading: `joint`: all members are in memory. `sequential`: one at a time, for the same text and logits.
    """

    config_class = AvengersConfig
    main_input_name = "input_ids"
    base_model_prefix = ""

    def __init__(
        self, config: AvengersConfig, *, source: Source | None = None, loaders: Sequence[_Loader] = (), loading: str = "joint"
    ) -> None:
        if source is None:
            raise SpecError("an ensemble is nothing without its members: load it with AvengersModel.from_pretrained(folder or Hub id)")
        super().__init__(config)
        self.source, self.loading = source, loading
        self._loaders = tuple(loaders)
        self._device = self._loaders[0].device
        self._rule = find(source.config.combiner, source.config.settings, len(self._loaders))
        self._joint: tuple[ByteLm, ...] = ()
        if loading == "joint":
            self._joint = tuple(load() for load in self._loaders)
            most = [_bytes(lm) for lm in self._joint]
        else:
            most = [_told_once(load) for load in self._loaders]  # what cannot be read is refused now, and not in the middle of a text
        self.members = nn.ModuleList(lm.model.model for lm in self._joint)
        self._ensemble = Ensemble(self._joint, self._rule, skip_below=source.config.skip_below) if self._joint else None
        config.max_position_embeddings = min(most)
        self.generation_config = GenerationConfig.from_dict(json.loads(ensemble_tree.shipped()["generation_config.json"]))
        self.post_init()
        self.eval()

    # --- loading and saving ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: AvengersConfig | None = None,
        revision: str | None = None,
        loading: str | None = None,
        memory_bytes: int | None = None,
        dtype: str | torch.dtype | None = None,
        device_map: Any = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        **kwargs: Any,
    ) -> AvengersModel:
        """Load an ensemble, after all members are known to be those that it names. No file of it is run, and nothing is unpickled.

        Args:
            pretrained_model_name_or_path: a folder, or a repository of the Hub at $HF_ENDPOINT (`org/name`).
            config: as AutoConfig gives it, with `loading` and `memory_bytes` perhaps.
            revision: of the repository; default `main`.
            loading: `joint` or `sequential`; default: sequential where the weights need more than `memory_bytes`, else joint.
            memory_bytes: for the weights.
            dtype: of the weights in memory: a type; `auto`, that of each member's files; default: float32 on a CPU, else `auto`.
            device_map: a device, or {"": device}; default: the GPU, where there is one.
            cache_dir: where members from the Hub are kept (`stages.avengers.members.cache_folder`).
            token: of the Hub; default $HF_TOKEN.
            kwargs: arguments of transformers that change nothing here; others are refused.

        Raises:
            InputError: no ensemble; a member that is another than it says (all are told), does not load, or cannot be read byte by byte.
            SpecError: an argument that is not supported; memory that is too small for one member, or for all of an ensemble that leaves
                members out (`skip_below`), which is loaded jointly or not at all.
            HubError: what is on the Hub cannot be fetched, or is not what the Hub lists.
        """
        unknown = {name: value for name, value in kwargs.items() if value and name not in (*_NO_EFFECT, "local_files_only")}
        if unknown:
            raise SpecError(f"an ensemble is not loaded with {', '.join(f'{name}={value!r}' for name, value in sorted(unknown.items()))}")
        hub = HfHub(token=token if isinstance(token, str) else None)
        cache, where = members.cache_folder(cache_dir), Path(pretrained_model_name_or_path)
        if where.is_dir():
            source = members.from_folder(where, cache, hub)
        elif kwargs.get("local_files_only"):
            raise InputError(f"{where} is no folder here; without the network, give the folder of an ensemble")
        else:
            source = members.from_hub(str(pretrained_model_name_or_path), revision, cache, hub)
        if config is None:
            config = AvengersConfig.from_dict(json.loads(source.config.to_bytes()))
        elif config.ensemble() != source.config:
            raise InputError(f"{where}: the configuration given is of another ensemble than the one that lies there")
        config.name_or_path = str(pretrained_model_name_or_path)
        load_in, device = _load_in(dtype), _device(device_map)
        loaders = [
            _Loader(member, folder, load_in, source.config.tolerance, device)
            for member, folder in zip(source.config.members, source.folders, strict=True)
        ]
        chosen = _loading(loaders, loading or config.loading, config.memory_bytes if memory_bytes is None else memory_bytes)
        if chosen == "sequential" and source.config.skip_below > 0:
            raise SpecError(
                f"one after another no member is left out, and this ensemble leaves out whoever has less than {source.config.skip_below}: "
                "its text could be another. Load it jointly"
            )
        return cls(config, source=source, loaders=loaders, loading=chosen)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *, hub: Mapping[str, str] | None = None, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Write the ensemble's folder: byte for byte the one that it was loaded from.

        Args:
            save_directory: a new or empty folder.
            hub: member -> `org/name@commit`, a repository that has its files: they are not written but fetched, and verified, by whoever
                loads the folder. All other members are written. Default: as it was loaded.
            push_to_hub: not done; upload the folder.
            kwargs: arguments of transformers that would change nothing.

        Raises:
            SpecError: an argument that is not supported; a member that could not be fetched again as it is.
            InputError: the folder is not empty, or a member's files changed after they were loaded.
        """
        unknown = {name: value for name, value in kwargs.items() if value and name not in ("is_main_process", "safe_serialization")}
        if unknown or push_to_hub:
            raise SpecError(f"an ensemble is not saved with {', '.join(sorted(unknown)) or 'push_to_hub'}: save it, then upload the folder")
        target = Path(save_directory)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{target} is not empty: save into a new folder")
        config = self.source.config if hub is None else _on_hub(self.source, hub)
        for member, folder in zip(config.members, self.source.folders, strict=True):
            if member.repo is not None:
                continue
            there = target / FOLDER / member.name
            shutil.copytree(folder, there)
            if members.digest_of(there) != member.digest:
                raise InputError(f"member {member.name}: {folder} changed after it was loaded; {target} is not complete")
        target.mkdir(parents=True, exist_ok=True)
        for name, data in {**ensemble_tree.shipped(), CONFIG: config.to_bytes()}.items():
            (target / name).write_bytes(data)

    # --- what transformers asks of a model ---------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Of the members, and of what is returned."""
        return next((parameter.device for parameter in self.parameters()), self._device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the first member's weights; float32 where they are loaded one after another. Logits are float64."""
        return next((parameter.dtype for parameter in self.parameters()), torch.float32)

    def to(self, *args: Any, **kwargs: Any) -> AvengersModel:
        """Move the members, also those that are loaded later.

        Raises:
            SpecError: another type of weights for members that are loaded later; give it to `from_pretrained`.
        """
        device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None and not self._joint:
            raise SpecError("members are loaded one after another: give dtype to from_pretrained")
        super().to(*args, **kwargs)
        if device is not None:
            self._device = device
            self._loaders = tuple(replace(load, device=device) for load in self._loaders)
        return self

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: each member's are tied when it is loaded."""

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutput | tuple[torch.Tensor, ...]:
        """The distribution of the next byte after every byte.

        Args:
            input_ids: (B, T) bytes; after 256, the end of a text, a new one begins, also where a row begins with it.
            attention_mask: (B, T); where it is 0 nothing is read, wherever that is, and the logits are 0.
            labels: (B, T) for the loss, nats a symbol; -100 is left out. Position t is compared with the logits at t - 1.
            logits_to_keep: the last so many positions, or these; 0: all.
            return_dict: False for a tuple.
            kwargs: what changes nothing (`use_cache`, `position_ids`); a cache or embeddings are refused.

        Returns:
            logits (B, T, 257), float64: natural logarithms of probabilities that sum to 1; -inf where no text in UTF-8 goes on so. Each row
            is what it is alone.

        Raises:
            InputError: a row that no text in UTF-8 begins with, or longer than a member reads.
            SpecError: an argument that is not supported.
        """
        if input_ids is None or kwargs.get("inputs_embeds") is not None:
            raise SpecError("an ensemble reads input_ids; members' embeddings are of different spaces")
        if kwargs.get("past_key_values") is not None:
            raise SpecError("an ensemble reads a text from its beginning; generate keeps the caches of all members by itself")
        rows = _rows(input_ids, attention_mask)
        pieces = [_texts(ids) for _, ids in rows]
        texts = list(dict.fromkeys(text for found in pieces for text, _ in found))
        known = dict(zip(texts, self._distributions(texts), strict=True))
        logits = np.zeros((*input_ids.shape, SYMBOLS))
        for number, ((places, _), found) in enumerate(zip(rows, pieces, strict=True)):
            told = [known[text][counts] for text, counts in found]
            if told:
                logits[number, places] = np.concatenate(told)
        tensor = torch.from_numpy(logits).to(self.device)
        loss = None
        if labels is not None:
            compared = labels[:, 1:].to(tensor.device)
            loss = nn.functional.nll_loss(tensor[:, :-1].reshape(-1, SYMBOLS), compared.reshape(-1), ignore_index=-100)
        if isinstance(logits_to_keep, torch.Tensor):
            tensor = tensor[:, logits_to_keep]
        elif logits_to_keep:
            tensor = tensor[:, -logits_to_keep:]
        if return_dict is False:
            return (tensor,) if loss is None else (loss, tensor)
        return CausalLMOutput(loss=loss, logits=tensor)

    def _distributions(self, texts: Sequence[bytes]) -> list[NDArray[np.float64]]:
        """(n + 1, 257) log probabilities of each text, from its beginning to its end; a member is loaded once for all of them."""
        if len(self._joint) == 1:
            return [self._joint[0].rows(text) for text in texts]
        if self._joint:
            parts = [np.stack([lm.rows(text) for lm in self._joint], axis=1) for text in texts]
        else:
            parts = in_turn.score(self._loaders, texts)
        awake, mixed = np.ones(len(self._loaders), dtype=np.bool_), []
        for text, part in zip(texts, parts, strict=True):
            found, _, state = combine(self._rule, self._rule.start(), part[:-1], text)
            check(self._rule, state)
            mixed.append(np.concatenate([found, self._rule.combine(state, part[-1], awake)[None]]))
        return mixed

    # --- text --------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        stopping_criteria: Sequence[Callable[..., Any]] | None = None,
        *,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor | GenerateDecoderOnlyOutput:
        """Go on with each row, greedily or drawn, as `stages.byte_lm.ensemble` does: ahead by several bytes, the same text as byte by byte.

        Args:
            inputs: (B, T) as `forward`'s `input_ids`, which is another name for it; a row may be padded on both sides.
            generation_config: default: 200 new bytes, greedy.
            stopping_criteria: called with one row (1, T + n) after each byte, without scores.
            input_ids: see `inputs`.
            attention_mask: as in `forward`.
            seed: of draws; row i draws with seed + i. Default: from torch's generator (`torch.manual_seed`).
            kwargs: settings of a GenerationConfig: max_new_tokens, max_length, do_sample, temperature, stop_strings, eos_token_id (besides
                256: a byte after which to stop), pad_token_id, num_return_sequences, return_dict_in_generate. What would change a text and
                is not supported (beams, top_k, penalties) is refused.

        Returns:
            (B, T + n) the rows as given, each with what was generated: stops included, then 256 where the ensemble ended the text, then
            padding.

        Raises:
            InputError: a prompt that no text in UTF-8 begins with, or longer than a member reads.
            SpecError: a setting that is not supported.
        """
        given = inputs if input_ids is None else input_ids
        if given is None or (inputs is not None and input_ids is not None):
            raise SpecError(
                "generate needs inputs (or input_ids) once: the bytes of each prompt; for an empty one, its end of the text before, 256"
            )
        settings = _settings(self.generation_config if generation_config is None else generation_config, kwargs)
        most = _most(settings, kwargs, given.shape[1])
        # lm-eval's criteria count on the whole batch going on in step; they are taken by the text that they look for.
        sought = {item: getattr(item, "sequence", None) for item in stopping_criteria or ()}
        criteria = [item for item, text in sought.items() if not isinstance(text, str)]
        stops = [text.encode() for text in (*_strings(settings.stop_strings), *sought.values()) if isinstance(text, str)]
        listed = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        ends = frozenset(int(number) for number in listed if number is not None)
        copies = settings.num_return_sequences or 1
        made = []
        for number, (_, ids) in enumerate(row for row in _rows(given, attention_mask) for _ in range(copies)):
            watch = partial(_watch, given[number // copies], stops, criteria, ends)
            pick = self._pick(settings, seed, number)
            text, ended = self._say(_prompt(ids), most, (), pick, watch if stops or criteria or ends - {END} else None)
            made.append([*text, END] if ended and len(text) < most else list(text))
        padding = END if settings.pad_token_id is None else int(settings.pad_token_id)
        longest = max(map(len, made), default=0)
        tail = torch.tensor([[*row, *[padding] * (longest - len(row))] for row in made], dtype=given.dtype, device=given.device)
        sequences = torch.cat([given.repeat_interleave(copies, 0), tail.reshape(len(made), longest)], 1)
        return GenerateDecoderOnlyOutput(sequences=sequences) if settings.return_dict_in_generate else sequences

    def generate_text(
        self,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: int = 200,
        stop: str | Sequence[str] = (),
        do_sample: bool = False,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> str | list[str]:
        """What comes after a text, or after each of several.

        Args:
            prompt: one or several.
            max_new_tokens: bytes.
            stop: texts before which it ends.
            do_sample: draw, rather than take the most likely byte.
            temperature: of draws.
            seed: of draws, as in `generate`.

        Returns:
            The text generated; bytes that are no UTF-8 (a character cut at the end) are U+FFFD.

        Raises:
            InputError: a prompt longer than a member reads.
        """
        stops = [text.encode() for text in _strings(stop)]
        settings = GenerationConfig(do_sample=do_sample, temperature=temperature if do_sample else None)
        found = [
            self._say(text.encode(), max_new_tokens, stops, self._pick(settings, seed, number), None)[0].decode(errors="replace")
            for number, text in enumerate([prompt] if isinstance(prompt, str) else prompt)
        ]
        return found[0] if isinstance(prompt, str) else found

    def _say(self, prompt: bytes, most: int, stop: Sequence[bytes], pick: Pick, watch: Watch | None) -> tuple[bytes, bool]:
        """A text, and whether the ensemble ended it."""
        if len(self._joint) == 1:
            return self._joint[0].run(prompt, most, stop, pick, watch)
        if self._ensemble is not None:
            run = self._ensemble.run(prompt, most, stop, pick, watch)
            return bytes(run.text), run.ended
        turns = in_turn.generate(self._loaders, self._rule, prompt, most, stop, pick=pick, watch=watch)
        return bytes(turns.text), turns.ended

    def _pick(self, settings: GenerationConfig, seed: int | None, number: int) -> Pick:
        """How row `number` chooses."""
        if not settings.do_sample:
            return greedy
        drawn = int(torch.randint(1 << 31, ())) if seed is None else seed + number
        return sampler(drawn, 1.0 if settings.temperature is None else float(settings.temperature))


# --- loading ---------------------------------------------------------------------------------------------------------------------


def _bytes(lm: ByteLm) -> int:
    """Bytes that a member reads whatever they are: a token stands for one at least."""
    return lm.model.length - len(lm.vocabulary.start)


def _told_once(load: _Loader) -> int:
    """The same of a member that is loaded for that, and freed."""
    most = _bytes(load())
    gc.collect()
    return most


def _load_in(dtype: str | torch.dtype | None) -> LoadIn:
    names: dict[str, LoadIn] = {"None": "auto", "auto": "checkpoint", "float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
    name = str(dtype).removeprefix("torch.")
    if name not in names:
        raise SpecError(f"dtype is {dtype}; members are loaded in {', '.join(list(names)[1:])}")
    return names[name]


def _device(device_map: Any) -> torch.device:
    """One device for all members."""
    if isinstance(device_map, Mapping):
        if set(device_map) != {""}:
            raise SpecError(f"device_map has parts ({', '.join(map(str, device_map))}); all members go to one device")
        device_map = device_map[""]
    if device_map in (None, "auto", "balanced", "sequential"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device_map)


def _loading(loaders: Sequence[_Loader], wanted: str | None, memory_bytes: int | None) -> str:
    """Together or one after another. One member alone is always kept.

    Raises:
        SpecError: a word that is neither; memory for less than one member.
    """
    if wanted not in (None, "joint", "sequential"):
        raise SpecError(f"loading is {wanted!r}; it must be joint or sequential")
    if memory_bytes is not None and wanted is None:
        needed = [_weight_bytes(load) for load in loaders]
        if max(needed) > memory_bytes:
            raise SpecError(f"memory_bytes is {memory_bytes:,}, and the weights of the largest member need {max(needed):,}")
        wanted = "sequential" if sum(needed) > memory_bytes else "joint"
    return "joint" if len(loaders) == 1 or wanted is None else wanted


def _weight_bytes(load: _Loader) -> int:
    """What a member's weights need in memory where it is loaded to."""
    load_in = load.load_in
    if load_in == "auto":
        load_in = "float32" if load.device.type == "cpu" else "checkpoint"
    return held_bytes(load.folder, load_in)


def _on_hub(source: Source, hub: Mapping[str, str]) -> EnsembleConfig:
    """The config with these members on the Hub and all others as files."""
    named = {member.name for member in source.config.members}
    if set(hub) - named:
        raise SpecError(f"hub: no member is called {sorted(set(hub) - named)[0]}; there are {', '.join(sorted(named))}")
    found = []
    for member, folder in zip(source.config.members, source.folders, strict=True):
        if member.name not in hub:
            found.append(replace(member, repo=None, commit=None))
            continue
        repo, _, commit = hub[member.name].partition("@")
        if not is_repository(repo) or not is_commit(commit):
            raise SpecError(f"hub: {member.name}: {hub[member.name]!r} is not org/name@commit, with 40 hex digits")
        paths = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        others = sorted(set(paths) - set(hub_model.choose(repo, paths, allow_code=False)))
        if others:
            raise SpecError(f"hub: {member.name}: of a repository {', '.join(others)} would not be fetched; save this member as files")
        found.append(replace(member, repo=repo, commit=commit))
    return replace(source.config, members=tuple(found))


# --- rows of ids -----------------------------------------------------------------------------------------------------------------


def _rows(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> list[tuple[NDArray[np.intp], list[int]]]:
    """Of each row the places that are read, and their ids.

    Raises:
        SpecError: another shape, or ids that are no bytes.
    """
    ids = input_ids.detach().cpu().numpy()
    if ids.ndim != 2 or (attention_mask is not None and attention_mask.shape != input_ids.shape):
        shape = None if attention_mask is None else tuple(attention_mask.shape)
        raise SpecError(f"input_ids {tuple(ids.shape)} and attention_mask {shape} must be (batch, length) both")
    seen = np.ones(ids.shape, dtype=np.bool_) if attention_mask is None else attention_mask.detach().cpu().numpy() != 0
    wrong = ids[seen & ((ids < 0) | (ids > END))]
    if len(wrong):
        raise SpecError(f"id {wrong[0]} is neither a byte nor {END}, the end of a text: encode with this folder's tokenizer")
    return [(np.flatnonzero(keep), row[keep].tolist()) for row, keep in zip(ids, seen, strict=True)]


def _texts(ids: Sequence[int]) -> list[tuple[bytes, list[int]]]:
    """The texts of a row, and of each how many of its bytes were read at its places: with 0 at the end of the text before."""
    found: list[tuple[bytearray, list[int]]] = [(bytearray(), [])]
    for number in ids:
        if number == END:
            found.append((bytearray(), [0]))
        else:
            found[-1][0].append(number)
            found[-1][1].append(len(found[-1][0]))
    return [(bytes(text), counts) for text, counts in found if counts]


def _prompt(ids: Sequence[int]) -> bytes:
    """What a row is going on with: its last text."""
    found = _texts(ids)
    return found[-1][0] if found else b""


# --- settings of a generation ----------------------------------------------------------------------------------------------------


def _settings(base: GenerationConfig, given: Mapping[str, Any]) -> GenerationConfig:
    """The settings, refused where one would change the text and is not supported."""
    settings = GenerationConfig.from_dict(base.to_dict())
    try:
        unused = settings.update(**{name: value for name, value in given.items() if name not in ("tokenizer", "return_dict")})
    except ValueError as error:
        raise SpecError(f"generate: {error}") from error
    asked = {name: value for name, value in {**settings.to_dict(), **unused}.items() if name not in _KNOWN}
    others = sorted(name for name, value in asked.items() if not (value is None or value is False or _NEUTRAL.get(name) == value))
    if others:
        shown = ", ".join(f"{name}={asked[name]!r}" for name in others)
        raise SpecError(f"generate does not support {shown}: it is greedy, or draws from the whole distribution at a temperature")
    return settings


def _most(settings: GenerationConfig, given: Mapping[str, Any], length: int) -> int:
    """Bytes to generate: what was given with the call counts before what the configuration says."""
    if given.get("max_new_tokens") is None and given.get("max_length") is not None:
        most = int(given["max_length"]) - length
    elif settings.max_new_tokens is not None:
        most = int(settings.max_new_tokens)
    else:
        most = int(settings.max_length or 0) - length
    if most < 1:
        raise SpecError(f"nothing can be generated: the prompt has {length} ids, max_length is {settings.max_length}; give max_new_tokens")
    return most


def _strings(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _watch(
    prompt: torch.Tensor, stops: Sequence[bytes], criteria: Sequence[Callable[..., Any]], ends: frozenset[int], made: bytearray
) -> bool:
    """Whether a text ends after its last byte."""
    if made[-1] in ends or any(made.endswith(stop) for stop in stops):
        return True
    if not criteria:
        return False
    ids = torch.cat([prompt, torch.tensor(list(made), dtype=prompt.dtype, device=prompt.device)])[None]
    return any(bool(torch.as_tensor(item(ids, None)).any()) for item in criteria)
