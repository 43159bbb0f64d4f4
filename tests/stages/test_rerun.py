"""Making recorded runs again with an executor of the test's own: how each outcome is told from the others, and what is signed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ledger import predicates, statement
from ledger.entries import Entry
from ledger.errors import ContradictionError, SignatureError, StatementError, UntrustedError
from ledger.log import Log
from ledger.lookup import find
from ledger.memory import Memory
from ledger.policy import Policy
from ledger.testing import UnsafeSigner, run_payload
from stages.events import Finished
from stages.executor import Broke, Done, Job, Report
from stages.nll import Nll
from stages.rerun import Receipt, Rerun, changes, runs_behind, unconfirmed, vouched
from store.actions import Action
from store.digest import Digest
from store.local import LocalCas
from tests.inline import Inline

HERE: dict[str, Any] = {"cpu": {"flags": "avx avx2"}, "threads": 1}
THERE: dict[str, Any] = {"cpu": {"flags": "avx avx2 avx512f"}, "threads": 1}
POLICY = "version: 1\nkeys:\n{keys}rules:\n  - keys: [alice, bob, carol]\n"


class Bench:
    """A ledger to which alice has written, and on which bob makes things again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / ".ledger"
        self.memory = Memory(folder / "state")
        self.store = LocalCas(self.folder)
        Log.create(self.folder, signer=UnsafeSigner("alice"), memory=self.memory).close()
        keys = "".join(f'  {name}: "{UnsafeSigner(name).public}"\n' for name in ("alice", "bob", "carol"))
        self.policy = Policy.parse(POLICY.format(keys=keys))
        self.threads: list[int] = []

    def log(self, who: str) -> Log:
        """The log, opened by somebody."""
        return Log.open(self.folder, signer=UnsafeSigner(who), memory=self.memory)

    def shout(self, text: bytes = b"hello", *, number: int = 0) -> Action:
        """A run of a stage that is pure."""
        return Action("acme-shout", 1, {"marks": 1, "number": number}, {"text": self.store.put(text)})

    def block(self) -> Action:
        """A run of a stage that is exact in an environment."""
        inputs = {"gguf": self.store.put(b"gguf"), "tokens": self.store.put(b"tokens")}
        return Action("perplexity-block", 1, {"n_ctx": 4, "kv": "F32", "flash": False}, inputs)

    def nll(self, *values: float, tokens: bytes = b"") -> Digest:
        """An nll file of one-token chunks."""
        one = Nll(
            n_ctx=4, chunks=len(values), bos=None, kv="F32", flash=False, resolution="token", tokens=Digest.of(tokens), toolchains=(),
            values=values,
        )  # fmt: skip
        return self.store.put(one.to_bytes())

    def record(self, action: Action, outputs: Mapping[str, Digest], who: str = "alice", **more: Any) -> Entry:
        """Sign that an action gave outputs."""
        return self.log(who).append([run_payload(action, outputs, **more)], [f"{action.stage} by {who}"])[0]

    def again(
        self, *entries: Entry, answer: Callable[[Job], Report], me: str = "bob", tolerance: float | None = None, tell: Any = None
    ) -> tuple[tuple[Receipt, ...], Inline]:
        """Make entries again."""
        hands = Inline(answer)

        def make(threads: int) -> Inline:
            self.threads.append(threads)
            return hands

        work = Rerun(
            self.folder, self.store, self.log(me), self.policy, me=me, hands=make, tolerance=tolerance, on_event=tell or (lambda _: None)
        )
        return work.run([vouched(entry, self.policy) for entry in entries]), hands


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def gives(environment: dict[str, Any] | None = None, **outputs: Digest) -> Callable[[Job], Report]:
    """An answer that is the same for every job."""
    texts = {name: str(digest) for name, digest in outputs.items()}
    return lambda job: Done(job.action.key, texts, (), {}, (), environment, 1.0, 2.0)


# --- what comes out --------------------------------------------------------------------------------------------------------------------


