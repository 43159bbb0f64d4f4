"""What a person types becomes a digest: whole digests, abbreviations, entry numbers, pins, and outputs of recipes by name.

>>> looks_like_digest("4be1"), looks_like_digest("sha256:4b"), looks_like_digest("mixtral"), looks_like_digest("4b")
(True, True, False, False)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import UsageError
from ledger.loose import as_dict
from store.digest import Digest

if TYPE_CHECKING:
    from cli.workspace import Workspace
    from ledger.log import Entry

_HEX = re.compile(r"(?:sha256:[0-9a-f]{2,64}|[0-9a-f]{4,64})\Z")
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_SHOWN = 8


def looks_like_digest(text: str) -> bool:
    """A digest or an abbreviation of one: at least four hex digits, or two after `sha256:`."""
    return bool(_HEX.match(text))


def find_entry(workspace: Workspace, text: str) -> Entry | None:
    """The entry that a plain number (`12` or `#12`, no leading zeros) names, if there is one of that number."""
    digits = text.removeprefix("#")
    if not digits.isascii() or not digits.isdigit() or str(int(digits[:20])) != digits:
        return None
    return workspace.log.entry(int(digits)) if int(digits) < workspace.log.size else None


def find_digest(workspace: Workspace, text: str) -> Digest:
    """The one key or object of this ledger that begins like this.

    Raises:
        UsageError: nothing does, or several do; they are listed.
    """
    digits = text.removeprefix("sha256:")
    if len(digits) == 64:
        return Digest.parse(f"sha256:{digits}")
    found = sorted({digest for digest in _known(workspace, digits) if digest.hex.startswith(digits)})
    if not found:
        raise UsageError(f"nothing in {workspace.folder} begins with {digits}; `ledger log` shows what is there")
    if len(found) > 1:
        more = f"\nand {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        listed = "\n".join(f"{digest}  {_what(workspace, digest)}" for digest in found[:_SHOWN])
        raise UsageError(f"{digits} is not enough: {len(found)} begin with it\n{listed}{more}")
    return found[0]


def _known(workspace: Workspace, digits: str) -> Iterable[Digest]:
    actions = workspace.log.actions()
    yield from (key for _, key in actions)
    yield from workspace.log.subjects()
    for area in ("objects", "splices"):
        folder = workspace.folder / area / digits[:2]
        if folder.is_dir():
            yield from (Digest.parse(f"sha256:{digits[:2]}{file.name}") for file in folder.iterdir() if len(file.name) == 62)


def _what(workspace: Workspace, digest: Digest) -> str:
    runs = workspace.log.lookup(digest)
    if runs:
        return f"the action of entry {runs[0].number}: {runs[0].message}"
    made = workspace.log.by_subject(digest)
    return f"an object, entry {made[0].number}: {made[0].message}" if made else "an object"


# --- runs ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """What is written about one run.

    Attributes:
        id: its file's name; state: running, done or failed, as the run wrote it last.
        pid: the process, while it runs. outputs: recipe stage -> output name -> digest, once it is done.
        alloy: where it wrote its alloy.
    """

    id: str
    recipe: str
    state: str
    started_on: str
    pid: int | None
    outputs: Mapping[str, Mapping[str, Digest]]
    roots: tuple[Digest, ...]
    counts: Mapping[str, int]
    alloy: Path | None = None


def runs(folder: Path) -> list[Run]:
    """The runs of a ledger, oldest first. Files that are no such record are passed over: they decide nothing."""
    found = [run for file in sorted((folder / "runs").glob("*.json")) if (run := _read_run(file)) is not None]
    return sorted(found, key=lambda run: (run.started_on, run.id))


def _read_run(file: Path) -> Run | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        outputs = {
            str(group): {str(name): Digest.parse(text) for name, text in named.items()}
            for group, named in as_dict(value.get("outputs")).items()
        }
        roots = tuple(Digest.parse(text) for text in value.get("roots", ()))
        counts = {name: int(value[name]) for name in ("total", "found", "done", "failed") if isinstance(value.get(name), int)}
        pid = value.get("pid")
        return Run(
            file.stem, str(value["recipe"]), str(value["state"]), str(value.get("startedOn", "")),
            pid if isinstance(pid, int) else None, outputs, roots, counts,
            next((Path(name) for name in as_dict(value.get("wrote")) if str(name).endswith(".alloy.json")), None),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def latest_run(folder: Path, recipe: str) -> Run | None:
    """The latest finished run of a recipe."""
    return next((run for run in reversed(runs(folder)) if run.recipe == recipe and run.outputs), None)


def deliverables(run: Run) -> dict[str, Digest]:
    """What a run made that others load: file or folder name -> digest, as the run's alloy names it too."""
    from ledger import alloy

    return alloy.deliverables(run.recipe, ((stage, name, digest) for stage, named in run.outputs.items() for name, digest in named.items()))


