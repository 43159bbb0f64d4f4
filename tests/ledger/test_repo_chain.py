"""ledger.repo_chain: the chain of a repository's commits is computed again; the first wrong link is named."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import AlloyError, LogError
from ledger.foreign_report import examine_foreign
from ledger.locator import Expected
from ledger.repo_chain import START, Stage, examine_chain, link, load, of_repository, recompute
from store.digest import Digest
from tests.reports import texts

FILE = Path(__file__).parents[1] / "vectors/chain/chain.json"
END = "959d8f0e29bcde1dc26d1ad37eaa887b80ca5c2fdf9657e7a2becde3361013ed"


def document() -> dict[str, Any]:
    value = json.loads(FILE.read_bytes())
    assert isinstance(value, dict)
    return value


def forged(value: dict[str, Any]) -> dict[str, Any]:
    """As a forger leaves it: every hash computed anew."""
    before = START
    for stage in value["stages"]:
        before = stage["chain_hash"] = link(before, stage["commit"], stage["tree"]).hex
    value["chainHash"] = value["integrity"]["alloyHash"] = value["integrity"]["code"]["sourceHash"] = before
    value["integrity"]["code"]["commit"] = value["stages"][-1]["commit"]
    value["totalCommits"] = len(value["stages"])
    value["verifyUrl"] = f"https://cambriantech.github.io/forge-alloy/verify/#github:forge-alloy@{before[:16]}"
    return value


def edited(change: Callable[[dict[str, Any]], object], *, again: bool = False) -> bytes:
    value = document()
    change(value)
    return json.dumps(forged(value) if again else value).encode()


def test_all_115_links_are_the_published_ones() -> None:
    """Each is the SHA-256 of the commit, the link before and the tree, as hex."""
    chain = load(FILE.read_bytes())
    computed = recompute(chain.stages)
    assert [digest.hex for digest in computed] == [stage.stored for stage in chain.stages]
    assert (len(computed), computed[0].hex[:8], computed[-1].hex) == (115, "d81f54a1", END)


@pytest.mark.parametrize(
    ("digits", "code", "status"),
    [(END, 0, "proven"), (END[:16], 3, "unverified"), (END[:8], 3, "unverified"), (END[:15] + "0", 3, "failed"), (64 * "0", 3, "failed")],
)
def test_an_expected_hash_is_compared_with_the_computed_end(digits: str, code: int, status: str) -> None:
    """Whole it pins the commits and their trees, cut it does not; another one fails."""
    report = examine_chain(FILE, Expected(digits))
    assert (report.exit_code, report.rows[0].status) == (code, status)
    assert report.verdict == ("FAILED" if status == "failed" else report.verdict)
    assert not report.verdict.startswith("VERIFIED")


def test_the_stored_end_alone_convinces_nobody() -> None:
    """The published page compared a prefix of the stored string; here a changed stage under the right string fails."""
    data = edited(lambda value: value["stages"][50].update(tree=40 * "0"))
    report = examine_chain(data, Expected(END[:16]))
    assert report.exit_code == 3
    assert "stage 51 of 115" in texts(report, "failed")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda value: value["stages"][30].update(commit=40 * "a"), "stage 31 of 115"),
        (lambda value: value["stages"].pop(40), "stage 41 of 114"),
        (lambda value: value["stages"].insert(9, value["stages"].pop(10)), "stage 10 of 115"),
        (lambda value: value["stages"].insert(5, copy.deepcopy(value["stages"][4])), "stage 6 of 116"),
        (lambda value: value["stages"].pop(), "chainHash is '959d8f0e"),
        (lambda value: value.update(chainHash=64 * "0"), "chainHash is '0000"),
        (lambda value: value.update(totalCommits=116), "totalCommits is '116'; the stages give 115"),
        (lambda value: value.update(verifyUrl="x@0123456789abcdef"), "verifyUrl is '0123456789abcdef'"),
        (lambda value: value["integrity"].update(alloyHash=64 * "0"), "integrity.alloyHash"),
    ],
)
def test_the_first_wrong_link_is_named(change: Callable[[dict[str, Any]], object], told: str) -> None:
    """A commit that was changed, dropped, moved or doubled, and a file that contradicts itself."""
    report = examine_chain(edited(change))
    assert report.exit_code == 3
    assert told in texts(report, "failed")


def test_a_chain_that_was_computed_anew_needs_an_expected_hash_or_the_repository() -> None:
    """Without either, only a careless forger is found: by the parents, which the hash does not cover."""

    def drop(value: dict[str, Any]) -> None:
        value["stages"].pop(40)

    def drop_well(value: dict[str, Any]) -> None:
        dropped = value["stages"].pop(40)
        value["stages"][40]["parents"] = dropped["parents"]

    careless = examine_chain(edited(drop, again=True))
    assert "has the parent" in texts(careless, "failed")
    careful = edited(drop_well, again=True)
    assert examine_chain(careful).verdict.startswith("UNSIGNED")
    assert examine_chain(careful).exit_code == 3
    assert "it never ended so" in texts(examine_chain(careful, Expected(END[:16])), "failed")


def test_a_code_that_was_made_earlier_is_found_in_the_chain() -> None:
    """Every commit changes the end; an old code is that of an earlier stage, which is said, and pins only what is up to there."""
    earlier = document()["stages"][90]["chain_hash"]
    report = examine_chain(FILE, Expected(earlier))
    assert (report.rows[0].status, report.exit_code) == ("proven", 3)
    assert "up to stage 91 of 115" in report.rows[0].text
    assert "up to stage" not in examine_chain(FILE, Expected(Digest.of(FILE.read_bytes()).hex)).rows[0].text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{}", "expected an object of the type 'repo-attestation'"),
        (b'{"type": "repo-attestation", "stages": []}', "no stage"),
        (b'{"type": "repo-attestation", "stages": [7]}', "stage 1 is no object"),
        (b'{"type": "repo-attestation", "stages": [{"commit": "x"}]}', "the commit of stage 1 is not 40 hex digits"),
        (b'{"type": "repo-attestation", "type": "x", "stages": []}', "key given twice"),
    ],
)
def test_what_is_no_chain_is_refused(data: bytes, reason: str) -> None:
    """With the reason, and as a finding when it is verified."""
    with pytest.raises(AlloyError, match=reason):
        load(data)
    assert examine_chain(data).exit_code == 3


# --- against a repository ----------------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str, when: int = 0) -> str:
    env = {"GIT_AUTHOR_NAME": "Ann", "GIT_AUTHOR_EMAIL": "ann@x", "GIT_COMMITTER_NAME": "Ann", "GIT_COMMITTER_EMAIL": "ann@x"}
    env |= {"GIT_AUTHOR_DATE": f"{1700000000 + when} +0130", "GIT_COMMITTER_DATE": f"{1700000000 + when} +0130", "HOME": str(folder)}
    env |= {"PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, env=env).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Seven commits with two branches, merged."""
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for number in range(3):
        (folder / "file").write_text(str(number))
        git(folder, "add", "file")
        git(folder, "commit", "-q", "-m", f"commit {number}\nsecond line\n\nbody", when=10 * number)
    git(folder, "checkout", "-q", "-b", "side", "HEAD~1")
    git(folder, "commit", "-q", "--allow-empty", "-m", "on the side", when=15)
    git(folder, "checkout", "-q", "main")
    git(folder, "merge", "-q", "--no-ff", "-m", "merge", "side", when=40)
    git(folder, "commit", "-q", "--allow-empty", "-m", "same second", when=40)
    return folder


