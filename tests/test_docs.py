"""The documentation: links lead somewhere, examples run, commands exist, and what is shown is what the program says.

`python tests/test_docs.py` writes docs/cli.md, the help text in README.md and the transcript of the tutorial anew.

A code block says by its first line what it is: `pycon` is a doctest; `console run` is typed in an empty folder, after the files of the page
(`python acme_shout.py`) were put there; `console help` is a `--help` text; `yaml recipe.yaml` and `yaml policy.yaml` must be valid.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from cli.main import app, help_texts
from ledger.policy import Policy
from stages import recipe

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README, CLI, PLUGINS = ROOT / "README.md", DOCS / "cli.md", DOCS / "plugins.md"
PAGES = (README, *sorted(DOCS.rglob("*.md")))
FLOW = DOCS / "img" / "flow.svg"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>\w+)(?: (?P<name>\S+))?\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_ANY_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CHANGING = (
    (re.compile(r"\d+\.\d s\b"), "0.0 s"),
    (re.compile(r"ed25519:[A-Za-z0-9+/]{8}\.\."), "ed25519:AAAAAAAA.."),
    (re.compile(r"\b\d+ (?:s|min) ago\b"), "just now"),
)
"""What differs from run to run: times, a fresh key, ages."""


@dataclass(frozen=True)
class Block:
    """A fenced code block: what its first line says, and its text without the indent."""

    kind: str
    name: str
    body: str


def blocks(page: Path) -> list[Block]:
    found = []
    for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
        indent = len(match["indent"])
        body = "".join(line[indent:] if line.strip() else line for line in match["body"].splitlines(keepends=True))
        found.append(Block(match["kind"], match["name"] or "", body))
    return found


def titled(*names: str) -> list[tuple[Path, Block]]:
    return [(page, block) for page in PAGES for block in blocks(page) if block.name in names]


def shown(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


pages = pytest.mark.parametrize("page", PAGES, ids=shown)


# --- links ---------------------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@pages
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """Files and folders that a page links to are there, and so are the headings in them."""
    lost = []
    for target in _LINK.findall(_ANY_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        inside = there.exists() and there.is_relative_to(ROOT)
        if not inside or (fragment and fragment not in map(anchor, _HEADING.findall(there.read_text(encoding="utf-8")))):
            lost.append(target)
    assert not lost


def test_every_page_is_linked_from_the_index() -> None:
    """The index names every page, or the folder that it is in."""
    linked = {(DOCS / target).resolve() for target in _LINK.findall((DOCS / "README.md").read_text(encoding="utf-8"))}
    # A fragment in docs/changes is for the release notes, not for readers.
    pages = [page for page in PAGES if page not in (README, DOCS / "README.md") and page.parent.name != "changes"]
    assert not [shown(page) for page in pages if not linked & {page, *page.parents}]


def test_the_picture_stands_alone() -> None:
    """It is well-formed, has words for who cannot see it, follows a dark page, and loads nothing."""
    text = FLOW.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert [element.text for element in root if element.tag.endswith(("title", "desc"))]
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"href|@import|@font-face|<image|<script|url\((?!#)", text)


# --- examples ------------------------------------------------------------------------------------------------------------------


@pages
def test_examples_run(page: Path) -> None:
    """The `pycon` blocks of a page, one after another, print what is shown."""
    text = "\n".join(block.body for block in blocks(page) if block.kind == "pycon")
    examples = doctest.DocTestParser().get_doctest(text, {}, shown(page), str(page), 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert result.failed == 0


@pytest.mark.parametrize(("page", "block"), titled("policy.yaml"), ids=lambda item: shown(item) if isinstance(item, Path) else "")
def test_policies_are_valid(page: Path, block: Block) -> None:
    """A policy that is shown can be used."""
    assert Policy.parse(block.body).rules


@pytest.mark.parametrize(("page", "block"), titled("recipe.yaml"), ids=lambda item: shown(item) if isinstance(item, Path) else "")
def test_recipes_are_valid(page: Path, block: Block) -> None:
    """A recipe that is shown parses."""
    assert recipe.parse(block.body).stages


def test_the_readme_shows_the_recipe_of_the_example() -> None:
    """The recipe of the README asks for what the example's own does."""
    here = next(block for page, block in titled("recipe.yaml") if page == README)
    assert recipe.parse(here.body).raw == recipe.load(ROOT / "examples/tiny-moe/recipe.yaml").raw


