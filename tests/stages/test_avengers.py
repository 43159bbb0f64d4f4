"""An ensemble as a model of transformers: its Auto classes load it, its numbers are the members' own, and what is loaded was verified."""

from __future__ import annotations

import runpy
import shutil
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from ledger.errors import HubError
from ledger.hf_hub import HfHub
from stages import ensemble_tree
from stages.avengers import members as verified
from stages.avengers.configuration_avengers import AvengersConfig
from stages.avengers.modeling_avengers import AvengersModel
from stages.avengers.tokenization_avengers import AvengersTokenizer
from stages.byte_lm import byte_lm
from stages.byte_lm.byte_lm import ByteLm
from stages.byte_lm.ensemble import Ensemble, combine, sampler
from stages.combiners.combiner import find
from stages.ensemble_tree import EnsembleConfig, Member
from stages.errors import InputError, SpecError
from store import tree
from store.digest import Digest
from store.local import LocalCas
from tests.hub import LoopbackHub, read_folder
from tests.tiny import make_model

END = 256
NAMES = ("one", "two")
PROMPTS = ("def add(left", "The river é", "x")
SHIPPED = {
    "configuration_avengers.py": "2d798262cfd51789c5db8aba2eb4dc97d3335b71d4afb9b2cc00b05eeac1c793",
    "generation_config.json": "7e20e7ab41a50d8c835bdd697e60da3352c16a9205621033ebe7b729e594213b",
    "modeling_avengers.py": "703d9523ec7e694b0beed239b89dd6629ffc67cad89a9496677ff9f3d34c3cd7",
    "tokenization_avengers.py": "97ada42967eaa1788360bd4596d669e138065e11782df7138e6534eb5fb796d6",
    "tokenizer_config.json": "db5b6b43820f14941f4d82bb7aa3390027e3e9ed64bcd0952bcb64c3d86a3545",
}
"""Of format version 2. With other files its ensembles cannot be read: raise `ensemble_tree.FORMAT_VERSION` when one changes."""


@dataclass
class Worlds:
    """Random members with different tokenizers, and folders of ensembles of them.

    Attributes:
        folder: of both, `digest` its tree. single: of the second alone. skipping: of both, leaving out whoever has little weight.
    """

    folders: dict[str, Path]
    folder: Path
    digest: Digest
    single: Path
    skipping: Path


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    place = tmp_path_factory.mktemp("avengers")
    store = LocalCas(place / "store")
    small: dict[str, Any] = {"hidden": 32, "intermediate": 32, "layers": 1, "experts": 2, "max_position_embeddings": 96}
    folders = {name: make_model(place / name, vocab=300 + 120 * seed, seed=seed, **small) for seed, name in enumerate(NAMES)}
    members = tuple(Member(name, tree.import_folder(store, folder)) for name, folder in folders.items())
    digest = ensemble_tree.build(store, EnsembleConfig(combiner="fixed-share", settings={"share": "0.05"}, members=members))
    alone = ensemble_tree.build(store, EnsembleConfig(combiner="bayes", settings={}, members=members[1:]))
    skipping = ensemble_tree.build(store, EnsembleConfig(combiner="bayes", settings={}, members=members, skip_below=0.1))
    for name, made in (("both", digest), ("single", alone), ("skipping", skipping)):
        tree.export(store, made, place / name)
    return Worlds(folders, place / "both", digest, place / "single", place / "skipping")


@pytest.fixture(scope="module")
def model(worlds: Worlds) -> AvengersModel:
    return AvengersModel.from_pretrained(worlds.folder)


@pytest.fixture(scope="module")
def lms(worlds: Worlds) -> list[ByteLm]:
    return [byte_lm.load(worlds.folders[name]) for name in NAMES]


@pytest.fixture
def tokenizer() -> AvengersTokenizer:
    return AvengersTokenizer()


def copied(source: Path, target: Path) -> Path:
    """A copy whose files may be written."""
    for path, data in read_folder(source).items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)
    return target