def test_equal_outputs_confirm(bench: Bench) -> None:
    """The run is done, not looked up; an ordinary entry by the verifier says so and names the entry; two keys vouch for it now."""
    made = bench.store.put(b"HELLO! 0")
    entry = bench.record(bench.shout(), {"text": made})
    told: list[Any] = []
    (receipt,), hands = bench.again(entry, answer=gives(text=made), tell=told.append)
    assert (receipt.outcome, receipt.number, receipt.confirmed_by, receipt.reason) == ("equal", 1, ("alice", "bob"), "")
    assert [job.action for job in hands.seen] == [bench.shout()]
    new = bench.log("bob").entry(1)
    assert predicates.action_of(new.statement) == bench.shout()
    assert predicates.byproducts_of(new.statement)["rerun"] == {"entry": 0, "envelope": str(entry.digest), "outcome": "equal"}
    assert new.message.startswith("rerun of entry 0: acme-shout: ")
    hit = find(bench.log("bob"), bench.policy, bench.shout())
    assert hit is not None
    assert hit.signers == ("alice", "bob")
    assert [event.entry for event in told if isinstance(event, Finished)] == [1]


def test_unequal_outputs_of_a_pure_stage_contradict(bench: Bench) -> None:
    """Both stay, and neither is chosen: whoever asks for the action is told."""
    entry = bench.record(bench.shout(), {"text": bench.store.put(b"a lie")})
    made = bench.store.put(b"HELLO! 0")
    (receipt,), _ = bench.again(entry, answer=gives(text=made))
    assert (receipt.outcome, receipt.confirmed_by) == ("contradicting", ())
    assert receipt.differing == {"text": (Digest.of(b"a lie"), made)}
    assert "two trusted results" in receipt.reason
    with pytest.raises(ContradictionError):
        find(bench.log("bob"), bench.policy, bench.shout())


def test_pure_stage_that_calls_itself_exact_somewhere_else(bench: Bench) -> None:
    """Naming an environment that nobody has does not keep a false result of a pure stage from being contradicted, here and by lookups."""
    entry = bench.record(bench.shout(), {"text": bench.store.put(b"a lie")}, purity="E", environment={"moon": True})
    (receipt,), _ = bench.again(entry, answer=gives(text=bench.store.put(b"HELLO! 0")))
    assert receipt.outcome == "contradicting"
    with pytest.raises(ContradictionError):
        find(bench.log("bob"), bench.policy, bench.shout())


def test_unequal_outputs_in_the_same_environment_contradict(bench: Bench) -> None:
    """What is exact in an environment is held to it there, however little it differs."""
    entry = bench.record(bench.block(), {"nll": bench.nll(1.0)}, purity="E", environment=HERE)
    (receipt,), _ = bench.again(entry, answer=gives(HERE, nll=bench.nll(1.0 + 1e-12)), tolerance=0.5)
    assert (receipt.outcome, receipt.elsewhere) == ("contradicting", ())


@pytest.mark.parametrize(
    ("tolerance", "outcome", "beyond"), [(None, "different", 2), (0.01, "within", 0), (0.002, "beyond", 1), (1e-9, "beyond", 2)]
)
def test_nll_from_another_environment(bench: Bench, tolerance: float | None, outcome: str, beyond: int) -> None:
    """Chunk by chunk, against what was declared beforehand; the entry stands in its own environment and contradicts nothing."""
    entry = bench.record(bench.block(), {"nll": bench.nll(1.0, 2.0, 3.0)}, purity="E", environment=THERE)
    (receipt,), _ = bench.again(entry, answer=gives(HERE, nll=bench.nll(1.0, 2.001, 3.004)), tolerance=tolerance)
    assert receipt.outcome == outcome
    assert receipt.items is not None
    assert (receipt.items.count, receipt.items.beyond, receipt.items.unit) == (3, beyond, "nats per chunk")
    assert receipt.items.largest == pytest.approx(0.004)
    assert receipt.elsewhere == ("cpu.flags here without avx512f",)
    assert receipt.confirmed_by == ("alice",)
    said = predicates.byproducts_of(bench.log("bob").entry(1).statement)["rerun"]
    assert said["items"]["beyond"] == beyond
    assert said.get("tolerance") == (None if tolerance is None else repr(tolerance))
    hit = find(bench.log("bob"), bench.policy, bench.block())
    assert hit is not None
    assert [other.number for other in hit.elsewhere] == [1]