def chain_of(folder: Path) -> dict[str, Any]:
    """The file as its own tool writes it, from `git log`."""
    log = git(folder, "log", "--reverse", "--format=%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%s")
    stages = []
    for line in log.splitlines():
        commit, tree, parents, author, email, timestamp, message = line.split("\0")
        stages.append({"commit": commit, "tree": tree, "parents": parents.split(), "author": author, "email": email, "timestamp": timestamp,
                       "message": message, "chain_hash": ""})  # fmt: skip
    return forged({"type": "repo-attestation", "stages": stages, "integrity": {"code": {}}})


def test_a_repository_gives_the_chain_that_git_lists(repository: Path) -> None:
    """In git's order across merges, with authors, zones and subjects, read from the objects and without running git."""
    value = chain_of(repository)
    stages = of_repository(repository, value["stages"][-1]["commit"])
    assert [(stage.commit, stage.tree, stage.stored) for stage in stages] == [
        (item["commit"], item["tree"], item["chain_hash"]) for item in value["stages"]
    ]
    report = examine_chain(json.dumps(value).encode(), Expected(value["chainHash"]), repository=repository)
    assert (report.exit_code, texts(report, "failed")) == (0, "")
    assert "the 6 stages are the commits of" in texts(report, "proven")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda stages: stages.pop(2), "stage 3 is commit"),
        (lambda stages: stages.insert(1, stages.pop(2)), "stage 2 is commit"),
        (lambda stages: stages[1].update(tree=40 * "0"), "its tree is '0000"),
        (lambda stages: stages[1].update(author="Eve"), "its author is 'Eve'; in the repository 'Ann'"),
        (lambda stages: stages[1].update(message="harmless"), "its message is 'harmless'"),
        (lambda stages: stages[1].update(timestamp="2020-01-01T00:00:00+01:30"), "its timestamp is '2020"),
        (lambda stages: stages[1].update(commit=40 * "e"), "none of its commits"),
        (lambda stages: stages.append(dict(stages[-1], commit=40 * "e", parents=[stages[-1]["commit"]])), "cannot be read"),
    ],
)
def test_a_forged_chain_is_found_by_the_repository(repository: Path, change: Callable[[list[dict[str, Any]]], object], told: str) -> None:
    """Although every hash in it was computed anew."""
    value = chain_of(repository)
    change(value["stages"])
    report = examine_chain(json.dumps(forged(value)).encode(), repository=repository)
    assert report.exit_code == 3
    assert told in texts(report, "failed")