# --- commands ------------------------------------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[str]:
    """Every `ledger ...` of a page, in code."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(page):
        lines = [line.removeprefix("$ ") for line in block.body.splitlines() if block.kind == "sh" or line.startswith("$ ")]
        yield from (line for line in lines if line.startswith("ledger "))
    yield from (code for code in _INLINE.findall(_ANY_FENCE.sub("", text)) if code.startswith("ledger "))


@pages
def test_commands_exist(page: Path) -> None:
    """Each command that a page types exists, with its options."""
    faults = []
    for line in commands(page):
        words = shlex.split(re.split(r" [|>]| && |;", line)[0])[1:]
        command: click.Command = app
        known = {text for option in app.params for text in option.opts} | {"--help", "-h"}
        for word in words:
            if isinstance(command, click.Group) and not word.startswith("-"):
                inner = command.get_command(click.Context(command), word)
                if inner is None:
                    faults.append(line)
                    break
                command = inner
                known |= {text for option in command.params for text in option.opts}
            elif word.startswith("-") and word.partition("=")[0] not in known:
                faults.append(f"{line}: {word}")
    assert not faults


# --- help texts ----------------------------------------------------------------------------------------------------------------


def helps() -> dict[str, str]:
    """`ledger run` -> its help text, with the line that asks for it."""
    texts = re.split(r"\n\n(?=\$ ledger)", help_texts().rstrip("\n"))
    return {text.partition("\n")[0].removeprefix("$ ").removesuffix(" --help"): text + "\n" for text in texts}


def cli_page() -> str:
    parts = [f"## {name}\n\n```text\n{text}```\n" for name, text in helps().items()]
    head = "# Commands\n\nAll `--help` texts. Written by `python tests/test_docs.py`; a test compares them. [Exit codes](exit-codes.md).\n"
    return "\n".join([head, *parts])


def test_every_help_text_is_in_the_docs() -> None:
    """docs/cli.md is what the program says; if it is not, `python tests/test_docs.py` writes it anew."""
    assert CLI.read_text(encoding="utf-8") == cli_page()


def test_the_readme_shows_the_real_help_text() -> None:
    """The help text in the README is what `ledger --help` says; if it is not, `python tests/test_docs.py` writes it anew."""
    assert [block.body for block in blocks(README) if block.name == "help"] == [helps()["ledger"]]


# --- the tutorial --------------------------------------------------------------------------------------------------------------


def install(folder: Path, files: dict[str, str]) -> None:
    """What pip does with the tutorial's package: the modules, and metadata with the entry points of its pyproject.toml."""
    project = tomllib.loads(files["pyproject.toml"])["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(groups))
    for name, text in files.items():
        if name.endswith(".py"):
            (folder / name).write_text(text)


def played(page: Path, folder: Path) -> list[str]:
    """Type what the `console run` blocks of a page type; gives their text as it should be."""
    files = {block.name: block.body for block in blocks(page) if "." in block.name}
    package, work, tools = folder / "package", folder / "work", folder / "bin"
    install(package, files)
    for place in (work, tools):
        place.mkdir()
    (work / "recipe.yaml").write_text(files["recipe.yaml"])
    command = tools / "ledger"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cli.main "$@"\n')
    command.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LEDGER_", "XDG_", "PYTHON"))} | {
        "HOME": str(folder),
        "USER": "me",
        "LC_ALL": "C.UTF-8",
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{package}{os.pathsep}{ROOT}",
    }
    texts = []
    for block in blocks(page):
        if block.name != "run":
            continue
        text = ""
        for line in block.body.splitlines():
            if line.startswith("$ "):
                ran = subprocess.run(
                    ["bash", "-c", f"{line[2:]} 2>&1"], cwd=work, env=environment, stdout=subprocess.PIPE, text=True, check=False
                )
                text += f"{line}\n{ran.stdout}" + ("" if ran.stdout.endswith("\n") or not ran.stdout else "\n")
        texts.append(text)
    return texts


def steady(text: str) -> str:
    """A transcript without what differs from run to run."""
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return text


def test_the_tutorial_works_as_shown(tmp_path: Path) -> None:
    """Its package is found by its metadata, its stage runs, and every command prints what the page says."""
    expected = [block.body for block in blocks(PLUGINS) if block.name == "run"]
    assert [steady(text) for text in played(PLUGINS, tmp_path)] == [steady(text) for text in expected]


def test_the_tutorial_s_plugin_is_short() -> None:
    """About 15 lines, as its heading says."""
    code = next(block.body for block in blocks(PLUGINS) if block.name == "acme_shout.py")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def test_the_tutorial_s_strategy_prefers_the_first_experts() -> None:
    """The function that the page shows scores the experts of a layer, earlier ones higher."""
    code = next(block.body for block in blocks(PLUGINS) if block.name == "acme_first.py")
    names: dict[str, object] = {}
    exec(code, names)
    scores = names["scores"]
    assert callable(scores)
    assert list(scores(types.SimpleNamespace(about=types.SimpleNamespace(experts=3)), 0, seed=0)) == [0, -1, -2]


# --- writing anew --------------------------------------------------------------------------------------------------------------


def rewrite(page: Path, name: str, texts: list[str]) -> None:
    """Put texts in the place of a page's blocks of one name, in order."""
    remaining = iter(texts)

    def instead(match: re.Match[str]) -> str:
        if match["name"] != name:
            return match.group()
        return f"{match['indent']}```{match['kind']} {name}\n{next(remaining)}{match['indent']}```"

    page.write_text(_FENCE.sub(instead, page.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    """Write what is written by the program itself."""
    CLI.write_text(cli_page(), encoding="utf-8")
    rewrite(README, "help", [helps()["ledger"]])
    with tempfile.TemporaryDirectory() as folder:
        rewrite(PLUGINS, "run", played(PLUGINS, Path(folder)))


if __name__ == "__main__":
    main()