def test_equal_bytes_from_another_environment_confirm(bench: Bench) -> None:
    """Bytes that come out the same somewhere else too are confirmed."""
    entry = bench.record(bench.block(), {"nll": bench.nll(1.0)}, purity="E", environment=THERE)
    (receipt,), _ = bench.again(entry, answer=gives(HERE, nll=bench.nll(1.0)))
    assert (receipt.outcome, receipt.confirmed_by) == ("equal", ("alice", "bob"))


def test_what_says_nothing_about_how_much_it_may_differ(bench: Bench) -> None:
    """Other kinds of output, or the nll of other tokens, differ, and that is all that can be said."""
    other = bench.nll(1.0, tokens=b"others")
    for outputs in ({"nll": bench.store.put(b"no nll file")}, {"nll": other}):
        entry = bench.record(bench.block(), outputs, purity="E", environment=THERE)
        (receipt,), _ = bench.again(entry, answer=gives(HERE, nll=bench.nll(1.0)), tolerance=9.0)
        assert (receipt.outcome, receipt.items) == ("different", None)


def test_as_many_threads_as_recorded(bench: Bench) -> None:
    """Threads decide bits, so a run is made again with those of its environment; others run with one."""
    first = bench.record(bench.block(), {"nll": bench.nll(1.0)}, purity="E", environment=HERE | {"threads": 3})
    second = bench.record(bench.shout(), {"text": bench.nll(1.0)})
    bench.again(first, second, answer=lambda job: Broke(job.action.key, "no"))
    assert bench.threads == [1, 3]


# --- what cannot be made again ---------------------------------------------------------------------------------------------------------


def test_missing_input_and_what_would_bring_it(bench: Bench) -> None:
    """The message names the object and the run that made it; when that is made again too, it comes first, whatever the order."""
    text = bench.store.put(b"HELLO! 0")
    first = bench.record(bench.shout(), {"text": text})
    second = bench.record(Action("acme-shout", 1, {"marks": 1, "number": 1}, {"text": text}), {"text": bench.store.put(b"HELLO! 0! 1")})
    bench.store.delete(text)
    (receipt,), hands = bench.again(second, answer=gives(text=text))
    assert (receipt.outcome, receipt.number, hands.seen) == ("undone", None, [])
    assert f"its input text, {text}, is not in the store; acme-shout made it: `ledger verify --rerun 0`" in receipt.reason

    def answer(job: Job) -> Report:
        said = bench.store.read(job.action.inputs["text"]) + b"! %d" % job.action.spec["number"]
        return gives(text=bench.store.put(said.upper()))(job)

    receipts, _ = bench.again(second, first, answer=answer)
    assert [(one.of.entry.number, one.outcome) for one in receipts] == [(0, "equal"), (1, "equal")]


def test_missing_input_that_nobody_made(bench: Bench) -> None:
    """What came from outside has to come from there again."""
    entry = bench.record(Action("acme-shout", 1, {"marks": 1, "number": 0}, {"text": Digest.of(b"gone")}), {"text": Digest.of(b"x")})
    (receipt,), _ = bench.again(entry, answer=gives())
    assert "was brought in from outside: import it again" in receipt.reason


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (Action("acme-shout", 7, {"marks": 1, "number": 0}, {}), "version 7 of acme-shout; here is version 1"),
        (Action("acme-fan", 1, {"width": 1, "depth": 1}, {}), "here is a composite"),
        (Action("acme-nothing", 1, {}, {}), "no stage is called 'acme-nothing'"),
        (Action("acme-shout", 1, {"marks": 1, "number": 0}, {}), "missing text"),
        (Action("acme-shout", 1, {"marks": 1}, {"text": Digest.of(b"hello")}), "reads its spec otherwise"),
        (Action("acme-shout", 1, {"loud": 1}, {"text": Digest.of(b"hello")}), "Shout has no field 'loud'"),
    ],
)
def test_stage_that_is_not_here(bench: Bench, action: Action, message: str) -> None:
    """Nothing runs when this program would do something else than the entry says."""
    (receipt,), hands = bench.again(bench.record(action, {"text": Digest.of(b"x")}), answer=gives())
    assert receipt.outcome == "undone"
    assert message in receipt.reason
    assert hands.seen == []


