import os
import socket
import string
import tempfile
import threading
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import tree
from store.cas import Cas, Range
from store.digest import Digest
from store.errors import CorruptError, NotFoundError, PathError, StoreError, TreeError, UnwritableError
from store.local import LocalCas
from store.memory import MemoryCas
from store.testing import BIG
from store.tree import Tree, TreeEntry, check_names

X = Digest.of(b"x")

names = st.text(string.ascii_lowercase + string.digits + "-_é日", min_size=1, max_size=8).filter(lambda name: tree._fault(name) is None)
folders = st.dictionaries(names, st.binary(max_size=50) | st.dictionaries(names, st.binary(max_size=50), max_size=3), max_size=6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a model's shape."""
    top = tmp_path / "model"
    (top / "deep" / "er").mkdir(parents=True)
    (top / "config.json").write_text("{}")
    (top / "model.safetensors").write_bytes(BIG)
    (top / "deep" / "er" / "vocab.txt").write_text("a\nb\n")
    (top / "empty").mkdir()
    return top


class TestForm:
    def test_the_bytes_are_as_documented(self) -> None:
        """A tree is canonical JSON of its entries, sorted by path, and a type."""
        made = Tree.of([TreeEntry("b", X, 1), TreeEntry("a/c", X, 1)])
        one = f'{{"digest":"{X}","path":"a/c","size":1}}'
        two = f'{{"digest":"{X}","path":"b","size":1}}'
        assert made.to_bytes().decode() == f'{{"entries":[{one},{two}],"type":"tree/v1"}}'
        assert made.digest == Digest.of(made.to_bytes())
        assert made.size == 2
        assert made.entry("b").digest == X
        assert Tree.of([]).to_bytes() == b'{"entries":[],"type":"tree/v1"}'
        with pytest.raises(NotFoundError, match="nothing"):
            made.entry("nothing")

    def test_the_example_of_the_documentation(self) -> None:
        """The tree and the digest in docs/formats/store.md are what the code makes."""
        text = (Path(__file__).parents[2] / "docs" / "formats" / "store.md").read_text()
        made = Tree.of([TreeEntry("a", X, 1)])
        assert f"{made.to_bytes().decode()}\n{made.digest}\n" in text

    def test_every_single_byte_change_is_another_tree_or_none(self) -> None:
        """Whichever byte changes, parsing gives an error or a tree of another digest."""
        made = Tree.of([TreeEntry("config.json", X, 17), TreeEntry("model/a.safetensors", Digest.of(b"y"), 1 << 40)])
        good = made.to_bytes()
        for place in range(len(good)):
            for value in range(256):
                if value == good[place]:
                    continue
                data = good[:place] + bytes([value]) + good[place + 1 :]
                try:
                    assert Tree.parse(data).to_bytes() == data
                except StoreError:
                    continue

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"[]",
            b"{}",
            b'{"entries":[]}',
            b'{"entries":[],"type":"tree/v2"}',
            b'{"type":"tree/v1","entries":[]}',
            b'{"entries":[],"type":"tree/v1"} ',
            b'{"entries":{},"type":"tree/v1"}',
            b'{"entries":7,"type":"tree/v1"}',
            b'{"entries":[7],"type":"tree/v1"}',
            b'{"entries":[{"digest":"sha256:1","path":"a","size":1}],"type":"tree/v1"}',
            *(
                f'{{"entries":[{{"digest":"{X}","path":{path},"size":{size}}}],"type":"tree/v1"}}'.encode()
                for path, size in [('"a"', "-1"), ('"a"', "1.0"), ('"a"', "true"), ('"a"', '"1"'), ("7", "1"), ('"a"', str(2**53))]
            ),
            f'{{"entries":[{{"digest":"{X}","more":1,"path":"a","size":1}}],"type":"tree/v1"}}'.encode(),
            f'{{"entries":[{{"digest":"{X}","path":"b","size":1}},{{"digest":"{X}","path":"a","size":1}}],"type":"tree/v1"}}'.encode(),
        ],
    )
    def test_other_bytes_are_no_tree(self, data: bytes) -> None:
        """Every other JSON, form, order or field is refused, and is not taken for a tree."""
        with pytest.raises(TreeError):
            Tree.parse(data)
        cas = MemoryCas()
        digest = cas.put(data)
        assert not tree.is_tree(cas, digest)
        with pytest.raises(TreeError, match=str(digest)):
            tree.load(cas, digest)

    def test_a_tree_with_unsafe_names_is_no_tree(self) -> None:
        """Parsing refuses names that climb out, so that no reader of a tree can forget to."""
        data = f'{{"entries":[{{"digest":"{X}","path":"../a","size":1}}],"type":"tree/v1"}}'.encode()
        with pytest.raises(PathError) as caught:
            Tree.parse(data)
        assert caught.value.paths == ("../a",)
        cas = MemoryCas()
        assert not tree.is_tree(cas, cas.put(data))

    def test_large_objects_are_not_read_to_see(self) -> None:
        """An object that is larger than any tree is refused by its size."""
        cas = MemoryCas()
        digest = cas.put(b'{"entries":[' + bytes(tree.MAX_TREE_BYTES))
        assert not tree.is_tree(cas, digest)
        with pytest.raises(TreeError, match="bytes"):
            tree.load(cas, digest)


