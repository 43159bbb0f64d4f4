"""The blast radius of a key: what loses its last trusted signature, and what is made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ledger.log import Log
from ledger.memory import Memory
from ledger.policy import Policy, Span
from ledger.predicates import EVALUATION
from ledger.publication import Publication
from ledger.radius import Radius, radius
from ledger.statement import make
from ledger.testing import UnsafeSigner, append_runs, unsafe_log, unsafe_policy
from store.actions import Action
from store.digest import Digest

POLICY = unsafe_policy("alice", "bob")


def run(name: str, *inputs: str) -> tuple[Action, dict[str, Digest]]:
    """An action that makes `name` of others."""
    return Action("make", 1, {"name": name}, {item: Digest.of(item.encode()) for item in inputs}), {name: Digest.of(name.encode())}


def by(folder: Path, name: str) -> Log:
    return Log.open(folder / ".ledger", signer=UnsafeSigner(name), memory=Memory(folder / "state"))


def without(name: str, until: int) -> Policy:
    return replace(POLICY, spans={name: Span(0, until)})


def of(log: Log, after: Policy, before: Policy = POLICY) -> Radius:
    contents = {"tiny": [Digest.of(b"c")], "other": [Digest.of(b"z")]}
    return radius(tuple(log.entries()), before, after, contents=lambda one: contents.get(one.name, []))


def names(found: Radius) -> tuple[list[str], list[str]]:
    return [one.name for one in found.artifacts], [one.name for one in found.later_artifacts]


def test_what_a_key_alone_signed_is_lost_and_what_is_made_of_it_is_downstream(tmp_path: Path) -> None:
    """Bob made b of a; alice made c of b, and z of nothing."""
    log = unsafe_log(tmp_path)
    append_runs(log, [run("a")])
    append_runs(by(tmp_path, "bob"), [run("b", "a")])
    append_runs(log, [run("c", "b"), run("d", "c"), run("z")])
    found = of(log, without("bob", 0))
    assert names(found) == (["b"], ["c", "d"])
    assert [(one.entry, one.action.spec["name"]) for one in found.actions] == [(1, "b")]
    assert [one.entry for one in found.later_actions] == [2, 3]
    assert [entry.number for entry in found.statements] == [1]
    assert found.confirmed == 0


def test_what_another_trusted_key_says_too_is_not_lost(tmp_path: Path) -> None:
    """Nor what is made of it."""
    log = unsafe_log(tmp_path)
    append_runs(by(tmp_path, "bob"), [run("a"), run("b", "a")])
    append_runs(log, [run("a"), run("c", "b")])
    found = of(log, without("bob", 0))
    assert names(found) == (["b"], ["c"])
    assert ([entry.number for entry in found.statements], found.confirmed) == ([0, 1], 1)


def test_an_object_with_another_maker_is_whole(tmp_path: Path) -> None:
    """Two actions gave the same bytes; one of them rests on what is lost."""
    log = unsafe_log(tmp_path)
    append_runs(by(tmp_path, "bob"), [run("b")])
    same = {"out": Digest.of(b"same")}
    append_runs(log, [(run("x", "b")[0], same), (run("y")[0], same), run("last")])
    found = of(log, without("bob", 0))
    assert names(found) == (["b"], [])
    assert [one.action.spec["name"] for one in found.later_actions] == ["x"]


def test_from_an_entry_on(tmp_path: Path) -> None:
    """What was signed before stays."""
    log = unsafe_log(tmp_path, signer="bob")
    append_runs(log, [run("a"), run("b", "a"), run("c", "b")])
    assert names(of(log, without("bob", 3))) == ([], [])
    assert names(of(log, without("bob", 2))) == (["c"], [])
    assert names(of(log, without("bob", 1))) == (["b", "c"], [])
    assert of(log, POLICY).statements == ()


def test_publications_are_lost_or_rest_on_what_is(tmp_path: Path) -> None:
    """One that bob released; one of alice's that holds c, which is made of b; one that holds z."""
    log = unsafe_log(tmp_path)
    append_runs(by(tmp_path, "bob"), [run("b")])
    append_runs(log, [run("c", "b"), run("z")])

    def release(name: str) -> Publication:
        return Publication(
            event="released", target=f"hf:org/{name}", name=name, version="1", alloy=(f"{name}.json", Digest.of(name.encode()))
        )

    for who, name in (("bob", "his"), ("alice", "tiny"), ("alice", "other")):
        by(tmp_path, who).append([release(name).payload()], [name])
    log.append([make({"x": Digest.of(b"x")}, "urn:alloy-ledger:publication:v1", {"event": "odd"})], ["odd"])
    by(tmp_path, "bob").append([make({"c": Digest.of(b"c")}, EVALUATION, {"benchmark": "perplexity"})], ["evaluation"])
    found = of(log, without("bob", 0))
    assert [one.publication.name for one in found.publications] == ["his"]
    assert [one.publication.name for one in found.later_publications] == ["tiny"]
    assert [entry.message for entry in found.statements][-1] == "evaluation"


def test_a_release_and_its_reading_back_are_one_publication(tmp_path: Path) -> None:
    """What was released and then published at one place is lost once; another version there is another."""
    log = unsafe_log(tmp_path, signer="bob")
    said = []
    for version in ("1", "2"):
        alloy = ("tiny.json", Digest.of(version.encode()))
        released = Publication(event="released", target="hf:org/tiny", name="tiny", version=version, alloy=alloy)
        said += [
            released,
            replace(
                released,
                event="published",
                revision="a" * 40,
                url="https://hub.example/org/tiny",
                files=3,
                compared_on="2026-01-01T00:00:00Z",
            ),
        ]
    log.append([one.payload() for one in said], [one.line() for one in said])
    found = of(log, without("bob", 0))
    assert [(one.entries, one.events) for one in found.publications] == [
        ((0, 1), ("released", "published")),
        ((2, 3), ("released", "published")),
    ]
    part = of(log, without("bob", 3))
    assert [one.entries for one in part.publications] == [(3,)]
    assert part.later_publications == ()


def test_a_threshold_that_is_met_no_more(tmp_path: Path) -> None:
    """Two of two said it in two entries; without one of them nobody says it."""
    both = replace(POLICY, rules=(replace(POLICY.rules[0], threshold=2),))
    log = unsafe_log(tmp_path)
    append_runs(log, [run("a")])
    append_runs(by(tmp_path, "bob"), [run("a")])
    found = of(log, replace(both, spans={"bob": Span(0, 0)}), both)
    assert names(found) == (["a"], [])
    assert [entry.number for entry in found.statements] == [0, 1]