def test_failure_is_not_recorded_and_the_rest_goes_on(bench: Bench) -> None:
    """A worker that dies, or gives what its stage does not declare, is one rerun less."""
    text = bench.store.put(b"HELLO! 0")
    entries = [bench.record(bench.shout(number=number), {"text": text}) for number in range(3)]

    def answer(job: Job) -> Report:
        number = job.action.spec["number"]
        if number == 0:
            return Broke(job.action.key, "the worker was killed")
        return gives(text=text)(job) if number == 1 else gives(sound=text)(job)

    receipts, _ = bench.again(*entries, answer=answer)
    assert [one.outcome for one in receipts] == ["undone", "equal", "undone"]
    assert receipts[0].reason == "the worker was killed"
    assert "not declared: sound" in receipts[2].reason
    assert bench.log("bob").size == 4


def test_entry_that_nobody_known_signed(bench: Bench) -> None:
    """A stranger's statement starts nothing."""
    entry = bench.record(bench.shout(), {"text": Digest.of(b"x")}, "mallory")
    with pytest.raises(SignatureError, match="no valid signature by any of 3 known keys"):
        bench.again(entry, answer=gives())
    keys = f'  alice: {{key: "{UnsafeSigner("alice").public}", until: 1}}\n  bob: "{UnsafeSigner("bob").public}"\n'
    bench.policy = Policy.parse(f"version: 1\nkeys:\n{keys}rules:\n  - keys: [alice, bob]\n")
    entry = bench.record(bench.shout(), {"text": Digest.of(b"x")})
    with pytest.raises(UntrustedError, match="entry 1 is by no key that counts there"):
        bench.again(entry, answer=gives())


def test_confirmation_that_does_not_count(bench: Bench) -> None:
    """When the policy lets the verifier say nothing about such runs, the receipt says that its entry does not count."""
    keys = "".join(f'  {name}: "{UnsafeSigner(name).public}"\n' for name in ("alice", "bob"))
    bench.policy = Policy.parse(f"version: 1\nkeys:\n{keys}rules:\n - keys: [alice]\n - {{keys: [bob], stages: [other]}}\n")
    made = bench.store.put(b"HELLO! 0")
    (receipt,), _ = bench.again(bench.record(bench.shout(), {"text": made}), answer=gives(text=made))
    assert (receipt.outcome, receipt.confirmed_by) == ("equal", ("alice",))
    assert "entry 1 does not count here: " in receipt.reason


def test_two_of_three(bench: Bench) -> None:
    """Where a policy wants two keys, one alone counts for nothing and its run can be made again; then it counts."""
    keys = "".join(f'  {name}: "{UnsafeSigner(name).public}"\n' for name in ("alice", "bob"))
    bench.policy = Policy.parse(f"version: 1\nkeys:\n{keys}rules:\n - {{keys: [alice, bob], threshold: 2}}\n")
    made = bench.store.put(b"HELLO! 0")
    entry = bench.record(bench.shout(), {"text": made})
    assert find(bench.log("bob"), bench.policy, bench.shout()) is None
    (receipt,), _ = bench.again(entry, answer=gives(text=made))
    assert (receipt.confirmed_by, receipt.reason) == (("alice", "bob"), "")
    assert find(bench.log("bob"), bench.policy, bench.shout()) is not None


# --- what there is to do again ---------------------------------------------------------------------------------------------------------


def test_unconfirmed_runs(bench: Bench) -> None:
    """What one other holder vouches for, the shortest first; what is one's own and what is contradicted are told apart."""
    shouts = [bench.shout(number=number) for number in range(5)]
    texts = [bench.store.put(b"%d" % number) for number in range(6)]
    log = bench.log("alice")
    for number, seconds in ((0, 9), (1, 3)):
        predicate = predicates.run_predicate(
            shouts[number], purity="P", environment=None, builder="urn:x", invocation="x/1", started_on="2026-01-01T00:00:00Z",
            finished_on=f"2026-01-01T00:00:0{seconds}Z", byproducts={},
        )  # fmt: skip
        log.append([statement.make({"text": texts[number]}, predicates.RUN, predicate)], ["x"])
    bench.record(shouts[2], {"text": texts[2]}, "bob")
    bench.record(shouts[3], {"text": texts[3]})
    bench.record(shouts[3], {"text": texts[3]}, "carol")
    bench.record(shouts[4], {"text": texts[4]})
    bench.record(shouts[4], {"text": texts[5]}, "carol")
    bench.record(bench.shout(b"strange"), {"text": texts[5]}, "mallory")
    found = unconfirmed(bench.log("bob"), bench.policy, "bob")
    assert ([one.entry.number for one in found.runs], found.own, found.contradicted) == ([1, 0], 1, (5,))


