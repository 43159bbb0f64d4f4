"""The page of results: each number with its interval, controls that win first, open questions called open, and nothing unattested."""

from __future__ import annotations

import doctest
import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ledger import policy_text, predicates, statement
from ledger.log import Log
from ledger.testing import UnsafeSigner, append_runs, reopened, run_payload, unsafe_log
from stages import lowering, question_compare, recipe
from stages.bridge_protocol import report as bridge_report
from stages.context import LeafContext
from stages.lowering import Plan
from stages.question_kinds import OUTCOMES, Kind
from stages.question_merge import parse_records, summary
from stages.results import write
from stages.stage import Graph
from store import canonical, tree
from store.actions import Action
from store.digest import Digest
from store.local import LocalCas

EXAMPLE = Path(__file__).parents[2] / "examples" / "many-worlds"
COUNT = 20
KINDS: Mapping[str, tuple[str, Kind]] = {
    "arithmetic": ("numeric-answer", "numeric-answer"),
    "code": ("code-execution", "code-execution"),
    "facts": ("multiple-choice", "multiple-choice"),
}
Right = Callable[[str, str, int], bool]
"""Whether a model (name) is right about a question (domain, number)."""
OTHERS = ("bayes", "first-token-boost")


def ours(name: str, domain: str, number: int) -> bool:
    """The three are right about their own, all but one; together they are right about everything that one of them is; v13 is the first."""
    if name in KINDS or name == "first-token-boost":
        return domain == (name if name in KINDS else "arithmetic") and number > 0
    return number > 0


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """make_results and results_page, as python finds them beside each other."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    for name in ("make_results", "results_page"):
        sys.modules.pop(name, None)
    import importlib

    return importlib.import_module("make_results"), importlib.import_module("results_page")


@dataclass
class World:
    """A ledger with three made-up runs, signed by alice.

    Attributes:
        losses: of each version of the bridge, condition -> nats per byte of each text.
    """

    folder: Path
    right: Right = ours
    losses: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    about: bool = True

    def __post_init__(self) -> None:
        self.log, self.store = unsafe_log(self.folder), LocalCas(self.folder / ".ledger")
        (self.folder / ".ledger" / "policy.yaml").write_text(policy_text.starting("alice", UnsafeSigner("alice").public))
        self.materials = {f"questions/report-{domain}.jsonl": self.store.put(f"questions of {domain}".encode()) for domain in KINDS}
        self.models = {name: self._model(name, [name]) for name in KINDS}
        self.models |= {name: self._model(name, list(KINDS)) for name in ("fixed-share", *OTHERS)}
        self.models["population"] = self.models["fixed-share"]
        self.metrics: dict[tuple[str, str], tuple[Digest, Digest, Digest]] = {}
        self.payloads: list[bytes] = []
        for name in self.models:
            for domain in KINDS:
                self.metrics[name, domain] = self._asked(name, domain)
        self._main()
        self._baselines()
        self._bridges()
        self.log.append(self.payloads, ["made up"] * len(self.payloads))
        for name, (outputs, keys) in self.runs.items():
            write(
                recipe.parse(f"name: {name}\nversion: 1.0.0\nstages: [{{type: eval}}]"),
                Plan(Graph((), {}), (), {}, self.materials),
                outputs,
                dict.fromkeys(keys, "2023-11-14T22:13:21Z"),
                store=self.store,
                log=self.log,
                policy=self._policy(),
                out=self.folder,
            )

    def _policy(self) -> Any:
        from ledger.policy import Policy

        return Policy.load(self.folder / ".ledger" / "policy.yaml")

    def _run(self, stage: str, inputs: Mapping[str, Digest], outputs: Mapping[str, Digest], claim: Any = None) -> Digest:
        action = Action(stage, 1, {"makes": {name: str(digest) for name, digest in outputs.items()}}, dict(inputs))
        self.payloads.append(run_payload(action, outputs))
        if claim is not None:
            subject = {name: digest for name, digest in inputs.items() if name in ("model", "bridge")}
            self.payloads.append(statement.make(subject, predicates.EVALUATION, {"action": str(action.key), **claim}))
        return action.key

    def _model(self, name: str, members: Sequence[str]) -> Digest:
        config = {
            "combiner": {"name": "fixed-share" if name in KINDS else name, "settings": {"share": "0.01"}},
            "members": [{"digest": str(Digest.of(item.encode())), "name": item} for item in members],
        }
        data = canonical.dumps(config)
        entry = tree.TreeEntry("config.json", self.store.put(data), len(data))
        return self.store.put(tree.Tree.of([entry]).to_bytes())

    def _asked(self, name: str, domain: str) -> tuple[Digest, Digest, Digest]:
        """Metrics, records and the key of one evaluation."""
        label, kind = KINDS[domain]
        who = {member: "0.9000" if member == domain else "0.0500" for member in KINDS}
        told = {"about": [{"shares": {"mean": who}}]} if name == "population" and self.about else {}
        lines = []
        for number in range(COUNT):
            outcomes = dict.fromkeys(OUTCOMES[kind], self.right(name, domain, number))
            lines.append(canonical.dumps({"id": f"{domain}{number}", "cluster": f"{number}", "outcomes": outcomes, **told}) + b"\n")
        records = b"".join(lines)
        claim = {
            "benchmark": label,
            "dataset": {"digest": {"sha256": self.materials[f"questions/report-{domain}.jsonl"].hex}},
            "questions": {"counted": COUNT, "clusters": COUNT},
            "metrics": summary(kind, parse_records(records)),
            "settings": {"asking": {"kind": kind}},
        }
        outputs = {"metrics": self.store.put(canonical.dumps(claim)), "records": self.store.put(records)}
        inputs = {"model": self.models[name], "dataset": self.materials[f"questions/report-{domain}.jsonl"]}
        if name == "fixed-share":  # the population, which is asked once
            return outputs["metrics"], outputs["records"], Digest.of(b"")
        return outputs["metrics"], outputs["records"], self._run("question-merge", inputs, outputs, claim)

    def _compared(self, base: str, names: Sequence[str]) -> tuple[Digest, list[Digest]]:
        rows, inputs = [], {}
        for name in (base, *names):
            for domain, (label, _) in KINDS.items():
                row = f"{name}-{label}"
                rows.append(
                    question_compare.Row(name=row, variant=name, benchmark=label, baseline=f"{base}-{label}" if name != base else None)
                )
                model = "arithmetic" if name == "best-single" else name
                inputs[f"model-{row}"] = self.models[model]
                inputs[f"metrics-{row}"], inputs[f"records-{row}"], _ = self.metrics[model, domain]
        context = LeafContext(self.store, self.folder / "scratch", self.folder / "keep")
        made = question_compare.run(question_compare.QuestionCompare(rows=tuple(rows)), inputs, context).outputs
        return made["report"], [self._run("question-compare", inputs, made)]

    def _main(self) -> None:
        made = {name: self._run("many-worlds-ensemble", {}, {"model": self.models[name]}) for name in self.models}
        gain, one = self._compared("best-single", ["population"])
        members, two = self._compared("population", list(KINDS))
        team = {
            "questions": {"select": 30, "heldOut": 40},
            "selectedTeam": list(KINDS),
            "confirmation": {
                "single": "arithmetic", "anyone": "0.95", "alone": "0.5", "against": {"wins": 18, "losses": 0, "p": "0.0000076"},
                "control": "0.55", "againstControl": {"mean": "0.4", "low": "0.2", "high": "0.6", "clusters": 40},
            },
        }  # fmt: skip
        searched = {"team": self.store.put(canonical.dumps(team)), "picture": self.store.put(b"<svg/>")}
        asked = {f"metrics-{KINDS[domain][0]}": self.metrics["population", domain][0] for domain in KINDS}
        outputs = {
            **{name: {"model": self.models[name]} for name in KINDS},
            "best-single": {"model": self.models["arithmetic"]},
            "population": {"model": self.models["population"]},
            "team-search": searched,
            "gain": {**asked, "report": gain},
            "members": {"report": members},
        }
        keys = [
            *made.values(),
            *one,
            *two,
            self._run("team-search", {}, searched),
            *(self.metrics["population", item][2] for item in KINDS),
        ]
        self.runs: dict[str, tuple[dict[str, dict[str, Digest]], list[Digest]]] = {"many-worlds": (outputs, keys)}

    def _baselines(self) -> None:
        single, one = self._compared("arithmetic", ["code", "facts", "fixed-share", *OTHERS])
        shipped, two = self._compared("fixed-share", OTHERS)
        models = {name: {"model": digest} for name, digest in self.models.items() if name != "population"}
        outputs = {**models, "over-best-single": {"report": single}, "over-shipped": {"report": shipped}}
        self.runs["many-worlds-baselines"] = (outputs, [*one, *two])

    def _bridges(self) -> None:
        outputs, keys = {}, []
        for version, losses in (self.losses or {"v1": bridged()}).items():
            content = bridge_report.report(bridge_report.Losses(losses, {}, losses["none"], ["code"] * len(losses["none"]))) | {
                "benchmark": "many-worlds-bridge",
                "settings": {"version": version},
                "sources": ["arithmetic"],
                "target": "code",
                "texts": {"heldOut": len(losses["none"]), "scoredBytes": 640},
            }
            metrics = self.store.put(canonical.dumps(content))
            keys.append(self._run("bridge-evaluate", {"bridge": Digest.of(version.encode())}, {"metrics": metrics}))
            outputs[f"many-worlds-bridge[version={version}]"] = {"metrics": metrics}
        self.runs["worlds-bridges"] = (outputs, keys)


def bridged(**mean: float) -> dict[str, list[float]]:
    """Losses of ten texts under the conditions of a report: 1 + what is said of it, and a little that differs from text to text."""
    level = {"bridge": 0.0, "none": 0.1, "prompt": 0.05, "shuffled": 0.08, "bytes-fixed-share": 0.2} | {
        key.replace("_", "-"): value for key, value in mean.items()
    }
    return {name: [1 + value + 0.002 * ((7 * place + text) % 5) for text in range(10)] for place, (name, value) in enumerate(level.items())}


def made(world: World, scripts: tuple[ModuleType, ModuleType]) -> dict[str, str]:
    """The files that come of it."""
    evidence = scripts[0].collect(world.folder / ".ledger", world.folder)
    return {path.name: path.read_text() for path in scripts[0].write(evidence, world.folder / "page")}


_NUMBER = re.compile(r"[+-]\d+\.\d+|\d+\.\d+ %")
_UNIT = r"(?: points of questions| points)?"
_WHOLE = re.compile(rf"^(?:[+-]?\d+\.\d+(?: %)? \[\S+, \S+\]{_UNIT}|\+0\.0 \(answered alike throughout\){_UNIT})$")


def test_every_number_stands_with_its_interval(tmp_path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    """The gain in the first sentence is what the outcomes make it; no difference, accuracy or loss in a table is without an interval."""
    world = World(tmp_path)
    files = made(world, scripts)
    assert made(world, scripts) == files  # the same artifacts give the same bytes
    page = files["many-worlds.md"]
    first = page.splitlines()[2]
    assert "95.0 % [86.3, 98.3] of 60 questions" in first
    assert "(arithmetic) 31.7 % [21.3, 44.2]: a gain of +63.3 [+50.8, +75.9] points, won 38, lost 0, p = 2.9e-11 (Holm)" in first
    assert first.endswith("On no member's own domain is a loss resolved.")
    assert "| code | all 60 | 31.7 % [21.3, 44.2] | -63.3 [-75.9, -50.8] | 0 : 38 |" in page
    cells = [cell.strip() for line in page.splitlines() if line.startswith("|") for cell in line.strip("|").split("|")]
    told = [cell for cell in cells if _NUMBER.match(cell)]
    assert len(told) > 60
    assert [cell for cell in told if not _WHOLE.match(cell)] == []
    assert (
        "| arithmetic | arithmetic (its own) | 95.0 % [76.4, 99.1] | +0.0 (answered alike throughout) | 0 : 0 | 1 | not resolved |" in page
    )
    assert "| code | code | 90.0 [90.0, 90.0] |" in page
    assert set(re.findall(r"\]\((many-worlds-\w+\.svg)\)", page)) == set(files) - {"many-worlds.md"}


def test_a_control_that_wins_is_named_first_and_in_words(tmp_path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    """A better combination, a member that is better alone, and whatever beats a bridge: each begins what is said."""

    def right(name: str, domain: str, number: int) -> bool:
        if name in ("population", "fixed-share") and domain == "facts":
            return number > 12
        return ours(name, domain, number)

    losses = {"v1": bridged(prompt=-0.3), "v9": bridged()}
    page = made(World(tmp_path, right, losses), scripts)["many-worlds.md"]
    assert "**On their own domain these members do better than the population, resolved: facts by +60.0 [" in page.splitlines()[2]
    parts = dict(re.findall(r"^## (.+)\n\n(.+)$", page, re.MULTILINE))
    assert parts["Every way to put them together"].startswith("**Better than fixed-share, which ships: bayes.**")
    constant = "the same bridge trained on a constant, without any source"
    assert parts["Every version of the bridge"].startswith(f"**Controls that win: {constant} against 1 of 2 versions.**")
    row = next(line for line in page.splitlines() if line.startswith("| v1 |"))
    assert row.endswith(f"| **{constant} beats it**; better than the target alone |")
    assert f"| {constant} | -0.3" in row


def test_a_member_that_did_better_than_the_one_chosen_is_told(tmp_path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    """The search chose on other questions; where another member alone is ahead on these, the page says so beside the gain."""

    def right(name: str, domain: str, number: int) -> bool:
        return ours(name, domain, number) or (name == "code" and domain == "facts" and number > 0)

    first = made(World(tmp_path, right), scripts)["many-worlds.md"].splitlines()[2]
    assert "On these questions code (-31.7 [" in first
    assert first.endswith("answered more than the one that the search found best.")


def test_what_is_open_is_called_so(tmp_path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    """Neither a gain nor a loss is said where none is resolved: of the population, of a combination, of a bridge."""

    def right(name: str, domain: str, number: int) -> bool:
        return number > (1 if name in ("population", "fixed-share") else 2)

    page = made(World(tmp_path, right, {"v1": bridged(none=0.0, prompt=0.0, shuffled=0.0)}, about=False), scripts)["many-worlds.md"]
    assert ": **not resolved**: +5.0 points" not in page
    assert ": **not resolved**: +5.0" in page.splitlines()[2]
    parts = dict(re.findall(r"^## (.+)\n\n(.+)$", page, re.MULTILINE))
    assert parts["Every way to put them together"] == "Not resolved from fixed-share: bayes, first-token-boost."
    assert parts["Every version of the bridge"].startswith("Better than the target alone, resolved: none.")
    assert "no gain over the target alone is resolved |" in next(line for line in page.splitlines() if line.startswith("| v1 |"))
    assert parts["Who speaks"].endswith("These do not tell who spoke.")


def test_what_is_unattested_or_changed_is_refused(tmp_path: Path, scripts: tuple[ModuleType, ModuleType]) -> None:
    """An alloy with another digest in it, a report that only a stranger attests, changed bytes, a missing run: no page, and why."""
    world, module = World(tmp_path), scripts[0]
    alloy = tmp_path / "many-worlds-baselines.alloy.json"
    before = alloy.read_text()
    evidence = module.collect(tmp_path / ".ledger", tmp_path)
    value = json.loads(before)
    item = next(item for item in value["results"]["artifacts"] if item["stage"] == "over-shipped")
    own = Digest.parse(item["digest"])
    forged = canonical.loads(world.store.read(own))
    forged["pooled"][0]["difference"]["mean"] = "0.9"
    item["digest"] = str(world.store.put(canonical.dumps(forged)))
    alloy.write_text(json.dumps(value))
    with pytest.raises(module.ResultsError, match="is FAILED"):
        module.collect(tmp_path / ".ledger", tmp_path)
    eve = reopened(tmp_path, signer="eve")
    append_runs(eve, [(Action("question-compare", 1, {}, {}), {"report": Digest.parse(item["digest"])})])
    evidence.log = Log.open(tmp_path / ".ledger")
    evidence.alloys["baselines"] = value
    with pytest.raises(module.ResultsError, match="attested by nobody"):
        module.write(evidence, tmp_path / "page")
    assert not (tmp_path / "page").exists()
    evidence.alloys["baselines"] = json.loads(before)
    file = world.store.blob_file(own)
    file.chmod(0o644)
    file.write_bytes(canonical.dumps(forged))
    with pytest.raises(module.ResultsError, match=r"over-shipped\.report"):
        module.write(evidence, tmp_path / "page")
    alloy.unlink()
    with pytest.raises(module.ResultsError, match="run its recipe first"):
        module.collect(tmp_path / ".ledger", tmp_path)


def test_baselines_are_every_combiner_asked_as_the_main_job_asks(scripts: tuple[ModuleType, ModuleType]) -> None:
    """Each combiner of ours has a row in both comparisons, but the one that ships; what is asked, and how, is as in recipe.yaml."""
    loaded = {
        run: recipe.load(EXAMPLE / f"{name}.yaml") for run, name in (("main", "recipe"), ("baselines", "baselines"), ("bridges", "bridges"))
    }
    assert {run: item.name for run, item in loaded.items()} == scripts[0].ALLOYS
    for item in loaded.values():
        lowering.lower(item, lambda path: Digest.of(str(path).encode()))
    stages = {stage.id: stage.fields for stage in loaded["baselines"].stages}
    ensembles = [stage for stage in loaded["baselines"].stages if stage.type == "many-worlds-ensemble" and stage.fields["specialists"]]
    rules = {stage.fields.get("combiner", "geometric" if "fit" in stage.fields else "first-token-boost") for stage in ensembles}
    project = tomllib.loads((EXAMPLE.parents[1] / "pyproject.toml").read_text())["project"]
    assert rules == {*project["entry-points"]["alloy_ledger.combiners"]}
    members = [stage.id for stage in ensembles]
    assert [name for name in stages["over-best-single"]["models"] if name in members] == members
    assert stages["over-shipped"]["models"] == [name for name in members if name != stages["over-shipped"]["compareTo"]]
    asked = next(stage.fields["benchmarks"] for stage in loaded["main"].stages if stage.id == "gain")
    mine = [{key: value for key, value in item.items() if key != "questions"} for item in stages["over-best-single"]["benchmarks"]]
    assert mine == asked


def test_examples_in_its_docstrings(scripts: tuple[ModuleType, ModuleType]) -> None:
    """They hold."""
    assert doctest.testmod(scripts[1]).failed == 0
