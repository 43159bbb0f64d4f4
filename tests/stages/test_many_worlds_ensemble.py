"""The ensemble as an artifact: what its tree holds, who is let in, and that it is measured like any model."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from stages import ensemble_tree, load_check, lowering, recipe
from stages.byte_lm import byte_lm, in_turn
from stages.byte_lm.byte_lm import ByteLm
from stages.byte_lm.ensemble import Ensemble, combine
from stages.byte_lm.first_token_boost import FirstTokenBoost
from stages.byte_lm.token_member import TokenMember
from stages.byte_lm.unite import Unite
from stages.combiners.combiner import find
from stages.ensemble_tree import EnsembleConfig, Member
from stages.errors import InputError, PluginError, RecipeError, SpecError
from stages.hf_model import held_bytes
from stages.load_check import LoadCheck
from stages.many_worlds_ensemble import ManyWorldsEnsemble
from stages.question_benchmark import QuestionBenchmark
from stages.question_block import answerer
from stages.question_compare import QuestionCompare, Row
from stages.question_kinds import Asking, Kind
from stages.questions import Answerer, Question, answer
from stages.stage import spec_from_json, spec_to_json
from store import canonical, tree
from store.digest import Digest
from store.local import LocalCas
from store.tree import Tree, TreeEntry
from tests.direct import Direct
from tests.tiny import make_model

SPEC = ManyWorldsEnsemble(members=("one", "two"), settings={"share": 0.05})
PROMPT, CONTINUATION = b"def add(left, right):\n    ret", b"urn left"
CHOICES = [{"id": f"c{i}", "question": f"Pick {i}:", "choices": ["left", "right"], "answer": i % 2} for i in range(4)]
NUMBERS = [{"id": f"n{i}", "question": f"{i} + {i} =", "answer": str(2 * i)} for i in range(2)]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass
class Worlds:
    """Two random models with different tokenizers and windows, and an ensemble of them."""

    store: LocalCas
    direct: Direct
    folders: Mapping[str, Path]
    models: Mapping[str, Digest]
    ensemble: Digest

    def made(self, spec: ManyWorldsEnsemble) -> Digest:
        """An ensemble of these models."""
        return self.direct.run("many-worlds-ensemble", spec, {f"model-{name}": self.models[name] for name in spec.members})["model"]

    def answers(self, model: Digest) -> Answerer:
        """Who answers for a tree, as a worker finds it."""
        return answerer(model, self.direct.context, "auto")

    def changed(self, **entries: bytes | None) -> Digest:
        """The ensemble's tree with files replaced, added or (None) left out; `__` in a name stands for a slash, `_dot_` for a dot."""
        files = {item.path: item for item in tree.load(self.store, self.ensemble).entries}
        for name, data in entries.items():
            path = name.replace("__", "/").replace("_dot_", ".")
            files.pop(path, None)
            if data is not None:
                files[path] = TreeEntry(path, self.store.put(data), len(data))
        return self.store.put(Tree.of(files.values()).to_bytes())


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    place = tmp_path_factory.mktemp("worlds")
    store = LocalCas(place / "store")
    direct = Direct(store, place)
    small: dict[str, Any] = {"hidden": 32, "intermediate": 32, "layers": 1, "experts": 2, "max_position_embeddings": 128}
    folders = {
        "one": make_model(place / "one", vocab=300, seed=1, **small),
        "two": make_model(place / "two", vocab=420, seed=2, **small),
    }
    models = {name: tree.import_folder(store, folder) for name, folder in folders.items()}
    inputs = {f"model-{name}": models[name] for name in SPEC.members}
    return Worlds(store, direct, folders, models, direct.run("many-worlds-ensemble", SPEC, inputs)["model"])


@pytest.fixture(scope="module")
def members(worlds: Worlds) -> list[ByteLm]:
    return [byte_lm.load(worlds.folders[name]) for name in SPEC.members]


# --- the artifact ------------------------------------------------------------------------------------------------------------------


def test_the_tree_is_the_config_and_the_members_own_blobs(worlds: Worlds) -> None:
    """Every file of a member is the same object in the ensemble, so only the config and the tree itself are new, and what every one has."""
    found = {item.path: item.digest for item in tree.load(worlds.store, worlds.ensemble).entries}
    assert {name: worlds.store.read(found.pop(name)) for name in ensemble_tree.shipped()} == ensemble_tree.shipped()
    assert json.loads(worlds.store.read(found.pop("config.json"))) == {
        "architectures": ["AvengersModel"],
        "auto_map": ensemble_tree.AUTO_MAP,
        "combiner": {"name": "fixed-share", "settings": {"share": "0.05"}},
        "format_version": 2,
        "members": [{"digest": str(worlds.models[name]), "name": name} for name in ("one", "two")],
        "model_type": "many-worlds-ensemble",
        "skip_below": "0.0",
        "tolerance": "0.0",
    }
    own = {
        f"members/{name}/{item.path}": item.digest for name in SPEC.members for item in tree.load(worlds.store, worlds.models[name]).entries
    }
    assert found == own


