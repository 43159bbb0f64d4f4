"""Models from the Hub: which texts mean one, what is fetched, what a kill costs, what each lie does to an import."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.errors import HubNotFoundError, HubUnreachableError
from ledger.hub import HubFile, Listing
from ledger.locator import HubSource
from stages import hub_listing, hub_pins
from stages.errors import InputError, RecipeError
from stages.events import Warned
from stages.hub_model import choose
from stages.recipe import parse
from stages.runner import RunFailedError
from store import tree
from store.digest import Digest
from tests.homes import Home
from tests.hub import LoopbackHub

REPO = "acme/tiny"
COMMIT = "a" * 40


def shard(name: str, count: int) -> bytes:
    """A safetensors file with one tensor of float32 ones."""
    header = json.dumps({name: {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.0) * count


SHARDS = {f"model-0000{number}-of-00002.safetensors": shard(f"w{number}", 100_000 * number) for number in (1, 2)}
FILES: dict[str, bytes] = {
    "README.md": b"# tiny",
    "LICENSE": b"free",
    "config.json": b'{"model_type": "mixtral"}',
    "tokenizer.json": b"{}",
    "model.safetensors.index.json": json.dumps({"weight_map": dict(zip(("w1", "w2"), SHARDS, strict=True))}).encode(),
    "pytorch_model.bin": b"\x80\x04.",
    "consolidated.safetensors": shard("other", 10),
    "tiny-Q4_K_M.gguf": b"GGUF",
    "original/model.safetensors": shard("w", 10),
    **SHARDS,
}
NEEDED = sorted({*SHARDS, "LICENSE", "config.json", "tokenizer.json", "model.safetensors.index.json"})
WEIGHT_BYTES = sum(map(len, SHARDS.values()))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def head(hub: LoopbackHub) -> str:
    return hub.put(REPO, FILES)


def stage(source: str, **more: str) -> str:
    fields = ", ".join(f"{key}: {value!r}" for key, value in {"folder": source, **more}.items())
    return f"  - {{type: import-model, {fields}}}\n"


def fetched(hub: LoopbackHub) -> list[str]:
    """What was downloaded of files, in any order."""
    return sorted(item.path.split("/", 5)[-1] for item in hub.log if "/resolve/" in item.path)


# --- whole imports -------------------------------------------------------------------------------------------------------------


def test_an_import_fetches_what_the_model_needs_and_once(hub: LoopbackHub, home: Home, head: str) -> None:
    """The same tree as from a folder; no README, pickle, GGUF file or second copy of the weights; one listing, one GET a file."""
    result = home.run(stage(f"{REPO}@{head}"))
    model = result.outputs["import-model"]["model"]
    made = tree.load(home.store, model)
    assert [item.path for item in made.entries] == NEEDED
    assert all(home.store.read(item.digest) == FILES[item.path] for item in made.entries)
    assert fetched(hub) == NEEDED
    assert [item.path for item in hub.log if "/api/" in item.path] == [f"/api/models/{REPO}/revision/{head}"]
    assert result.done == len(NEEDED) + 3  # the listing, the folder, the check


def test_a_pinned_model_is_found_without_a_network(hub: LoopbackHub, home: Home, head: str) -> None:
    """The second run asks nobody."""
    home.run(stage(f"{REPO}@{head}"))
    hub.stop()
    again = home.run(stage(f"{REPO}@{head}"))
    assert (again.done, again.found) == (0, len(NEEDED) + 3)


def test_planning_a_pinned_model_asks_nobody(hub: LoopbackHub, home: Home, head: str) -> None:
    """What is to do becomes known only with the listing."""
    planned, rows = home.runner().plan(home.recipe(stage(f"{REPO}@{head}")))
    assert (planned.found, hub.log) == (0, [])
    assert ("import-model/hub/listing", "to do") in rows


def test_a_moving_revision_is_resolved_once_told_and_stated(hub: LoopbackHub, home: Home, head: str) -> None:
    """The person is told the commit; the alloy and the signed statements hold it, so what is published can be made again."""
    text = f"name: trial\nversion: 1.0.0\nsource: {{baseModel: {REPO}, revision: main}}\nstages:\n  - {{type: tokenizer-of-model}}\n"
    hub.lies.moving = True  # somebody commits right after each listing
    recipe = replace(parse(text), folder=home.folder)
    result = home.runner().run(recipe)
    [told] = [event.message for event in home.events if isinstance(event, Warned)]
    assert told == f"{REPO} main is now commit {head}; write {REPO}@{head} to stay with it"
    alloy = json.loads(result.alloy.read_text())
    assert alloy["source"] == {"baseModel": REPO, "revision": head}
    assert [item.path for item in hub.log if item.path.endswith("/main")] == [f"/api/models/{REPO}/revision/main"]
    lines = result.attestations.read_text()
    assert lines.count("\n") == result.done
    specs = [json.loads(entry.signed.payload)["predicate"]["buildDefinition"]["externalParameters"] for entry in home.log.entries()]
    assert {"repo": REPO, "commit": head} in specs
    assert any(spec.get("source") == REPO and spec.get("revision") == head for spec in specs)


def test_only_what_changed_is_fetched_from_the_next_commit(hub: LoopbackHub, home: Home, head: str) -> None:
    """Large files that the store has are known by the SHA-256 in the listing."""
    home.run(stage(REPO))
    sent = hub.weight_bytes()
    hub.put(REPO, {"config.json": b'{"model_type": "qwen3_moe"}'})
    result = home.run(stage(REPO))
    assert hub.weight_bytes() == sent
    assert home.store.read(tree.load(home.store, result.outputs["import-model"]["model"]).entry("config.json").digest) == (
        b'{"model_type": "qwen3_moe"}'
    )


def test_a_repository_that_was_made_again_is_told(hub: LoopbackHub, home: Home, head: str) -> None:
    """The same name, maybe another owner: the entry that listed the earlier one is named."""
    home.run(stage(REPO))
    hub.delete(REPO)
    hub.put(REPO, {**FILES, "config.json": b'{"model_type": "evil"}'})
    home.run(stage(REPO))
    told = [event.message for event in home.events if isinstance(event, Warned)]
    assert f"{REPO} is not the repository that entry 0 lists" in told[1]
    assert "maybe by somebody else" in told[1]


def test_code_of_the_model_s_own_is_left_behind_and_said(hub: LoopbackHub, home: Home) -> None:
    """Python files are not even fetched, unless the recipe allows them."""
    config = b'{"model_type": "odd", "auto_map": {"AutoModel": "modeling_odd.Odd"}}'
    head = hub.put(REPO, {**FILES, "config.json": config, "modeling_odd.py": b"import os\n"})
    home.run(stage(f"{REPO}@{head}"))
    assert "modeling_odd.py" not in fetched(hub)
    assert ["names Python code of the model's own" in event.message for event in home.events if isinstance(event, Warned)] == [True]
    home.run(f"  - {{type: import-model, folder: {REPO}@{head}, allowCode: true}}\n")
    assert "modeling_odd.py" in fetched(hub)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"pytorch_model.bin": b"\x80\x04."}, r"its weights only as pickles \(pytorch_model\.bin\).*refs/pr.*Nothing was downloaded"),
        ({"x-Q8_0.gguf": b"GGUF"}, r"no weights that can be read \(x-Q8_0\.gguf\)"),
        ({}, r"no weights that can be read \(none at all\)"),
        ({"model.safetensors": b"x", "tokenizer.json": b"{}"}, r"no config\.json"),
        ({"model.safetensors": b"x", "config.json": b"{}"}, "no tokenizer"),
    ],
)
def test_a_repository_without_a_model_is_refused_before_any_download(
    hub: LoopbackHub, home: Home, files: dict[str, bytes], words: str
) -> None:
    """By its listing alone."""
    head = hub.put(REPO, {**files, "README.md": b"x"})
    with pytest.raises(RunFailedError, match=words):
        home.run(stage(f"{REPO}@{head}"))
    assert fetched(hub) == []


def test_weights_are_chosen_as_transformers_names_them() -> None:
    """Shards with their index, else model.safetensors, else whatever is at the top."""
    base = ["config.json", "tokenizer.json"]
    index = "model.safetensors.index.json"
    assert choose("a/b", [*base, "model.safetensors", "other.safetensors"], allow_code=False) == (*base, "model.safetensors")
    assert choose("a/b", [*base, "model-1.safetensors", "model.safetensors", index], allow_code=False) == (
        *base,
        "model-1.safetensors",
        index,
    )
    assert choose("a/b", [*base, "weights.safetensors", "deep/model.safetensors"], allow_code=False) == (*base, "weights.safetensors")


# --- kills and lies ------------------------------------------------------------------------------------------------------------


def lengths(folder: Path) -> list[int]:
    """Bytes of each file there. A download that ends is renamed, so a file may be gone between being seen and being measured."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat().st_size)
    return found