def test_successor_confirms_nothing(bench: Bench) -> None:
    """Somebody's next key is no second opinion: its holder has said it already."""
    keys = f'  alice: "{UnsafeSigner("alice").public}"\n  bob: {{key: "{UnsafeSigner("bob").public}", replaces: alice}}\n'
    bench.policy = Policy.parse(f"version: 1\nkeys:\n{keys}rules:\n  - keys: [alice, bob]\n")
    bench.record(bench.shout(), {"text": bench.store.put(b"HELLO! 0")})
    found = unconfirmed(bench.log("bob"), bench.policy, "bob")
    assert (found.runs, found.own) == ((), 1)


def test_evaluation_stands_for_the_work_between(bench: Bench) -> None:
    """From the object to its numbers: not what made the object, and not what else went into the numbers."""
    model, data = bench.store.put(b"model"), bench.store.put(b"data")
    names = ("gguf", "tokens", "one", "two", "total")
    made = {name: bench.store.put(name.encode()) for name in names}

    def act(stage: str, **inputs: Digest) -> Action:
        return Action(stage, 1, {}, inputs)

    bench.record(act("quantize", model=model), {"gguf": made["gguf"]})
    bench.record(act("tokenize", data=data), {"tokens": made["tokens"]})
    bench.record(act("block", gguf=made["gguf"], tokens=made["tokens"]), {"one": made["one"]})
    bench.record(act("refine", one=made["one"]), {"two": made["two"]})
    merge = act("merge", two=made["two"], data=data)
    bench.record(merge, {"total": made["total"]})
    claim = statement.make({"gguf": made["gguf"]}, predicates.EVALUATION, {"action": str(merge.key), "metrics": {}})
    entry = bench.log("alice").append([claim], ["evaluation"])[0]
    stages = [one.action.stage for one in runs_behind(entry, bench.log("bob"), bench.policy, "bob")]
    assert stages == ["block", "refine", "merge"]
    bench.record(act("refine", one=made["one"]), {"two": made["two"]}, "bob")
    stages = [one.action.stage for one in runs_behind(entry, bench.log("bob"), bench.policy, "bob")]
    assert stages == ["block", "merge"], "what bob has made already is left out"
    other = bench.log("alice").append([statement.make({"gguf": made["gguf"]}, "urn:x:y:v1", {"words": 1})], ["x"])[0]
    with pytest.raises(StatementError, match="names no run that can be made again"):
        runs_behind(other, bench.log("bob"), bench.policy, "bob")


def test_interrupted_and_continued(bench: Bench) -> None:
    """What was made before the interruption is recorded, and is not unconfirmed any more."""
    text = bench.store.put(b"HELLO! 0")
    entries = [bench.record(bench.shout(number=number), {"text": text}) for number in range(3)]

    def answer(job: Job) -> Report:
        if job.action.spec["number"] == 1:
            raise KeyboardInterrupt
        return gives(text=text)(job)

    with pytest.raises(KeyboardInterrupt):
        bench.again(*entries, answer=answer)
    assert bench.log("bob").size == 4
    assert [one.entry.number for one in unconfirmed(bench.log("bob"), bench.policy, "bob").runs] == [1, 2]
    receipts, _ = bench.again(*entries[1:], answer=gives(text=text))
    assert [one.outcome for one in receipts] == ["equal", "equal"]


def test_environments_are_compared_field_by_field() -> None:
    """A long list of words is told by the words that differ, everything else by both values."""
    old = {"cpu": {"flags": "a b c"}, "gone": 1, "words": "x y"}
    assert changes(old, {"cpu": {"flags": "a c d"}, "new": True, "words": "y x"}) == (
        "cpu.flags here also d and without b",
        "gone 1, here nothing",
        "new nothing, here True",
        "words in another order",
    )
    assert changes(old, old) == ()