def test_the_same_members_and_settings_give_the_same_digest(worlds: Worlds) -> None:
    """Made again, or with a default written out, it is the same tree; another order or setting is another."""
    assert worlds.made(SPEC) == worlds.ensemble
    assert worlds.made(replace(SPEC, settings={})) == worlds.made(replace(SPEC, settings={"share": 0.01}))
    others = [
        replace(SPEC, members=("two", "one")),
        replace(SPEC, settings={}),
        replace(SPEC, combiner="bayes", settings={}),
        replace(SPEC, skip_below=0.01),
        replace(SPEC, tolerance=0.001),
    ]
    assert len({worlds.ensemble, *map(worlds.made, others)}) == 6


@pytest.mark.parametrize(
    ("combiner", "settings"),
    [
        ("bayes", {"prior": (1.0, 3.0)}),
        ("geometric", {"weights": (0.25, 0.75)}),
        ("alpha-blend", {"alpha": 0.3}),
        ("confidence", {"margin": 0.1}),
        ("uncertainty-gate", {"above": 0.9, "inner": "fixed-share", "settings": {"share": 0.2}}),
    ],
)
def test_settings_survive_being_written_down(worlds: Worlds, members: list[ByteLm], combiner: str, settings: dict[str, Any]) -> None:
    """A combiner read back from config.json says what it said with the numbers as they were given, to the last bit."""
    made = worlds.made(replace(SPEC, combiner=combiner, settings=settings))
    config = ensemble_tree.checked(worlds.store, made)
    rows = np.stack([member.rows(CONTINUATION)[:-1] for member in members], axis=1)
    first, second = (find(combiner, given, 2) for given in (settings, config.settings))
    assert np.array_equal(combine(first, first.start(), rows, CONTINUATION)[0], combine(second, second.start(), rows, CONTINUATION)[0])


# --- who is let in -----------------------------------------------------------------------------------------------------------------