def test_a_kill_costs_no_byte_that_arrived(hub: LoopbackHub, home: Home, head: str) -> None:
    """After kill -9 in the middle of a download the next run asks for the rest of it; finished files are found."""
    (home.folder / "trial.yaml").write_text(f"name: trial\nversion: 1.0.0\nstages:\n{stage(f'{REPO}@{head}')}")
    code = (
        "from pathlib import Path; from stages.recipe import load; from tests.homes import Home\n"
        f"Home(Path({str(home.folder)!r})).runner(jobs=1).run(load(Path('trial.yaml')))"
    )
    hub.lies.slow_s = 0.1
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=home.folder, env=environment, stderr=subprocess.PIPE, start_new_session=True) as process:
        unfinished = home.folder / ".ledger" / "unfinished"
        while not (unfinished.exists() and any(size > 100_000 for size in lengths(unfinished))):
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    hub.lies.slow_s = 0.0
    time.sleep(0.2)  # the worker dies with its parent
    kept = set(lengths(unfinished))
    hub.log.clear()
    result = home.run(stage(f"{REPO}@{head}"), jobs=1)
    assert result.found > 0
    [ranged] = [item for item in hub.log if item.range]
    assert {int(ranged.range.removeprefix("bytes=").rstrip("-"))} == kept - {0}
    assert ranged.sent == len(SHARDS[ranged.path.rpartition("/")[2]]) - max(kept)
    assert list(unfinished.iterdir()) == []


