"""The Hub that tests carry is enough of a Hub: huggingface_hub's own calls, plain git's own ids, and what a browser asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from tests.hub import Lies, LoopbackHub, main

REPO = "acme/tiny"
WEIGHTS = bytes(range(256)) * 500
FILES = {"config.json": b"{}", "deep/er/notes.txt": b"hello\n", "model.safetensors": WEIGHTS}


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint)


def test_huggingface_hub_reads_it(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    """model_info, the tree, chosen paths, a HEAD, one file, a snapshot, and its own check of checksums."""
    head = hub.put(REPO, FILES)
    info = api.model_info(REPO, files_metadata=True)
    assert (info.sha, len(info.siblings)) == (head, 4)
    tree = {item.path: item for item in api.list_repo_tree(REPO, recursive=True, revision=head)}
    assert (tree["model.safetensors"].lfs.size, len(tree["model.safetensors"].xet_hash)) == (len(WEIGHTS), 64)
    assert [item.path for item in api.get_paths_info(REPO, ["config.json", "gone"], revision=head)] == ["config.json"]
    assert api.get_hf_file_metadata(url=f"{hub.endpoint}/{REPO}/resolve/main/model.safetensors").commit_hash == head
    folder = Path(snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=tmp_path))
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == hub.files(REPO)
    assert not api.verify_repo_checksums(REPO, cache_dir=tmp_path).mismatches
    assert api.list_repo_commits(REPO)[0].commit_id == head


def test_huggingface_hub_writes_it(hub: LoopbackHub, api: HfApi) -> None:
    """A commit adds, replaces and deletes; a parent that is not the head is refused with 412 and changes nothing."""
    api.create_repo(REPO)
    parent = api.model_info(REPO).sha
    changes = [CommitOperationAdd(path, content) for path, content in FILES.items()]
    made = api.create_commit(REPO, [*changes, CommitOperationDelete(".gitattributes")], commit_message="x", parent_commit=parent)
    assert (hub.head(REPO), hub.files(REPO)) == (made.oid, FILES)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(REPO, [CommitOperationAdd("config.json", b"[]")], commit_message="x", parent_commit=parent)
    assert (caught.value.response.status_code, hub.head(REPO)) == (412, made.oid)


def test_huggingface_hub_takes_wrong_bytes_for_good(hub: LoopbackHub, tmp_path: Path) -> None:
    """Why `ledger.hf_hub` hashes: bytes of the right size and the wrong content are downloaded without a word."""
    hub.put(REPO, FILES)
    hub.lies.wrong_bytes = {"model.safetensors"}
    got = Path(hf_hub_download(REPO, "model.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path)).read_bytes()
    assert len(got) == len(WEIGHTS)
    assert got != WEIGHTS


def test_commits_are_git_s(hub: LoopbackHub, tmp_path: Path) -> None:
    """Plain git gives the same id to the same tree of files and LFS pointers, so a commit binds every byte."""
    head = hub.put(REPO, {**FILES, "a.txt": b"1", "a/b.txt": b"2", "model.gguf": b"G" * 10})

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(tmp_path), *arguments], capture_output=True, check=True).stdout

    git("init", "-q")
    git("config", "core.autocrlf", "false")
    info = httpx2.get(f"{hub.endpoint}/api/models/{REPO}/revision/{head}?blobs=true").json()
    for item in info["siblings"]:
        lfs = item.get("lfs")
        path = tmp_path / item["rfilename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pointer = lfs and f"version https://git-lfs.github.com/spec/v1\noid sha256:{lfs['sha256']}\nsize {lfs['size']}\n".encode()
        path.write_bytes(pointer or hub.files(REPO)[item["rfilename"]])
    (tmp_path / ".gitattributes").rename(tmp_path / "attributes")  # else git would look for git-lfs
    git("add", "-f", ".")
    git("update-index", "--force-remove", "attributes")
    git("update-index", "--add", "--cacheinfo", f"100644,{git('hash-object', '-w', 'attributes').decode().strip()},.gitattributes")
    tree = git("write-tree").decode().strip()
    commit = httpx2.get(f"{hub.endpoint}/api/models/{REPO}/commits/main").json()
    text = (
        f"tree {tree}\nparent {commit[1]['id']}\nauthor loopback <hub@localhost> 1600000003 +0000\n"
        "committer loopback <hub@localhost> 1600000003 +0000\n\nput\n"
    )
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "--stdin"], cwd=tmp_path, input=text.encode(), capture_output=True, check=True
    )
    assert made.stdout.decode().strip() == head


def test_the_same_pushes_give_the_same_ids() -> None:
    """Nothing depends on the clock or the port."""
    heads = set()
    for _ in range(2):
        with LoopbackHub() as hub:
            heads.add(hub.put(REPO, FILES))
    assert len(heads) == 1


def test_a_tree_has_pages(hub: LoopbackHub, api: HfApi) -> None:
    """More than a thousand files come in several answers, each with the address of the next."""
    hub.put(REPO, {f"{number}.txt": b"x" for number in range(2100)})
    assert len(list(api.list_repo_tree(REPO, recursive=True))) == 2101
    assert [item.query for item in hub.log if "/tree/" in item.path][-1].endswith("cursor=2000")


def test_a_browser_may_ask(hub: LoopbackHub) -> None:
    """A page of another origin may read answers and the headers that name the commit, and ask for ranges."""
    hub.put(REPO, FILES)
    asked = httpx2.options(f"{hub.endpoint}/{REPO}/resolve/main/config.json", headers={"Origin": "null"})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
    assert "range" in asked.headers["access-control-allow-headers"]
    got = httpx2.get(f"{hub.endpoint}/{REPO}/resolve/main/model.safetensors", headers={"Range": "bytes=10-19"})
    assert (got.status_code, got.content, got.headers["content-range"]) == (206, WEIGHTS[10:20], f"bytes 10-19/{len(WEIGHTS)}")
    assert "X-Repo-Commit" in got.headers["access-control-expose-headers"]


def test_every_lie_is_off_at_first_and_in_the_page() -> None:
    """docs/loopback-hub.md names each of them, with the value that it needs."""
    page = (Path(__file__).parents[1] / "docs" / "loopback-hub.md").read_text()
    for name in Lies.__dataclass_fields__:
        assert getattr(Lies(), name) in (set(), False, "", (), None, -1, 0)
        needs = "" if isinstance(getattr(Lies(), name), bool) else "="
        assert f"`{name}{needs or '`'}" in page, name


def test_it_runs_by_hand(tmp_path: Path) -> None:
    """It says where it is, and what to set; a lie is switched on by name."""
    (tmp_path / "config.json").write_bytes(b"{}")
    command = [sys.executable, "-m", "tests.hub", f"{tmp_path}={REPO}", "--lie", "wrong_bytes=config.json", "--lie", "moving"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"{REPO} is at ")
        endpoint = process.stdout.readline().split("HF_ENDPOINT=")[1].split()[0]
        got = httpx2.get(f"{endpoint}/{REPO}/resolve/main/config.json").content
        process.terminate()
    assert len(got) == 2
    assert got != b"{}"


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ("hostile_names", "--lie hostile_names=VALUE: this lie needs a value"),
        ("moving=yes", "--lie moving: this lie takes no value"),
        ("wrong=x", "no such lie"),
    ],
)
def test_a_lie_without_its_value_is_a_usage_error(lie: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is made up in its place, and nothing is started."""
    with pytest.raises(SystemExit) as stopped:
        main(["--lie", lie])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