def mixed(lms: list[ByteLm], text: bytes) -> np.ndarray[Any, Any]:
    """(n + 1, 257) what the rule says at each byte, from rows of each member alone."""
    rule = find("fixed-share", {"share": 0.05}, 2)
    rows = np.stack([member.rows(text) for member in lms], axis=1)
    found, _, state = combine(rule, rule.start(), rows[:-1], text)
    return np.concatenate([found, rule.combine(state, rows[-1], np.ones(2, dtype=np.bool_))[None]])


# --- through transformers ----------------------------------------------------------------------------------------------------------


def test_auto_classes_load_the_folder(worlds: Worlds, model: AvengersModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With `trust_remote_code` alone: configuration, tokenizer and model of the folder; the same tokens as by the class itself."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoConfig.from_pretrained(worlds.folder, trust_remote_code=False)
    config = AutoConfig.from_pretrained(worlds.folder, trust_remote_code=True)
    assert isinstance(config, AvengersConfig)
    assert config.vocab_size == 257
    tokenizer = AutoTokenizer.from_pretrained(worlds.folder, trust_remote_code=True)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    loaded = AutoModelForCausalLM.from_pretrained(
        worlds.folder, trust_remote_code=True, dtype=torch.float32, device_map={"": "cpu"}, loading="joint"
    )
    assert isinstance(loaded, AvengersModel)
    ids = tokenizer(list(PROMPTS), return_tensors="pt", padding=True)
    assert torch.equal(loaded.generate(**ids, max_new_tokens=8), model.generate(**ids, max_new_tokens=8))
    assert sum(item.numel() for item in loaded.parameters()) == loaded.num_parameters() > 0


def test_what_is_saved_is_the_same_folder(worlds: Worlds, model: AvengersModel, tokenizer: AvengersTokenizer, tmp_path: Path) -> None:
    """To the last byte, so it has the same digest, also when the parts are saved too, as scripts do. What is loaded says the same."""
    target = tmp_path / "saved"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    model.config.save_pretrained(target)
    assert tree.hash_folder(target).digest == worlds.digest
    again = AvengersModel.from_pretrained(target)
    assert again.generate_text(PROMPTS, max_new_tokens=8) == model.generate_text(PROMPTS, max_new_tokens=8)
    with pytest.raises(InputError, match="is not empty"):
        model.save_pretrained(target)


def test_files_for_transformers_are_those_of_the_version() -> None:
    """Ensembles made by an earlier program of this version have the same ones."""
    assert ensemble_tree.FORMAT_VERSION == 2
    assert {name: Digest.of(data).hex for name, data in ensemble_tree.shipped().items()} == SHIPPED


@pytest.mark.parametrize("name", ["configuration", "modeling", "tokenization"])
def test_without_the_package_its_name_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that of a module, which pip would look for: a stranger's package may have that name."""
    monkeypatch.setitem(sys.modules, f"stages.avengers.{name}_avengers", None)
    source = Path(ensemble_tree.__file__).parent / "avengers" / "shipped" / f"{name}_avengers.py"
    with pytest.raises(ModuleNotFoundError, match=r"install alloy-ledger\[models\]"):
        runpy.run_path(str(source))
    from transformers.dynamic_module_utils import get_imports

    assert get_imports(source) == []  # else transformers itself would tell people to install `stages`


def test_what_is_not_supported_is_refused(worlds: Worlds, model: AvengersModel) -> None:
    """Nothing that would change a result is ignored."""
    ids = torch.tensor([[97]])
    for setting, message in (
        ({"num_beams": 2}, "num_beams=2"),
        ({"do_sample": True, "top_k": 5}, "top_k=5"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2"),
        ({"streamer": object()}, "streamer="),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"max_length": 1}, "give max_new_tokens"),
    ):
        with pytest.raises(SpecError, match=message):
            model.generate(ids, **setting)
    for arguments, message in (
        ({"quantization_config": {"bits": 4}}, "not loaded with quantization_config"),
        ({"loading": "lazy"}, "must be joint or sequential"),
        ({"dtype": "int8"}, "dtype is int8"),
        ({"device_map": {"members.0": 0, "members.1": 1}}, "one device"),
    ):
        with pytest.raises(SpecError, match=message):
            AvengersModel.from_pretrained(worlds.folder, **arguments)
    for call, message in (
        (lambda: AvengersModel(AvengersConfig()), "from_pretrained"),
        (lambda: model(inputs_embeds=torch.zeros(1, 1, 4)), "input_ids"),
        (lambda: model(ids, past_key_values=[1]), "from its beginning"),
        (lambda: model(torch.tensor([[300]])), "id 300"),
        (lambda: model(torch.tensor([97])), "must be"),
        (lambda: model.save_pretrained("x", push_to_hub=True), "push_to_hub"),
    ):
        with pytest.raises(SpecError, match=message):
            call()