# --- pins and outputs ----------------------------------------------------------------------------------------------------------


def pins(folder: Path) -> dict[str, Digest]:
    """Name -> digest of everything that is pinned, sorted by name."""
    place = folder / "pins"
    if not place.is_dir():
        return {}
    return {file.name: Digest.parse(file.read_text(encoding="ascii").strip()) for file in sorted(place.iterdir()) if _PIN.match(file.name)}


def check_pin_name(name: str) -> str:
    """A name that can name a pin.

    Raises:
        UsageError: it cannot.
    """
    if not _PIN.match(name) or looks_like_digest(name):
        raise UsageError(f"{name!r} cannot name a pin: letters, digits and ._- only, and nothing that reads like a digest")
    return name


def find_object(workspace: Workspace, text: str) -> tuple[Digest, str]:
    """The object that a person means, and a short name for it.

    `RECIPE` is the last model (else the last output) of the latest finished run of a recipe; `RECIPE:OUTPUT` or
    `RECIPE:STAGE.OUTPUT` one output of it; then pins, digests and their abbreviations.

    Raises:
        UsageError: it names nothing, or several things.
    """
    name, _, output = text.partition(":")
    if not text.startswith("sha256:"):
        latest = latest_run(workspace.folder, name)
        if latest is not None:
            return _output(latest, output)
        pinned = pins(workspace.folder)
        if text in pinned:
            return pinned[text], text
    if looks_like_digest(text):
        digest = find_digest(workspace, text)
        return digest, digest.hex[:12]
    known = sorted({run.recipe for run in runs(workspace.folder) if run.outputs} | set(pins(workspace.folder)))
    raise UsageError(f"{text!r} names no finished recipe, no pin and no digest here; known names: {', '.join(known) or 'none yet'}")


def _output(run: Run, wanted: str) -> tuple[Digest, str]:
    everything = {f"{group}.{name}": digest for group, named in run.outputs.items() for name, digest in named.items()}
    if not wanted:
        models = [full for full in everything if full.endswith(".model")]
        full = (models or list(everything))[-1]
        return everything[full], run.recipe
    if wanted in everything:
        return everything[wanted], _called(run, wanted)
    matching = [full for full in everything if full.rpartition(".")[2] == wanted or full.rpartition(".")[0] == wanted]
    different = {everything[full] for full in matching}
    if not matching:
        raise UsageError(f"{run.recipe} has no output {wanted!r}; it has {', '.join(everything)}")
    if len(different) > 1 and wanted == "model":
        return everything[matching[-1]], _called(run, matching[-1])
    if len(different) > 1:
        raise UsageError(f"{run.recipe}:{wanted} is not enough; say one of {', '.join(f'{run.recipe}:{full}' for full in matching)}")
    return everything[matching[-1]], _called(run, matching[-1])


def _called(run: Run, full: str) -> str:
    from ledger.alloy import file_name

    return file_name(f"{run.recipe}-{full.rpartition('.')[2].removeprefix('gguf-')}")
