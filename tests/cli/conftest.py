"""A person's machine for each test: a home, keys, a folder to work in, and a way to type commands."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from ledger.memory import Memory

RECIPE = """name: shouting
version: 1.0.0
stages:
  - {type: acme-shout, text: hello.txt, marks: 3}
  - {type: acme-fan, width: 2, depth: 2}
"""


@dataclass(frozen=True)
class Said:
    """What a command said: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        return json.loads(self.out)

    @property
    def objects(self) -> list[Any]:
        """The JSON objects on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Desk:
    """Types commands in a working folder."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.folder, self._capsys = root, root / "work", capsys

    @property
    def ledger(self) -> Path:
        """The ledger's folder."""
        return self.folder / ".ledger"

    def type(self, *arguments: str | Path) -> Said:
        """Run `ledger` with these arguments, here in this process."""
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Said(code, *self._capsys.readouterr())

    def ok(self, *arguments: str | Path) -> Said:
        """The same, and it must succeed."""
        said = self.type(*arguments)
        assert said.code == 0, said
        return said


def settle(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Make `root` the whole machine of a person called alice."""
    (root / "work").mkdir(parents=True, exist_ok=True)
    for name, value in {"HOME": root, "XDG_STATE_HOME": root / "state", "LEDGER_KEYS": root / "keys", "USER": "alice"}.items():
        patch.setenv(name, str(value))
    for name in ("LEDGER_DIR", "LEDGER_PASSPHRASE", "NO_COLOR", "COLUMNS"):
        patch.delenv(name, raising=False)
    patch.chdir(root / "work")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A machine on which nothing was ever done; a recipe lies ready."""
    settle(tmp_path, monkeypatch)
    desk = Desk(tmp_path, capsys)
    (desk.folder / "hello.txt").write_text("hello")
    (desk.folder / "recipe.yaml").write_text(RECIPE)
    return desk


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine on which the recipe was run, made once."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        settle(root, patch)
        (root / "work/hello.txt").write_text("hello")
        (root / "work/recipe.yaml").write_text(RECIPE)
        assert main(["run", "recipe.yaml", "-j", "1"]) == 0
    return root


@pytest.fixture
def done(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A machine on which the recipe was run; the test's own copy."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    settle(tmp_path, monkeypatch)
    Memory.default().adopt(tmp_path / "work/.ledger")  # it was moved
    return Desk(tmp_path, capsys)