# --- the tokenizer -----------------------------------------------------------------------------------------------------------------


TOKENIZER = AvengersTokenizer()


@settings(max_examples=50)
@given(st.text())
def test_ids_are_bytes(text: str) -> None:
    """Any text is its UTF-8, with nothing added, and comes back."""
    tokenizer = TOKENIZER
    ids = tokenizer(text).input_ids
    assert ids == list(text.encode()) == tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, END], skip_special_tokens=True) == text


def test_the_end_is_no_text(tokenizer: AvengersTokenizer) -> None:
    """Its name in a text is characters; padding is on the left, with a mask; half a character is U+FFFD."""
    assert len(tokenizer) == tokenizer.vocab_size == 257
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (END, END)
    assert tokenizer.encode(tokenizer.eos_token) == list(tokenizer.eos_token.encode())
    assert tokenizer.convert_tokens_to_ids(tokenizer.eos_token) == END
    batch = tokenizer(["ab", "c"], padding=True)
    assert batch.input_ids == [[97, 98], [END, 99]]
    assert batch.attention_mask == [[1, 1], [0, 1]]
    assert tokenizer.decode("é".encode()[:1]) == "\ufffd"


# --- logits ------------------------------------------------------------------------------------------------------------------------


def test_logits_are_the_log_probabilities_of_the_next_byte(model: AvengersModel, lms: list[ByteLm]) -> None:
    """Those of the rule over the members' own rows; they sum to one, and what is no UTF-8 has none of it."""
    text = PROMPTS[1].encode()
    logits = model(torch.tensor([list(text)])).logits[0].numpy()
    assert np.array_equal(logits, mixed(lms, text)[1:])
    np.testing.assert_allclose(np.exp(logits).sum(-1), 1)
    assert (logits[len(text) - 2, :128] == -np.inf).all()  # in mid-character


def test_a_row_is_what_it_is_alone(model: AvengersModel, tokenizer: AvengersTokenizer) -> None:
    """To the last bit, with padding on the left, on the right or in between; what is padding has no distribution."""
    alone = [model(torch.tensor([list(text.encode())])).logits[0] for text in PROMPTS]
    for side in ("left", "right"):
        batch = tokenizer(list(PROMPTS), padding=True, padding_side=side, return_tensors="pt")
        logits = model(**batch).logits
        for row, mask, expected in zip(logits, batch.attention_mask, alone, strict=True):
            assert torch.equal(row[mask == 1], expected)
            assert (row[mask == 0] == 0).all()
    gap = model(torch.tensor([[97, 5, 98]]), attention_mask=torch.tensor([[1, 0, 1]])).logits[0]
    assert torch.equal(gap[[0, 2]], model(torch.tensor([[97, 98]])).logits[0])


def test_after_an_end_a_new_text_begins(model: AvengersModel, lms: list[ByteLm]) -> None:
    """So a row that begins with 256 has the distribution of the first byte, which no other row has."""
    first, second = (mixed(lms, text) for text in (b"ab", b"c"))
    logits = model(torch.tensor([[END, *b"ab", END, *b"c"]])).logits[0].numpy()
    assert np.array_equal(logits, np.concatenate([first, second]))
    assert np.array_equal(model(torch.tensor([[*b"ab", END, *b"c"]])).logits[0].numpy(), logits[1:])