def test_replace_refs_change_nothing(repository: Path) -> None:
    """What git would show in a commit's place is not what the chain is compared with."""
    value = chain_of(repository)
    commits = [item["commit"] for item in value["stages"]]
    git(repository, "replace", commits[3], commits[1])
    assert [stage.commit for stage in of_repository(repository, commits[-1])] == commits


def test_a_shallow_clone_is_not_enough(repository: Path, tmp_path: Path) -> None:
    """It lacks commits, and that is said."""
    git(tmp_path, "clone", "-q", "--depth", "2", f"file://{repository}", "shallow")
    head = git(repository, "rev-parse", "HEAD")
    with pytest.raises(LogError, match="cannot be read"):
        of_repository(tmp_path / "shallow", head)
    report = examine_chain(json.dumps(chain_of(repository)).encode(), repository=tmp_path / "shallow")
    assert "the repository does not confirm the chain" in texts(report, "failed")


def test_a_chain_in_its_place_is_compared_with_its_repository(repository: Path) -> None:
    """`.attestation/chain.json` of a clone is judged by that clone's own commits."""
    path = repository / ".attestation/chain.json"
    path.parent.mkdir()
    path.write_text(json.dumps(chain_of(repository)))
    assert "the 6 stages are the commits of" in texts(examine_foreign(path, None), "proven")
    value = chain_of(repository)
    value["stages"][0]["author"] = "Eve"
    path.write_text(json.dumps(value))
    assert "its author is 'Eve'" in texts(examine_foreign(path, None), "failed")
    assert examine_foreign(FILE, Expected(END)).exit_code == 0


def test_one_link_by_hand() -> None:
    """The formula, spelled out."""
    import hashlib

    stage = Stage(40 * "0", 40 * "1", "", (), "", "", "", "")
    (one,) = recompute([stage])
    assert one.hex == hashlib.sha256(b"0" * 40 + b"0" * 64 + b"1" * 40).hexdigest()