@pytest.mark.parametrize("path", ["config.json", next(iter(SHARDS))])
def test_wrong_bytes_fail_their_file_alone(hub: LoopbackHub, home: Home, head: str, path: str) -> None:
    """The message has both hashes; nothing of the file stays; the others are kept, and an honest Hub is asked for this one alone."""
    hub.lies.wrong_bytes = {path}
    words = rf"{path} of {REPO} at {head}: the Hub served other bytes than it lists\.\n  expected "
    with pytest.raises(RunFailedError, match=words) as caught:
        home.run(stage(f"{REPO}@{head}"))
    assert [name for name, _ in caught.value.failures] == [f"import-model/hub/file/{path}"]
    assert list((home.folder / ".ledger" / "unfinished").iterdir()) == []
    hub.lies.wrong_bytes = set()
    hub.log.clear()
    home.run(stage(f"{REPO}@{head}"))
    assert fetched(hub) == [path]


@pytest.mark.parametrize("lie", ["wrong_sha256", "wrong_oid", "wrong_size"])
def test_a_listing_that_contradicts_itself_is_refused(hub: LoopbackHub, home: Home, head: str, lie: str) -> None:
    """The SHA-256 and the size are in git's pointer too: before anything is downloaded."""
    setattr(hub.lies, lie, {next(iter(SHARDS))})
    with pytest.raises(RunFailedError, match=r"the Hub contradicts itself about model-00001-of-00002\.safetensors.*Nothing was downloaded"):
        home.run(stage(f"{REPO}@{head}"))
    assert fetched(hub) == []


def test_nobody_there(hub: LoopbackHub, home: Home) -> None:
    """A moving revision cannot be resolved, a pinned one that is new here cannot be listed: the address is named, nothing is recorded."""
    hub.stop()
    with pytest.raises(HubUnreachableError, match="cannot be reached"):
        home.run(stage(REPO))
    with pytest.raises(RunFailedError, match=r"cannot be reached .*; look at the network, or at HF_ENDPOINT\nNothing was recorded"):
        home.run(stage(f"{REPO}@{COMMIT}"))


# --- names in recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "revision", "source"),
    [
        ("org/name", None, HubSource("org/name")),
        ("org/name", "refs/pr/4", HubSource("org/name", "refs/pr/4")),
        (f"org/name@{COMMIT}", None, HubSource("org/name", COMMIT)),
        (f"org/name@{COMMIT}", COMMIT, HubSource("org/name", COMMIT)),
        ("hf:org/name", "v1", HubSource("org/name", "v1")),
        ("https://huggingface.co/org/name", None, HubSource("org/name")),
        ("./org/name", None, None),
        ("/org/name", None, None),
        ("name", None, None),
        ("a/b/c", None, None),
        ("here/model", None, None),
        ("hf:here/model", None, HubSource("here/model")),
    ],
)
def test_which_texts_name_a_model_of_the_hub(tmp_path: Path, text: str, revision: str | None, source: HubSource | None) -> None:
    """org/name unless there is such a folder; hf: and addresses always; paths of another form never."""
    (tmp_path / "here" / "model").mkdir(parents=True)
    assert hub_pins.named(text, revision, tmp_path) == source