def test_the_loss_is_nats_a_symbol(model: AvengersModel) -> None:
    """The mean over labels of minus the log probability, -100 left out; the end of the text is a symbol."""
    ids = torch.tensor([[*b"The mill", END], [*b"a river.", END]])
    labels = ids.clone()
    labels[1, 3:] = -100
    found = model(ids, labels=labels)
    told = [-found.logits[row, place - 1, ids[row, place]].item() for row, end in ((0, 9), (1, 3)) for place in range(1, end)]
    assert found.loss.item() == pytest.approx(np.mean(told))
    assert torch.equal(model(ids, logits_to_keep=1).logits, found.logits[:, -1:])
    assert torch.equal(model(ids, return_dict=False)[0], found.logits)


def test_what_cannot_be_read_is_refused(model: AvengersModel) -> None:
    """Bytes that are no text, and more than a member reads; what it reads for sure is told."""
    assert model.config.max_position_embeddings == 95
    with pytest.raises(InputError, match="UTF-8"):
        model(torch.tensor([[0xFF]]))
    assert model(torch.tensor([[0x7F] * 95])).logits.shape == (1, 95, 257)
    with pytest.raises(InputError, match="96 tokens"):
        model(torch.tensor([[0x7F] * 96]))


def test_an_ensemble_of_one_is_that_member(worlds: Worlds, lms: list[ByteLm]) -> None:
    """Its rows and its text to the last bit, whatever the loading."""
    text = PROMPTS[0].encode()
    for loading in ("joint", "sequential"):
        alone = AvengersModel.from_pretrained(worlds.single, loading=loading)
        assert np.array_equal(alone(torch.tensor([list(text)])).logits[0].numpy(), lms[1].rows(text)[1:])
        made = alone.generate(torch.tensor([list(text)]), max_new_tokens=12)[0, len(text) :]
        assert bytes(made.tolist()) == lms[1].generate(text, 12, [])


# --- text --------------------------------------------------------------------------------------------------------------------------


def test_generating_is_the_argmax_of_the_logits(model: AvengersModel, tokenizer: AvengersTokenizer, lms: list[ByteLm]) -> None:
    """Byte after byte, for each row of a batch, which says what it says alone; and it is what the answerer says."""
    batch = tokenizer(list(PROMPTS), padding=True, return_tensors="pt")
    made = model.generate(**batch, max_new_tokens=10)
    assert torch.equal(made[:, : batch.input_ids.shape[1]], batch.input_ids)
    ensemble = Ensemble(lms, find("fixed-share", {"share": 0.05}, 2))
    for text, row in zip(PROMPTS, made[:, batch.input_ids.shape[1] :].tolist(), strict=True):
        ids = torch.tensor([[*text.encode(), *row]])
        assert model(ids).logits[0, len(text.encode()) - 1 : -1].argmax(-1).tolist() == row
        assert model.generate(torch.tensor([list(text.encode())]), max_new_tokens=10).tolist() == ids.tolist()
        assert ensemble.generate(text.encode(), 10, []) == bytes(row)
        assert model.generate_text(text, max_new_tokens=10) == bytes(row).decode(errors="replace")


def test_what_ends_a_text(model: AvengersModel) -> None:
    """A stop string and what else stops is part of the row, as transformers has it; `generate_text` ends before it, as answerers do."""
    prompt = torch.tensor([list(PROMPTS[0].encode())])
    free = bytes(model.generate(prompt, max_new_tokens=12)[0, prompt.shape[1] :].tolist())
    stop = next(free[place : place + 2] for place in range(3, 10) if free[place : place + 2].isascii())
    until = free.index(stop) + 2

    class Sought:
        """As lm-eval's: stateful, for the batch as a whole."""

        sequence = stop.decode()

    def long_enough(ids: torch.Tensor, scores: None) -> torch.Tensor:
        return torch.full((len(ids),), ids.shape[1] >= prompt.shape[1] + until)

    for setting in (
        {"max_new_tokens": 12, "stop_strings": [stop.decode()]},
        {"max_new_tokens": 12, "stopping_criteria": [Sought()]},
        {"max_new_tokens": 12, "stopping_criteria": [long_enough]},
        {"max_length": prompt.shape[1] + until},
        {"generation_config": GenerationConfig(max_new_tokens=until)},
    ):
        assert bytes(model.generate(prompt, **setting)[0, prompt.shape[1] :].tolist()) == free[:until]
    first = free.index(free[4]) + 1
    by_byte = model.generate(prompt, max_new_tokens=12, eos_token_id=[END, free[4]], return_dict_in_generate=True)
    assert not isinstance(by_byte, torch.Tensor)
    assert bytes(by_byte.sequences[0, prompt.shape[1] :].tolist()) == free[:first]
    assert model.generate_text(PROMPTS[0], max_new_tokens=12, stop=stop.decode()) == free[: until - 2].decode(errors="replace")