def test_members_are_checked_before_any_is_loaded(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed, missing, added or foreign file, and all members that it makes wrong, are told before a model is read."""
    monkeypatch.setattr(byte_lm, "load", lambda *_, **__: pytest.fail("a member was loaded"))
    weights = {f"members__{name}__model_dot_safetensors": b"other weights" for name in SPEC.members}
    for change, message in (
        (weights, "member one: .* expected .*; member two: .* expected .* take the original"),
        ({"members__one__tokenizer_dot_json": None}, "member one: its files are"),
        ({"members__two__more_dot_txt": b"x"}, "member two: its files are"),
        ({"members__three__config_dot_json": b"{}"}, "members/three/config.json: of no member"),
        ({"README_dot_md": b"x"}, "README.md: of no member"),
        ({"modeling_avengers_dot_py": b"import os"}, "modeling_avengers.py: .*, expected "),
        ({"tokenizer_config_dot_json": None}, "tokenizer_config.json: missing, expected "),
    ):
        with pytest.raises(InputError, match=message):
            worlds.answers(worlds.changed(**change))


def test_a_member_that_is_elsewhere_is_refused(worlds: Worlds) -> None:
    """A stored ensemble has all its files, so that what is measured is what is stored."""
    config = ensemble_tree.checked(worlds.store, worlds.ensemble)
    one = replace(config.members[0], repo="acme/one", commit="0" * 40)
    files = {
        name.replace(".", "_dot_").replace("/", "__") for name in (item.path for item in tree.load(worlds.store, worlds.ensemble).entries)
    }
    gone: dict[str, bytes | None] = {name: None for name in files if name.startswith("members__one__")}
    changed = worlds.changed(config_dot_json=replace(config, members=(one, config.members[1])).to_bytes(), **gone)
    with pytest.raises(InputError, match=r"member one: its files are on the Hub \(acme/one\)"):
        worlds.answers(changed)


def test_members_that_change_places_are_refused(worlds: Worlds) -> None:
    """Each name stands for one digest: the first member is the target, so an exchange is no detail."""
    config = ensemble_tree.checked(worlds.store, worlds.ensemble)
    one, two = config.members
    swapped = replace(config, members=(Member("one", two.digest), Member("two", one.digest)))
    with pytest.raises(InputError, match=r"member one: .*; member two: "):
        worlds.answers(worlds.changed(config_dot_json=swapped.to_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "format version 1, and this program reads 2"),
        ({"more": 1}, "exactly the keys"),
        ({"members": []}, "a member at least"),
        ({"members": [{"name": "one", "digest": "md5:1"}]}, "not that of an ensemble"),
        ({"members": [{"name": "one"}]}, "not that of an ensemble: KeyError"),
        ({"members": [{"name": "one", "digest": str(Digest.of(b"")), "repo": "a/b", "commit": "main"}]}, "is not a commit"),
        ({"members": [{"name": "one", "digest": str(Digest.of(b"")), "commit": "0" * 40}]}, "not as the ensemble stage writes it"),
        ({"auto_map": {}}, "not as the ensemble stage writes it"),
        ({"combiner": "bayes"}, "not that of an ensemble"),
        ({"tolerance": "0"}, "not as the ensemble stage writes it"),
    ],
)
def test_a_config_is_read_strictly(worlds: Worlds, change: dict[str, Any], message: str) -> None:
    """Whatever the stage would not write is refused with the reason."""
    value = json.loads(EnsembleConfig(combiner="bayes", settings={}, members=(Member("one", worlds.models["one"]),)).to_bytes())
    with pytest.raises(InputError, match=message):
        EnsembleConfig.parse(canonical.dumps(value | change))


def test_an_ensemble_is_no_member(worlds: Worlds) -> None:
    """Its distribution is of bytes, not of tokens: members of members are named themselves."""
    spec = replace(SPEC, members=("whole",))
    with pytest.raises(InputError, match=r"member whole .* of a larger ensemble, name its members"):
        worlds.direct.run("many-worlds-ensemble", spec, {"model-whole": worlds.ensemble})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": ()}, "needs one at least"),
        ({"members": ("one", "../two")}, "must be letters, digits"),
        ({"members": ("one", "one")}, "two are called one"),
        ({"members": ("one", "One")}, "differ in case alone"),
        ({"skip_below": 1.0}, "skip_below is 1.0"),
        ({"tolerance": -0.1}, "tolerance is -0.1"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    """Before any model is read."""
    with pytest.raises(SpecError, match=message):
        replace(SPEC, **change)


def test_settings_that_do_not_fit_are_refused(worlds: Worlds) -> None:
    """A combiner that is not installed, a setting that it does not have, weights for other members, models that are not the members."""
    with pytest.raises(PluginError, match="did you mean 'fixed-share'"):
        worlds.made(replace(SPEC, combiner="fixed-shares"))
    with pytest.raises(SpecError, match=r"combiner fixed-share: .* no field 'shares'"):
        worlds.made(replace(SPEC, settings={"shares": 0.1}))
    with pytest.raises(SpecError, match="3 weights for 2 members"):
        worlds.made(replace(SPEC, combiner="geometric", settings={"weights": (0.5, 0.25, 0.25)}))
    with pytest.raises(SpecError, match="members are one, two; given are one"):
        worlds.direct.run("many-worlds-ensemble", SPEC, {"model-one": worlds.models["one"]})


# --- whom a team chooses -----------------------------------------------------------------------------------------------------------


def by_team(worlds: Worlds, spec: ManyWorldsEnsemble, team: Mapping[str, Any]) -> Digest:
    """An ensemble of whom a report chooses among the candidates of a spec."""
    inputs = {f"model-{name}": worlds.models[name] for name in spec.members}
    chosen = worlds.store.put(canonical.dumps(dict(team)))
    return worlds.direct.run("many-worlds-ensemble", spec, {**inputs, "team": chosen})["model"]


def test_only_the_chosen_speak_and_the_others_leave_no_trace(worlds: Worlds) -> None:
    """What a team chooses is, to the byte, what naming its members makes; the best alone, pruned or not, is an ensemble of one."""
    spec = replace(SPEC, members=("one", "two"))
    assert by_team(worlds, spec, {"selectedTeam": ["two", "one"]}) == worlds.made(replace(SPEC, members=("two", "one")))
    alone = worlds.made(replace(SPEC, members=("two",)))
    assert by_team(worlds, spec, {"selectedTeam": ["two"]}) == alone
    assert by_team(worlds, replace(spec, take="best"), {"selectedTeam": ["two", "one"]}) == alone
    assert by_team(worlds, replace(spec, take="best"), {"selectedTeam": ["one"], "best": "two"}) == alone
    assert by_team(worlds, replace(spec, target="one"), {"selectedTeam": ["two", "one"]}) == worlds.ensemble
    assert by_team(worlds, replace(spec, target="one"), {"selectedTeam": ["two"]}) == worlds.ensemble


def test_an_ensemble_of_one_is_a_member_like_its_member(worlds: Worlds) -> None:
    """So candidates can be asked byte by byte, and be put together afterwards."""
    alone = worlds.made(replace(SPEC, members=("one",)))
    made = worlds.direct.run("many-worlds-ensemble", SPEC, {"model-one": alone, "model-two": worlds.models["two"]})
    assert made["model"] == worlds.ensemble


def test_a_team_of_strangers_is_refused(worlds: Worlds) -> None:
    """A report of other candidates; a choice without a report; a target beside the best."""
    with pytest.raises(InputError, match="the team has three, who is no candidate; there are one, two"):
        by_team(worlds, SPEC, {"selectedTeam": ["one", "three"]})
    with pytest.raises(SpecError, match="there is no input team"):
        worlds.made(replace(SPEC, take="best"))
    with pytest.raises(SpecError, match="target is 'one'"):
        replace(SPEC, take="best", target="one")
    with pytest.raises(SpecError, match="target is 'three'"):
        replace(SPEC, target="three")


# --- what answers ------------------------------------------------------------------------------------------------------------------


def test_the_loglikelihood_is_that_of_the_combined_bytes(worlds: Worlds, members: list[ByteLm]) -> None:
    """The sum over the continuation of what the rule says at each byte after reading the prompt; from rows of each member alone."""
    text = PROMPT + CONTINUATION
    rows = np.stack([member.rows(text)[:-1] for member in members], axis=1)
    rule = find("fixed-share", {"share": 0.05}, 2)
    mixed, _, _ = combine(rule, rule.start(), rows, text)
    expected = sum(mixed[len(PROMPT) + number, byte] for number, byte in enumerate(CONTINUATION))
    assert worlds.answers(worlds.ensemble).loglikelihood(PROMPT, CONTINUATION) == pytest.approx(expected, abs=1e-3)


def test_generating_is_greedy_in_the_combined_bytes(worlds: Worlds, members: list[ByteLm]) -> None:
    """At each byte the most likely of the rule, found again from scratch; it ends before a stop, and after so many bytes."""
    rule = find("fixed-share", {"share": 0.05}, 2)
    found = worlds.answers(worlds.ensemble)
    made = found.generate(PROMPT, 12, [])
    text = PROMPT + made
    mixed, _, _ = combine(rule, rule.start(), np.stack([member.rows(text)[:-1] for member in members], axis=1), text)
    assert len(made) == 12
    assert [int(row.argmax()) for row in mixed[len(PROMPT) :]] == list(made)
    word = made[5:7]
    assert found.generate(PROMPT, 12, [word]) == made[: made.find(word)]
    assert found.generate(PROMPT, 7, []) == made[:7]


def test_what_was_asked_before_changes_nothing(worlds: Worlds) -> None:
    """To the last bit, with other questions and generations in between."""
    found = worlds.answers(worlds.ensemble)
    first, made = found.loglikelihood(PROMPT, CONTINUATION), found.generate(PROMPT, 8, [])
    found.loglikelihood(PROMPT, b"urn right")
    found.loglikelihood(b"The river", b" ran")
    assert found.generate(PROMPT, 8, []) == made
    assert found.loglikelihood(PROMPT, CONTINUATION) == first


def test_an_ensemble_of_one_is_that_member(worlds: Worlds, members: list[ByteLm]) -> None:
    """The member's own numbers to the last bit, and its text, whatever the combiner."""
    for combiner in ("fixed-share", "geometric"):
        alone = worlds.answers(worlds.made(ManyWorldsEnsemble(members=("two",), combiner=combiner)))
        assert alone.loglikelihood(PROMPT, CONTINUATION) == members[1].loglikelihood(PROMPT, CONTINUATION)
        assert alone.generate(PROMPT, 12, [b"\n"]) == members[1].generate(PROMPT, 12, [b"\n"])


def test_what_cannot_be_read_is_refused_and_a_full_window_ends_a_text(worlds: Worlds) -> None:
    """The smallest window counts; a question is never cut silently."""
    found = worlds.answers(worlds.ensemble)
    with pytest.raises(InputError, match="128"):
        found.loglikelihood(b"a b c d " * 60, b" x")
    with pytest.raises(InputError, match="no continuation"):
        found.loglikelihood(b"x", b"")
    with pytest.raises(InputError, match="UTF-8"):
        found.loglikelihood(b"\xff", b"x")
    made = found.generate(b"a b c d " * 8, 4000, [])
    assert len(made) <= 128 * 64
    assert made[:7] == found.generate(b"a b c d " * 8, 7, [])


# --- memory --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(worlds: Worlds) -> Iterator[Callable[[int | None], None]]:
    """Sets the limit of memory."""

    def limit(value: int | None) -> None:
        worlds.direct.context.memory_bytes = value

    yield limit
    limit(None)


def test_a_limit_of_memory_decides_how_members_are_loaded_and_nothing_else(
    worlds: Worlds, limited: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the sum of the weights all are together; one byte less, at most one is alive at a time, and no more weights than the largest's."""
    sizes = {name: held_bytes(folder, "auto") for name, folder in worlds.folders.items()}
    alive: list[weakref.ref[ByteLm]] = []
    most: list[int] = []
    make = byte_lm.load

    def watched(folder: Path, *args: Any, **keys: Any) -> ByteLm:
        member = make(folder, *args, **keys)
        assert sum(value.numel() * value.element_size() for value in member.model.model.parameters()) == sizes[folder.name]
        alive.append(weakref.ref(member))
        most.append(sum(sizes[one.name] for item in alive if (one := item()) is not None))
        return member

    asked = [Question(id="c", prompt="def add", continuations=("left", " right")), Question(id="t", prompt="def add(left")]
    limited(sum(sizes.values()))
    found = worlds.answers(worlds.ensemble)
    assert isinstance(found, Ensemble)
    expected = answer(asked, found, max_bytes=4, stop=())
    del found
    gc.collect()
    monkeypatch.setattr(byte_lm, "load", watched)
    limited(sum(sizes.values()) - 1)
    found = worlds.answers(worlds.ensemble)
    assert answer(asked, found, max_bytes=4, stop=()) == expected
    assert max(most) == max(sizes.values())


def test_a_full_window_ends_a_text_at_the_same_place_in_turn(members: list[ByteLm]) -> None:
    """Where the smallest window is full; together, byte by byte, and one after another."""
    rule, full = find("fixed-share", {"share": 0.05}, 2), b"a b c d " * 15
    window = Ensemble(members, rule).generate(full, 200, [])
    assert 0 < len(window) < 200
    assert Ensemble(members, rule, ahead=0).generate(full, 200, []) == window
    loaders = [lambda member=member: member for member in members]
    assert bytes(in_turn.generate(loaders, rule, full, 200, segment=16).text) == window


def test_a_member_that_exceeds_the_limit_alone_is_refused(worlds: Worlds, limited: Callable[[int | None], None]) -> None:
    """Named, with its size; before anything is loaded. So is leaving members out, which needs all of them at once."""
    sizes = {name: held_bytes(folder, "auto") for name, folder in worlds.folders.items()}
    limited(max(sizes.values()) - 1)
    with pytest.raises(InputError, match=r"two \(.* GiB\) exceed it alone: raise it"):
        worlds.answers(worlds.ensemble)
    limited(max(sizes.values()))
    with pytest.raises(InputError, match="skipBelow 0"):
        worlds.answers(worlds.made(replace(SPEC, skip_below=0.1)))


# --- loading it as its users will ---------------------------------------------------------------------------------------------------


def test_the_check_that_it_loads_asks_it(worlds: Worlds, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its members as folders of their own, a text read and one written; too large for that, they are counted; without a ledger alike."""
    report = json.loads(worlds.store.read(worlds.direct.run("load-check", LoadCheck(), {"subject": worlds.ensemble})["report"]))
    assert (report["kind"], report["class"], report["how"]) == ("answerer", "many-worlds-ensemble", "answers")
    assert report["models"] == {f"members/{name}": "MixtralForCausalLM" for name in ("one", "two")}
    assert report["sizeBytes"] == sum((folder / "model.safetensors").stat().st_size for folder in worlds.folders.values())
    large = worlds.direct.run("load-check", LoadCheck(forward_bytes=1), {"subject": worlds.ensemble})["report"]
    counted = json.loads(worlds.store.read(large))
    assert (counted["how"], counted["parameters"]) == ("counted", report["parameters"])
    load_check.main([str(1 << 30), str(worlds.direct.context.folder(worlds.ensemble))])
    assert json.loads(capsys.readouterr().out) == report
    monkeypatch.setattr(Ensemble, "loglikelihood", lambda *_: float("nan"))
    with pytest.raises(InputError, match="log-likelihood of a text is nan"):
        worlds.direct.run("load-check", LoadCheck(), {"subject": worlds.ensemble})


def test_a_member_that_lacks_a_tensor_does_not_load(worlds: Worlds) -> None:
    """However whole the others are."""
    from safetensors.torch import load_file, save

    tensors = load_file(worlds.folders["two"] / "model.safetensors")
    tensors.pop(next(name for name in sorted(tensors) if "q_proj" in name))
    files = {item.path: item for item in tree.load(worlds.store, worlds.models["two"]).entries}
    data = save(tensors, {"format": "pt"})
    files["model.safetensors"] = TreeEntry("model.safetensors", worlds.store.put(data), len(data))
    broken = worlds.store.put(Tree.of(files.values()).to_bytes())
    inputs = {"model-one": worlds.models["one"], "model-two": broken}
    ensemble = worlds.direct.run("many-worlds-ensemble", SPEC, inputs)["model"]
    with pytest.raises(InputError, match="has no weights for 1 of its tensors"):
        worlds.direct.run("load-check", LoadCheck(), {"subject": ensemble})


def test_settings_of_cost_reach_the_ensemble(worlds: Worlds) -> None:
    """What the tree says is how members are asked; another package's load sees the same."""
    found = worlds.answers(worlds.made(replace(SPEC, skip_below=0.02, tolerance=0.001)))
    assert isinstance(found, Ensemble)
    assert found.skip_below == 0.02
    assert [(member.name, member.tolerance) for member in found.members] == [("one", 0.001), ("two", 0.001)]


# --- measured, and in a recipe -----------------------------------------------------------------------------------------------------


def test_it_is_measured_like_any_model(worlds: Worlds) -> None:
    """Choices and numbers; twice the same bytes, and cut otherwise into blocks too."""
    spec = QuestionBenchmark(benchmark="arc", asking=Asking(kind="multiple-choice"), block_questions=4)
    inputs = {"model": worlds.ensemble, "dataset": worlds.store.put(lines(CHOICES))}
    made = worlds.direct.run("question-benchmark", spec, inputs)
    assert made == worlds.direct.run("question-benchmark", replace(spec, block_questions=3), inputs)
    record = json.loads(worlds.store.read(made["records"]).splitlines()[1])
    asked = worlds.answers(worlds.ensemble)
    wanted = [asked.loglikelihood(b"Pick 1:", text) for text in (b" left", b" right")]
    assert [float(value) for value in record["logLikelihoods"]] == pytest.approx(wanted)


def test_the_weights_of_every_question_are_kept(worlds: Worlds) -> None:
    """Who spoke, of each choice and each text, is in the records; the mean of each member is stated with the result, and in the table."""
    for kind, rows, about in (("multiple-choice", CHOICES, 2), ("numeric-answer", NUMBERS, 1)):
        spec = QuestionBenchmark(benchmark="own", asking=Asking(kind=cast(Kind, kind)), max_bytes=8)
        inputs = {"model": worlds.ensemble, "dataset": worlds.store.put(lines(rows))}
        made = worlds.direct.run("question-benchmark", spec, inputs)
        records = [json.loads(line) for line in worlds.store.read(made["records"]).splitlines()]
        assert [len(record["about"]) for record in records] == [about] * len(rows)
        means = []
        for record in records:
            assert all(set(one["shares"]) == {"first", "last", "mean"} and one["most"] in SPEC.members for one in record["about"])
            means.append(np.mean([float(one["shares"]["mean"]["one"]) for one in record["about"]]))
        stated = json.loads(worlds.store.read(made["metrics"]))["shares"]
        assert float(stated["one"]) == pytest.approx(np.mean(means), abs=1e-4)
        assert float(stated["one"]) + float(stated["two"]) == pytest.approx(1, abs=1e-3)
        alone = worlds.direct.run("question-benchmark", spec, inputs | {"model": worlds.models["one"]})
        assert b"about" not in worlds.store.read(alone["records"])
        assert b"shares" not in worlds.store.read(alone["metrics"])
        inputs = {f"{output}-{who}": found[output] for who, found in (("all", made), ("base", alone)) for output in ("metrics", "records")}
        compare = QuestionCompare(
            rows=(Row(name="base", variant="base", benchmark="own"), Row(name="all", variant="all", benchmark="own", baseline="base"))
        )
        report = worlds.direct.run("question-compare", compare, inputs | {"model-all": worlds.ensemble, "model-base": worlds.models["one"]})
        titles, base, whole = json.loads(worlds.store.read(report["report"]))["table"]
        assert (titles[-1], base[-1]) == ("who spoke", "")
        first, second = sorted(stated, key=lambda name: -float(stated[name]))
        assert whole[-1] == f"{first} {100 * float(stated[first]):.1f} %, {second} {100 * float(stated[second]):.1f} %"


RECIPE = """
name: worlds
version: 1.0.0
stages:
  - {type: import-model, id: mine, folder: one}
  - {type: many-worlds-ensemble, targetModel: mine, specialists: [models/two, models/three/model], settings: {share: 0.05}, vramGb: 8}
  - {type: eval, benchmarks: [{name: numeric-answer, dataset: set.jsonl}]}
"""


def test_the_recipe_form_loads() -> None:
    """Members are earlier stages or folders, the target first; the settings are written out; the ensemble is what is evaluated."""
    plan = lowering.lower(recipe.parse(RECIPE), lambda path: Digest.of(str(path).encode()))
    node = next(node for node in plan.graph.nodes if node.id == "many-worlds-ensemble")
    assert node.spec == ManyWorldsEnsemble(members=("mine", "two", "three"), settings={"share": "0.05"})
    assert set(node.inputs) == {"model-mine", "model-two", "model-three"}
    assert spec_from_json(ManyWorldsEnsemble, spec_to_json(node.spec)) == node.spec
    asked = next(node for node in plan.graph.nodes if node.id == "eval/many-worlds-ensemble")
    assert recipe.parse(RECIPE).memory_bytes == 8 * 2**30
    assert str(asked.inputs["model"]) == "Ref(node='many-worlds-ensemble', output='model')"


def test_the_published_forms_load() -> None:
    """`alpha` is that of alpha-blend; without stages the source's members are combined."""
    text = RECIPE.replace("settings: {share: 0.05}", "method: logit-blend, alpha: 1, blendStrategy: full-distribution")
    nodes = {node.id: node for node in lowering.lower(recipe.parse(text), lambda path: Digest.of(b"")).graph.nodes}
    assert (nodes["many-worlds-ensemble"].spec.combiner, nodes["many-worlds-ensemble"].spec.settings) == ("alpha-blend", {"alpha": "1.0"})
    source = '{"target": {"baseModel": "a/t"}, "specialists": [{"baseModel": "a/one"}]}'
    short = recipe.parse(f'{{"name": "worlds", "version": "1.0.0", "type": "many-worlds-ensemble", "source": {source}}}')
    (node,) = (node for node in lowering.lower(short, lambda path: Digest.of(b"")).graph.nodes if node.id == "many-worlds-ensemble")
    assert (node.spec.members, node.spec.combiner) == (("t", "one"), "fixed-share")


@pytest.mark.parametrize(
    ("keys", "combiner", "settings"),
    [
        ("method: logit-blend, alpha: 0.3, topK: 10", "first-token-boost", {"alpha": "0.3", "top_k": 10}),
        ("blendStrategy: specialist-top-k-boost", "first-token-boost", {"alpha": "0.2", "top_k": 20}),
        ("blendStrategy: weighted-average, topK: 20", "alpha-blend", {"alpha": "0.2"}),
        ("alpha: 0.1", "alpha-blend", {"alpha": "0.1"}),
        ("combiner: unite", "unite", {"top_k": 10}),
    ],
)
def test_published_strategies_are_combiners(keys: str, combiner: str, settings: dict[str, Any]) -> None:
    """With their published defaults; the boost runs as the baseline that it is."""
    text = RECIPE.replace("settings: {share: 0.05}", keys)
    nodes = {node.id: node for node in lowering.lower(recipe.parse(text), lambda path: Digest.of(b"")).graph.nodes}
    assert (nodes["many-worlds-ensemble"].spec.combiner, nodes["many-worlds-ensemble"].spec.settings) == (combiner, settings)


def test_baselines_are_artifacts_that_answer_like_any_ensemble(worlds: Worlds) -> None:
    """The answerer of a tree says what the baseline says of the members' folders, with the settings that the tree has."""
    pair = [TokenMember(worlds.folders[name]) for name in SPEC.members]
    expected: dict[str, Answerer] = {
        "first-token-boost": FirstTokenBoost(pair[0], pair[1:], alpha=1.0, top_k=5),
        "unite": Unite(pair, top_k=5),
    }
    for combiner, settings in (("first-token-boost", {"alpha": 1.0, "top_k": 5}), ("unite", {"top_k": 5})):
        found = worlds.answers(worlds.made(replace(SPEC, combiner=combiner, settings=settings)))
        assert found.loglikelihood(PROMPT, CONTINUATION) == expected[combiner].loglikelihood(PROMPT, CONTINUATION)
        assert found.generate(PROMPT, 6, []) == expected[combiner].generate(PROMPT, 6, [])
    alone = worlds.answers(worlds.made(ManyWorldsEnsemble(members=("one",), combiner="first-token-boost")))
    assert alone.loglikelihood(PROMPT, CONTINUATION) == FirstTokenBoost(pair[0], []).loglikelihood(PROMPT, CONTINUATION)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("targetModel: mine, ", "", "line 6: .*needs targetModel"),
        ("specialists: [models/two, models/three/model]", "specialists: models/two", "line 6: .*needs specialists"),
        ("models/three/model", "other/two", "line 6: .*two are called two"),
        ("share: 0.05", "share: 2", r"line 6: combiner fixed-share: share is 2\.0|line 6: .*share is 2\.0"),
        ("share: 0.05", "chare: 2", "line 6: combiner fixed-share: .*no field 'chare'"),
        ("settings: {share: 0.05}", "combiner: fixed-shares", "line 6: .*did you mean 'fixed-share'"),
        ("settings: {share", "setings: {share", "did you mean 'settings'"),
        ("vramGb: 8", "topK: 20", "line 6: topK names a combiner and its setting"),
        ("settings: {share: 0.05}", "topK: 0", "line 6: combiner first-token-boost: .*top_k at least 1"),
        ("settings: {share: 0.05}", "blendStrategy: top-k", "line 6: blendStrategy is 'top-k'; it must be one of specialist-top-k-boost"),
        ("settings: {share: 0.05}", "combiner: unite, tolerance: 0.1", "line 6: combiner unite reads tokens; .* leave them out"),
        (
            "settings: {share: 0.05}",
            "combiner: uncertainty-gate, settings: {inner: unite}",
            "line 6: combiner unite reads tokens and not bytes",
        ),
        ("vramGb: 8", "method: soft-prompt", "line 6: method is 'soft-prompt': that is a bridge"),
        ("vramGb: 8", "method: vote", "line 6: method is 'vote'; it is logit-blend"),
        ("vramGb: 8", "vramGb: much", "line 6: vramGb is 'much'"),
        ("vramGb: 8", "alpha: 0.2", "line 6: alpha names a combiner and its setting"),
    ],
)
def test_faults_of_recipes_are_told_with_their_line(old: str, new: str, message: str) -> None:
    """Found when the recipe is read."""
    assert old in RECIPE
    with pytest.raises((RecipeError, SpecError), match=message):
        lowering.lower(recipe.parse(RECIPE.replace(old, new, 1)), lambda path: Digest.of(b""))


def test_from_recipe_to_signed_evaluation(worlds: Worlds, tmp_path: Path) -> None:
    """Through the runner and its workers: the ensemble is made once, and its accuracy is a signed claim about it."""
    from stages import events
    from stages.runner import RunFailedError
    from tests.homes import Home

    (tmp_path / "set.jsonl").write_bytes(lines(NUMBERS))
    (tmp_path / "picks.jsonl").write_bytes(lines(CHOICES))
    home = Home(tmp_path)
    one, two = (worlds.folders[name] for name in SPEC.members)
    text = (
        f" - {{type: many-worlds-ensemble, targetModel: {one}, specialists: [{two}], settings: {{share: 0.05}}}}\n"
        " - type: eval\n   benchmarks:\n"
        "    - {name: numeric-answer, dataset: set.jsonl, maxBytes: 8}\n    - {name: multiple-choice, dataset: picks.jsonl, questions: 2}\n"
    )
    result = home.run(text, jobs=1)  # a second worker would load it all once more
    ensemble = result.outputs["many-worlds-ensemble"]["model"]
    rows = json.loads(result.alloy.read_text())["results"]["benchmarks"]
    assert {row["digest"] for row in rows} == {str(ensemble)}
    assert len(rows) == 2
    assert all(set(row["shares"]) == set(SPEC.members) for row in rows)
    first, second = (item for item in ensemble_tree.checked(home.store, ensemble).members)
    assert (first.name, second.name) == ("one", "two")
    home.run(text)
    assert not home.heard(events.Started)
    home.run(text.replace("settings:", "vramGb: 8, settings:"))
    assert not home.heard(events.Started)
    with pytest.raises(RunFailedError, match="exceed it alone"):
        home.run(text.replace("settings:", "vramGb: 0.00001, settings:").replace("questions: 2", "questions: 2, blockQuestions: 1"))