@pytest.mark.parametrize(
    ("text", "revision", "words"),
    [
        (f"org/name@{COMMIT}", "main", "two revisions"),
        ("hf:org/name/config.json", None, "names no model of the Hub"),
        ("https://example.com/org/name", None, "names no model of the Hub"),
        ("hf:org", None, "expected hf:org/name"),
        ("org/name@a..b", None, "no revision"),
    ],
)
def test_texts_that_name_nothing(tmp_path: Path, text: str, revision: str | None, words: str) -> None:
    """Each with its reason."""
    with pytest.raises(RecipeError, match=words):
        hub_pins.named(text, revision, tmp_path)


def test_pinning_asks_for_each_revision_once_and_leaves_pins_as_written() -> None:
    """Every place that names a moving revision gets the same commit, in the chains and in what the alloy repeats."""
    text = (
        "name: x\nversion: 1.0.0\nstages:\n"
        f"  - {{type: import-model, id: a, folder: o/a}}\n  - {{type: import-model, id: b, folder: hf:o/a, revision: main}}\n"
        f"  - {{type: import-model, id: c, folder: o/c@{COMMIT}}}\n  - {{type: import-model, id: d, folder: ./here}}\n"
    )
    asked: list[tuple[str, str]] = []

    def resolve(repo: str, revision: str) -> str:
        asked.append((repo, revision))
        return "b" * 40

    recipe = parse(text)
    pinned = hub_pins.pinned(recipe, resolve)
    assert asked == [("o/a", "main")]
    assert [item.fields["folder"] for item in pinned.variants[""]] == [f"hf:o/a@{'b' * 40}"] * 2 + [f"hf:o/c@{COMMIT}", "./here"]
    raw = pinned.raw["stages"]
    assert [item["folder"] for item in raw] == ["o/a", "o/a", f"o/c@{COMMIT}", "./here"]
    assert [item.get("revision") for item in raw] == ["b" * 40, "b" * 40, None, None]
    assert hub_pins.pinned(pinned, resolve) == pinned
    assert len(asked) == 1


def test_a_folder_that_is_missing_and_no_repository_either() -> None:
    """Whoever mistyped a path is told of both, with the line."""

    def resolve(repo: str, revision: str) -> str:
        raise HubNotFoundError(f"hub/{repo} is not there")

    recipe = parse("name: x\nversion: 1.0.0\nsource: {baseModel: models/tinny}\nstages:\n  - {type: quant, quantTypes: [F16]}\n")
    with pytest.raises(
        HubNotFoundError, match="line 3: there is no folder models/tinny beside the recipe, and hub/models/tinny is not there"
    ):
        hub_pins.pinned(recipe, resolve)


@pytest.mark.parametrize("base", ["scratch", "./folder"])
def test_other_sources_are_left_alone(base: object) -> None:
    """A model from scratch, a folder, and what somebody else refuses."""
    recipe = parse(f"name: x\nversion: 1.0.0\nsource: {{baseModel: {base}}}\nstages:\n  - {{type: quant, quantTypes: [F16]}}\n")
    assert hub_pins.pinned(recipe, lambda repo, revision: "never") == recipe


# --- the listing as an object --------------------------------------------------------------------------------------------------


def test_a_listing_is_read_back_as_it_was_written() -> None:
    """Canonical JSON of everything but what changes without a commit: whether it is private."""
    files = (HubFile("a.gguf", 5, "b" * 40, Digest.of(b"x")), HubFile("config.json", 2, "c" * 40, None))
    listing = Listing(REPO, COMMIT, files, "2027-01-15T08:00:01.000Z", True, "d" * 24)
    assert hub_listing.parse(hub_listing.to_bytes(listing)) == replace(listing, private=False)


@pytest.mark.parametrize("change", [("a.gguf", "../a"), ('"size":5', '"size":"5"'), ("sha256", "md5"), ("{", "{ "), ('"repo"', '"r"')])
def test_an_object_that_is_no_listing(change: tuple[str, str]) -> None:
    """Anything that `to_bytes` would not write is refused."""
    data = hub_listing.to_bytes(Listing(REPO, COMMIT, (HubFile("a.gguf", 5, "b" * 40, Digest.of(b"x")),), "", False)).decode()
    with pytest.raises(InputError, match="not a listing"):
        hub_listing.parse(data.replace(*change).encode())