def test_an_end_is_said_once_and_then_padded(model: AvengersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that ends earlier has 256 and padding behind; one that is cut has neither."""
    texts = {b"a": (b"xy", True), b"b": (b"xyzw", False)}
    monkeypatch.setattr(model, "_say", lambda prompt, *_: texts[prompt])
    made = model.generate(torch.tensor([[97], [98]]), max_new_tokens=4, pad_token_id=0)
    assert made.tolist() == [[97, *b"xy", END, 0], [98, *b"xyzw"]]


def test_draws_depend_on_the_seed_alone(model: AvengersModel, lms: list[ByteLm]) -> None:
    """Row i draws with seed + i, so each can be drawn alone again; without a seed, torch's generator gives one."""
    prompt = torch.tensor([list(PROMPTS[0].encode())])
    drawn: dict[str, Any] = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.5}
    three = model.generate(prompt, **drawn, seed=3, num_return_sequences=3)
    assert len({tuple(row) for row in three.tolist()}) == 3
    assert torch.equal(model.generate(prompt, **drawn, seed=5), three[2:])
    run = Ensemble(lms, find("fixed-share", {"share": 0.05}, 2)).run(PROMPTS[0].encode(), 6, (), sampler(3, 1.5))
    assert bytes(run.text) == bytes(three[0, prompt.shape[1] :].tolist())
    torch.manual_seed(1)
    first = model.generate(prompt, **drawn)
    torch.manual_seed(1)
    assert torch.equal(model.generate(prompt, **drawn), first)


# --- one after another -------------------------------------------------------------------------------------------------------------