class TestNames:
    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("", "empty"),
            ("/a", "absolute"),
            ("a//b", "part of it is empty"),
            ("a/", "part of it is empty"),
            ("..", "not a name"),
            ("a/../b", "not a name"),
            ("./a", "not a name"),
            ("a\\b", "backslash"),
            ("C:a", "colon"),
            ("a:stream", "colon"),
            ("a\0b", "control"),
            ("a\nb", "control"),
            ("a\x7f", "control"),
            ("a.", "dot or a space"),
            ("a /b", "dot or a space"),
            ("...", "dot or a space"),
            ("NUL", "reserved"),
            ("dir/con.txt", "reserved"),
            ("Aux .x", "reserved"),
            ("com1", "reserved"),
            ("LPT³.log", "reserved"),
            ("CONIN$", "reserved"),
            ("\udcff", "UTF-8"),
            ("é" * 128, "longer than 255"),
            ("/".join(["a" * 100] * 41), "longer than 4096"),
        ],
    )
    def test_unsafe_names_are_refused(self, path: str, why: str) -> None:
        """Each kind of unsafe name is refused with its exact name and the reason."""
        with pytest.raises(PathError, match=why) as caught:
            check_names(["fine", path])
        assert caught.value.paths == (path,)

    @pytest.mark.parametrize(
        ("paths", "why"),
        [
            (["a", "a"], "twice"),
            (["Model", "model"], "case"),
            (["A/x", "a/y"], "'A' is the same file as 'a'"),
            (["straße", "STRASSE"], "case"),
            (["a", "a/b"], "both a file and a folder"),
            (["A", "a/b"], "case"),
            ([unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")], "normalised"),
            (["K", "k"], "same file"),  # Kelvin sign
        ],
    )
    def test_names_that_are_one_file_somewhere_are_refused(self, paths: list[str], why: str) -> None:
        """Duplicates, case-fold clashes, normalisation twins, and a file that is also a folder are refused, in any order."""
        for order in (paths, paths[::-1]):
            with pytest.raises(PathError, match=why):
                check_names([*order, "zzz"])

    def test_ordinary_names_pass(self) -> None:
        """Names of real models pass, dots, spaces, brackets and other alphabets included."""
        check_names(
            [
                ".gitattributes",
                "a b.txt",
                "model-00001-of-00003.safetensors",
                "日本語/語彙.json",
                "comet",
                "console.log",
                "[x](y)~",
                "a/b",
                "a/c",
            ]
        )

    def test_all_faults_are_told_together(self) -> None:
        """One error names every bad name, and counts those that do not fit."""
        with pytest.raises(PathError, match="10 more") as caught:
            check_names([f"../{number:02}" for number in range(30)])
        assert len(caught.value.paths) == 30

    def test_a_hundred_thousand_names_are_checked_and_more_refused(self) -> None:
        """The limit on entries holds, and checking does not take quadratic time."""
        many = [f"folder{number % 100}/file{number}" for number in range(tree.MAX_ENTRIES)]
        check_names(many)
        with pytest.raises(TreeError, match="too many"):
            check_names([*many, "one-more"])


class TestFolders:
    def test_a_folder_goes_in_and_comes_out(self, folder: Path, tmp_path: Path) -> None:
        """Importing and exporting a folder gives the same files; the digest is that of `hash_folder`, for any number of threads."""
        cas = LocalCas(tmp_path / "store")
        digest = tree.import_folder(cas, folder, jobs=1)
        assert tree.is_tree(cas, digest)
        content = tree.load(cas, digest)
        assert [entry.path for entry in content.entries] == ["config.json", "deep/er/vocab.txt", "model.safetensors"]
        assert content.digest == digest
        for jobs in (0, 1, 3):
            assert tree.hash_folder(folder, jobs=jobs) == content
            assert tree.import_folder(cas, folder, jobs=jobs) == digest
        tree.export(cas, digest, tmp_path / "made" / "out")
        assert tree.hash_folder(tmp_path / "made" / "out") == content
        assert [path.name for path in (tmp_path / "made").iterdir()] == ["out"]

    @settings(max_examples=12)
    @given(folders)
    def test_round_trip(self, wanted: dict[str, bytes | dict[str, bytes]]) -> None:
        """Any folder of plain names comes back as it was, from either store, with the same digest."""
        files = {
            f"{name}/{inner}" if inner else name: data
            for name, item in wanted.items()
            for inner, data in (item.items() if isinstance(item, dict) else [("", item)])
        }
        try:
            check_names(list(files))
        except PathError:
            return
        with tempfile.TemporaryDirectory() as place:
            top = Path(place) / "in"
            top.mkdir()
            for path, data in files.items():
                (top / path).parent.mkdir(parents=True, exist_ok=True)
                (top / path).write_bytes(data)
            memory, local = MemoryCas(), LocalCas(Path(place) / "store")
            digest = tree.import_folder(memory, top)
            assert tree.import_folder(local, top) == digest
            stores: list[Cas] = [memory, local]
            for number, cas in enumerate(stores):
                out = Path(place) / f"out{number}"
                tree.export(cas, digest, out)
                assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == files

    def test_progress_reaches_the_whole(self, folder: Path, tmp_path: Path) -> None:
        """Progress is given in bytes, never decreases, and ends at the total; for import, hashing and export."""
        total = len(BIG) + 6
        cas = LocalCas(tmp_path / "store")
        seen: list[tuple[int, int]] = []
        digest = tree.import_folder(cas, folder, progress=lambda *at: seen.append(at))
        tree.hash_folder(folder, progress=lambda *at: seen.append(at))
        tree.export(cas, digest, tmp_path / "out", progress=lambda *at: seen.append(at))
        assert {all_ for _, all_ in seen} == {total}
        assert [done for done, _ in seen].count(total) == 3
        assert sorted(seen[: seen.index((total, total))]) == seen[: seen.index((total, total))]

    def test_what_is_skipped_is_not_there(self, folder: Path) -> None:
        """`skip` leaves out files and whole folders by their path."""
        content = tree.hash_folder(folder, skip=lambda path: path in ("deep", "config.json"))
        assert [entry.path for entry in content.entries] == ["model.safetensors"]

    def test_links_inside_count_as_files(self, folder: Path) -> None:
        """A link to a regular file of the same folder has that file's content."""
        (folder / "deep" / "link").symlink_to("../config.json")
        assert tree.hash_folder(folder).entry("deep/link") == TreeEntry("deep/link", Digest.of(b"{}"), 2)

    def test_what_must_not_be_imported_is_named(self, folder: Path, tmp_path: Path) -> None:
        """Links out, dangling, round in circles or to folders, pipes and sockets are refused together, before anything is stored."""
        (tmp_path / "secret").write_text("s")
        (folder / "out").symlink_to("../secret")
        (folder / "absolute").symlink_to(tmp_path / "secret")
        (folder / "beside").symlink_to("../model-other")
        (folder / "dangling").symlink_to("nothing")
        (folder / "circle").symlink_to("circle")
        (folder / "folder").symlink_to("deep")
        (folder / "up").symlink_to(".")
        (folder / "device").symlink_to("/dev/null")
        os.mkfifo(folder / "pipe")
        (folder / "to-pipe").symlink_to("pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            before = Path.cwd()
            os.chdir(folder)
            try:
                listener.bind("socket")
            finally:
                os.chdir(before)
        cas = MemoryCas()
        with pytest.raises(PathError) as caught:
            tree.import_folder(cas, folder)
        expected = ["absolute", "beside", "circle", "dangling", "device", "folder", "out", "pipe", "socket", "to-pipe", "up"]
        assert list(caught.value.paths) == expected
        for text in ("out of the folder", "where nothing is", "round in circles", "link to the folder 'deep'", "is a pipe", "is a socket"):
            assert text in str(caught.value)
        assert list(cas.list()) == []

    def test_names_that_clash_are_refused_on_import(self, folder: Path) -> None:
        """A folder with two names that differ in case alone, or a name that is not UTF-8, is refused."""
        (folder / "Config.json").write_text("{}")
        with pytest.raises(PathError, match="where case does not count"):
            tree.hash_folder(folder)
        (folder / "Config.json").unlink()
        Path(os.fsdecode(bytes(folder) + b"/\xff")).write_text("x")
        with pytest.raises(PathError, match="UTF-8"):
            tree.hash_folder(folder)

    def test_only_folders_are_imported(self, folder: Path, tmp_path: Path) -> None:
        """A file or nothing in place of the folder is said."""
        with pytest.raises(PathError, match="not a folder"):
            tree.hash_folder(folder / "config.json")
        with pytest.raises(NotFoundError):
            tree.hash_folder(tmp_path / "nothing")

    def test_a_folder_given_by_a_link_is_imported(self, folder: Path, tmp_path: Path) -> None:
        """The folder itself may be a link; only links inside it are judged."""
        (tmp_path / "link").symlink_to(folder)
        assert tree.hash_folder(tmp_path / "link") == tree.hash_folder(folder)

    def test_a_failure_stops_the_others(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error while storing one file reaches the caller, and no tree is stored."""
        cas = MemoryCas()
        add_file = cas.add_file

        def failing(path: Path, tick: object = None) -> Digest:
            if path.name == "config.json":
                raise UnwritableError("no space is left")
            return add_file(path)

        monkeypatch.setattr(cas, "add_file", failing)
        with pytest.raises(UnwritableError):
            tree.import_folder(cas, folder)
        assert not any(tree.is_tree(cas, digest) for digest in cas.list())


class TestExport:
    def test_nothing_is_overwritten(self, folder: Path, tmp_path: Path) -> None:
        """A folder with content, a file or a link in the way is refused and stays; an empty folder is filled."""
        cas = LocalCas(tmp_path / "store")
        digest = tree.import_folder(cas, folder)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine").write_text("mine")
        (tmp_path / "file").write_text("mine")
        (tmp_path / "link").symlink_to("nowhere")
        for name in ("full", "file", "link"):
            with pytest.raises(PathError, match="exists already"):
                tree.export(cas, digest, tmp_path / name)
        assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "mine"
        (tmp_path / "empty").mkdir()
        tree.export(cas, digest, tmp_path / "empty")
        assert tree.hash_folder(tmp_path / "empty").digest == digest

    def test_a_failed_export_leaves_nothing(self, folder: Path, tmp_path: Path) -> None:
        """When an object is missing or damaged, there is neither the folder nor a part of it."""
        cas = LocalCas(tmp_path / "store")
        digest = tree.import_folder(cas, folder)
        cas.delete(Digest.of(b"a\nb\n"))
        before = set(tmp_path.iterdir())
        with pytest.raises(NotFoundError):
            tree.export(cas, digest, tmp_path / "out")
        damaged = cas.put(b"a\nb\n")
        cas.blob_file(damaged).chmod(0o644)
        cas.blob_file(damaged).write_bytes(b"a\nc\n")
        with pytest.raises(CorruptError):
            tree.export(cas, digest, tmp_path / "out")
        assert set(tmp_path.iterdir()) == before

    def test_leftovers_of_a_killed_export_are_removed(self, folder: Path, tmp_path: Path) -> None:
        """What a killed export left beside the target goes when the next one runs; a living one's stays."""
        cas = LocalCas(tmp_path / "store")
        digest = tree.import_folder(cas, folder)
        (tmp_path / ".out.partial-000000000000").mkdir()
        (tmp_path / ".out.partial-note").write_text("not ours")
        living, lock = tree._new_aside(tmp_path / "out")
        tree.export(cas, digest, tmp_path / "out")
        assert {path.name for path in tmp_path.glob(".out*")} == {".out.partial-note", living.name}
        os.close(lock)

    def test_editing_an_exported_file_cannot_harm_unseen(self, folder: Path, tmp_path: Path) -> None:
        """Writing into an exported file either leaves the object alone, or is noticed when the object is next read."""
        cas = LocalCas(tmp_path / "store")
        blob = cas.put(BIG)
        digest = cas.put(Tree.of([TreeEntry("weights", blob, len(BIG))]).to_bytes())
        tree.export(cas, digest, tmp_path / "out")
        (tmp_path / "out" / "weights").chmod(0o644)
        with (tmp_path / "out" / "weights").open("r+b") as file:
            file.write(b"!!!!")
        try:
            with cas.open(blob) as file:
                assert file.read() == BIG
        except CorruptError:
            pass

    def test_splices_are_exported_once(self, tmp_path: Path) -> None:
        """Exporting a large splice twice gives the right bytes; it is written out once."""
        cas = LocalCas(tmp_path / "store")
        splice = cas.splice([b"header", Range(cas.put(BIG), 0, 200_000)])
        digest = cas.put(Tree.of([TreeEntry("weights", splice, 200_006)]).to_bytes())
        for name in ("one", "two"):
            tree.export(cas, digest, tmp_path / name)
            assert (tmp_path / name / "weights").read_bytes() == b"header" + BIG[:200_000]
        tree.export(LocalCas.open_readonly(cas.root), digest, tmp_path / "three")
        assert (tmp_path / "three" / "weights").read_bytes() == b"header" + BIG[:200_000]

    def test_two_exports_to_one_place(self, folder: Path, tmp_path: Path) -> None:
        """Of two exports at once to one name, one makes the folder whole and the other is refused or finds it."""
        cas = LocalCas(tmp_path / "store")
        digest = tree.import_folder(cas, folder)
        refused: list[StoreError] = []

        def work() -> None:
            try:
                tree.export(cas, digest, tmp_path / "out")
            except StoreError as error:
                refused.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        assert tree.hash_folder(tmp_path / "out").digest == digest
        assert not list(tmp_path.glob(".out*"))