def test_one_member_in_memory_says_the_same(
    worlds: Worlds, model: AvengersModel, tokenizer: AvengersTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same logits to the bit and the same text, and never are two members' weights alive: at most the largest one's bytes."""
    alive: list[tuple[weakref.ref[Any], int]] = []
    most = [0]
    load = byte_lm.load

    def counted(*arguments: Any, **more: Any) -> ByteLm:
        found = load(*arguments, **more)
        weights = sum(item.numel() * item.element_size() for item in found.model.model.parameters())
        alive.append((weakref.ref(found.model.model), weights))
        most.append(sum(size for item, size in alive if item() is not None))
        return found

    monkeypatch.setattr(byte_lm, "load", counted)
    sizes = [sum(item.numel() * item.element_size() for item in part.parameters()) for part in model.members]
    found = AvengersModel.from_pretrained(worlds.folder, memory_bytes=max(sizes))
    assert found.loading == "sequential"
    batch = tokenizer(list(PROMPTS), padding=True, return_tensors="pt")
    assert torch.equal(found(**batch).logits, model(**batch).logits)
    assert found.generate_text(PROMPTS[2], max_new_tokens=3) == model.generate_text(PROMPTS[2], max_new_tokens=3)
    assert max(most) == max(sizes) < sum(sizes)
    assert found.config.max_position_embeddings == model.config.max_position_embeddings
    assert found.device == model.device


def test_memory_decides_how_members_are_loaded(worlds: Worlds, model: AvengersModel) -> None:
    """Together where all fit, refused where one does not; what is asked for counts before that."""
    sizes = [sum(item.numel() * item.element_size() for item in part.parameters()) for part in model.members]
    assert AvengersModel.from_pretrained(worlds.folder, memory_bytes=sum(sizes)).loading == "joint"
    config = AvengersConfig.from_pretrained(worlds.folder, memory_bytes=sum(sizes) - 1)
    assert AvengersModel.from_pretrained(worlds.folder, config=config).loading == "sequential"
    assert AvengersModel.from_pretrained(worlds.folder, memory_bytes=1, loading="joint").loading == "joint"
    with pytest.raises(SpecError, match=f"largest member need {max(sizes):,}"):
        AvengersModel.from_pretrained(worlds.folder, memory_bytes=max(sizes) - 1)
    with pytest.raises(SpecError, match="one after another"):
        AvengersModel.from_pretrained(worlds.skipping, memory_bytes=sum(sizes) - 1)
    with pytest.raises(SpecError, match="one after another"):
        AvengersModel.from_pretrained(worlds.folder, config=config).to(torch.float16)


# --- what is let in ----------------------------------------------------------------------------------------------------------------


def test_every_changed_byte_is_seen(worlds: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte of any file, a missing file, one more in a member's folder: told before a model is read. Files beside are no matter."""
    monkeypatch.setattr(byte_lm, "load", lambda *_, **__: pytest.fail("a member was loaded"))
    folder = copied(worlds.folder, tmp_path / "changed")
    for path, data in read_folder(folder).items():
        middle = len(data) // 2
        for wrong in (data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], None):
            (folder / path).unlink()
            if wrong is not None:
                (folder / path).write_bytes(wrong)
            with pytest.raises(InputError):
                AvengersModel.from_pretrained(folder)
            (folder / path).write_bytes(data)
    (folder / "README.md").write_text("read by nobody")
    for extra in ("members/one/adapter_config.json", "members/three/config.json"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_text("{}")
        with pytest.raises(InputError, match="take the original"):
            AvengersModel.from_pretrained(folder)
        (folder / extra).unlink()
    (folder / "members" / "three").rmdir()
    monkeypatch.undo()
    assert AvengersModel.from_pretrained(folder, loading="sequential").loading == "sequential"


def test_a_link_counts_as_what_it_leads_to(worlds: Worlds, tmp_path: Path) -> None:
    """So a snapshot in the cache of huggingface_hub is a folder like any other."""
    for path in read_folder(worlds.folder):
        (tmp_path / "links" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "links" / path).symlink_to(worlds.folder / path)
    source = verified.from_folder(tmp_path / "links", tmp_path / "cache", HfHub())
    assert [member.name for member in source.config.members] == list(NAMES)
    assert verified.digest_of(tmp_path / "links" / "members" / "one") == source.config.members[0].digest


def test_a_configuration_of_another_ensemble_is_refused(worlds: Worlds) -> None:
    """Neither the folder's nor the caller's is silently preferred."""
    config = AvengersConfig.from_pretrained(worlds.folder)
    config.skip_below = "0.5"
    with pytest.raises(InputError, match="of another ensemble"):
        AvengersModel.from_pretrained(worlds.folder, config=config)


# --- the Hub -----------------------------------------------------------------------------------------------------------------------


def test_an_ensemble_on_the_hub(hub: LoopbackHub, worlds: Worlds, model: AvengersModel, tmp_path: Path) -> None:
    """By its id at a revision: the same tokens, and what is saved is the same folder; the second time no weight is sent."""
    commit = hub.put("acme/worlds", {**read_folder(worlds.folder), "README.md": b"card"})
    hub.put("acme/worlds", {"config.json": b"{}"})
    loaded = AvengersModel.from_pretrained("acme/worlds", revision=commit, cache_dir=tmp_path)
    assert loaded.generate_text(PROMPTS, max_new_tokens=6) == model.generate_text(PROMPTS, max_new_tokens=6)
    loaded.save_pretrained(tmp_path / "saved")
    assert tree.hash_folder(tmp_path / "saved").digest == worlds.digest
    sent = hub.weight_bytes()
    AvengersModel.from_pretrained("acme/worlds", revision=commit, cache_dir=tmp_path)
    assert hub.weight_bytes() == sent > 0
    with pytest.raises(InputError, match="model_type is None"):
        AvengersModel.from_pretrained("acme/worlds", cache_dir=tmp_path)


def test_auto_classes_load_it_from_the_hub(
    hub: LoopbackHub, worlds: Worlds, model: AvengersModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The code comes from the repository through transformers, the members through us."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    hub.put("acme/worlds", dict(read_folder(worlds.folder)))
    where: dict[str, Any] = {"trust_remote_code": True, "cache_dir": tmp_path / "cache", "revision": hub.head("acme/worlds")}
    loaded = AutoModelForCausalLM.from_pretrained("acme/worlds", **where)
    assert AutoTokenizer.from_pretrained("acme/worlds", **where).encode("é") == [195, 169]
    assert loaded.generate_text(PROMPTS[0], max_new_tokens=6) == model.generate_text(PROMPTS[0], max_new_tokens=6)


def test_a_member_by_its_own_repository(hub: LoopbackHub, worlds: Worlds, model: AvengersModel, tmp_path: Path) -> None:
    """Saved by id and commit, its files are fetched at that commit and are the member's own tree, whatever else and later is there."""
    commit = hub.put("acme/two", {**read_folder(worlds.folders["two"]), "README.md": b"card", "run.py": b"raise SystemExit"})
    hub.put("acme/two", {"model.safetensors": b"later"})
    model.save_pretrained(tmp_path / "saved", hub={"two": f"acme/two@{commit}"})
    assert not (tmp_path / "saved" / "members" / "two").exists()
    loaded = AvengersModel.from_pretrained(tmp_path / "saved", cache_dir=tmp_path)
    assert loaded.generate_text(PROMPTS, max_new_tokens=6) == model.generate_text(PROMPTS, max_new_tokens=6)
    loaded.save_pretrained(tmp_path / "again")
    assert tree.hash_folder(tmp_path / "again").digest == tree.hash_folder(tmp_path / "saved").digest
    loaded.save_pretrained(tmp_path / "whole", hub={})
    assert tree.hash_folder(tmp_path / "whole").digest == worlds.digest
    hub.stop()  # what is in the cache needs no Hub
    AvengersModel.from_pretrained(tmp_path / "saved", cache_dir=tmp_path, loading="sequential")
    for where, message in (("acme/two@main", "40 hex digits"), ("two", "40 hex digits")):
        with pytest.raises(SpecError, match=message):
            model.save_pretrained(tmp_path / "bad", hub={"two": where})
    with pytest.raises(SpecError, match="no member is called three"):
        model.save_pretrained(tmp_path / "bad", hub={"three": f"acme/two@{commit}"})


def test_another_model_behind_the_id_is_refused(hub: LoopbackHub, worlds: Worlds, model: AvengersModel, tmp_path: Path) -> None:
    """Before any member is loaded, with nothing left in the cache: another model, and bytes that are not those listed."""
    right = hub.put("acme/two", dict(read_folder(worlds.folders["two"])))
    wrong = hub.put("acme/two", {"generation_config.json": b"{}"})
    for number, (commit, lies, kind, message) in enumerate(
        (
            (wrong, set(), InputError, "member two: acme/two at .*expected .*another model"),
            (right, {"model.safetensors"}, HubError, "other bytes than it lists"),
        )
    ):
        hub.lies.wrong_bytes = lies
        model.save_pretrained(tmp_path / str(number), hub={"two": f"acme/two@{commit}"})
        with pytest.raises(kind, match=message):
            AvengersModel.from_pretrained(tmp_path / str(number), cache_dir=tmp_path / "cache")
        assert not [path for path in (tmp_path / "cache").rglob("model.safetensors") if ".partial" not in str(path)]


def test_a_cache_that_was_changed_is_fetched_again(hub: LoopbackHub, worlds: Worlds, model: AvengersModel, tmp_path: Path) -> None:
    """What is here is hashed every time."""
    commit = hub.put("acme/two", dict(read_folder(worlds.folders["two"])))
    model.save_pretrained(tmp_path / "saved", hub={"two": f"acme/two@{commit}"})
    (place,) = verified.from_folder(tmp_path / "saved", tmp_path / "cache", HfHub()).folders[1:]
    shutil.copy(place / "config.json", place / "adapter_config.json")
    again = verified.from_folder(tmp_path / "saved", tmp_path / "cache", HfHub()).folders[1]
    assert not (again / "adapter_config.json").exists()
    assert verified.digest_of(again) == model.source.config.members[1].digest
