"""What keeps a model from being published, each check a pure function that names every fault that it finds.

>>> metric_like("Perplexity fell 12.5 % on 8 tasks; see Qwen2.5-7B, version 1.2.3 of 2026-01-31.")
['12.5 %']
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from ledger import dsse, predicates
from ledger.errors import VerificationError
from ledger.lookup import Ignored
from ledger.policy import Policy, Span
from stages.card_facts import Facts, Licence, Row, numbers
from stages.import_model import TOKENIZERS, matches
from stages.markdown import plain
from stages.publish_evidence import Fault
from store.digest import Digest

LICENCE_FILES = ("LICENSE*", "LICENCE*", "license*", "COPYING*")

_UNITS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "%": ("%", (1.0,)), "per cent": ("%", (1.0,)), "percent": ("%", (1.0,)),
    "kb": ("bytes", (1e3, 1024.0)), "mb": ("bytes", (1e6, 2.0**20)), "gb": ("bytes", (1e9, 2.0**30)), "tb": ("bytes", (1e12, 2.0**40)),
    "kib": ("bytes", (1024.0,)), "mib": ("bytes", (2.0**20,)), "gib": ("bytes", (2.0**30,)), "tib": ("bytes", (2.0**40,)),
    "thousand": ("count", (1e3,)), "million": ("count", (1e6,)), "billion": ("count", (1e9,)), "trillion": ("count", (1e12,)),
    "bytes": ("bytes", (1.0,)), "tokens": ("count", (1.0,)), "parameters": ("count", (1.0,)), "params": ("count", (1.0,)),
    "x": ("factor", (1.0,)), "×": ("factor", (1.0,)), "times": ("factor", (1.0,)), "fold": ("factor", (1.0,)),
    "tok/s": ("rate", (1.0,)), "tokens/s": ("rate", (1.0,)), "t/s": ("rate", (1.0,)), "points": ("points", (1.0,)),
}  # fmt: skip
"""Unit as written, in lower case -> the quantity, and how much one of it may be."""

_NUMBER = re.compile(
    r"(?:(?<![\w.)\]/])[+\-−±]|(?<![\w./+\-−±]))(?P<digits>\d[\d,]*(?:\.\d+)?)(?![\w.]*\.\d|\d|-[A-Za-z0-9])"
    r"(?:[ \u00a0-]?(?P<unit>%|per cent\b|percent\b|[kMGT]i?B\b|thousand\b|million\b|billion\b|trillion\b|bytes\b|tokens/s\b|tok/s\b|t/s\b"
    r"|tokens\b|parameters\b|params\b|x\b|×|times\b|fold\b|points\b))?(?!\w)",
    re.IGNORECASE,
)
_METRIC = re.compile(
    r"\b(perplexit\w*|ppl|accurac\w*|acc|scor\w*|pass@\d+|humaneval\w*|mbpp|mmlu\w*|gsm8k|arc|hellaswag|truthfulqa|ifeval|gpqa|bbh|bleu|rouge"
    r"|f1|loss|kld|nll|wins?|beats?|outperform\w*|faster|slower|smaller|larger|better|worse|improv\w*|reduc\w*|retain\w*)\b",
    re.IGNORECASE,
)
_BEFORE = re.compile(rf"{_METRIC.pattern}\W+(?:[a-z]+\W+){{0,3}}\Z", re.IGNORECASE)
_AFTER = re.compile(rf"\W{{1,2}}(?:[a-z]+\W)?{_METRIC.pattern}", re.IGNORECASE)
_NEAR = 60
"""Characters around a number that are looked at."""


# --- single checks -------------------------------------------------------------------------------------------------------------


def acceptance(criteria: Any, facts: Facts) -> list[Fault]:
    """Hold the recipe's acceptance criteria against what is attested; whatever was not evaluated fails."""
    if not criteria:
        return []
    if not isinstance(criteria, Mapping):
        return [Fault("acceptance", "acceptanceCriteria", f"they are a mapping; got {type(criteria).__name__}", "Correct the recipe")]
    faults: list[Fault] = []
    for name, wanted in criteria.items():
        if name == "notes":
            continue
        if name == "perplexity":
            faults += _perplexity(wanted, facts)
        elif name == "benchmarks":
            faults += _benchmarks(wanted, facts)
        elif name == "hardware":
            asked = ", ".join(f"{key} {value}" for key, value in wanted.items()) if isinstance(wanted, Mapping) else str(wanted)
            text = f"{asked}: nothing attested says what these files need"
            faults.append(Fault("acceptance", "hardware", text, "Take it out of the recipe, or measure and sign it"))
        elif name == "integrity":
            continue  # a publication always has its hashes, and the record of each item is an attested output
        else:
            faults.append(
                Fault("acceptance", str(name), "nothing here measures that, so it is not met", "Known: perplexity, benchmarks, integrity")
            )
    return faults


def _perplexity(wanted: Any, facts: Facts) -> list[Fault]:
    limit = wanted.get("maxIncreasePct") if isinstance(wanted, Mapping) else None
    if limit is None:
        return [Fault("acceptance", "perplexity", f"{wanted!r} is no limit", "Write perplexity: {maxIncreasePct: 10}")]
    rows = [row for table in facts.tables for row in table.rows if row.file]
    measured = {row.file for row in rows}
    faults = [
        Fault("acceptance", file.path, f"perplexity at most {limit:+g} %: it was not evaluated", "Add an eval stage and run the recipe")
        for file in facts.files
        if file.tier and file.path not in measured
    ]
    if not rows and not faults:
        faults.append(Fault("acceptance", "perplexity", f"at most {limit:+g} %: nothing was evaluated", "Add quant and eval stages"))
    return faults + [fault for row in rows if (fault := _within(row, float(limit))) is not None]


def _within(row: Row, limit: float) -> Fault | None:
    change = row.difference
    if change is None:
        hint = "Set compareToBase: true in the eval stage"
        return Fault("acceptance", row.file, f"perplexity at most {limit:+g} %: it was compared with no base", hint)
    shown = f"{change.percent:+.2f} %"
    if change.low is not None and change.high is not None:
        shown += f" [{change.low:+.2f}, {change.high:+.2f}]"
    if change.high is not None and change.high <= limit:
        return None
    if change.low is not None and change.low > limit:
        return Fault("acceptance", row.file, f"perplexity at most {limit:+g} %: it is {shown}", "Keep more, or raise the limit")
    hint = "Evaluate on more text, so that the interval gets narrower"
    return Fault("acceptance", row.file, f"perplexity at most {limit:+g} %: {shown} does not settle it", hint)


def _benchmarks(wanted: Any, facts: Facts) -> list[Fault]:
    if not isinstance(wanted, Mapping):
        return [Fault("acceptance", "benchmarks", "they are a mapping of names to limits", "Correct the recipe")]
    faults: list[Fault] = []
    for name, limits in wanted.items():
        found = [
            (one.file, one.value)
            for one in facts.results
            if one.benchmark == name and one.metric in ("score", "accuracy", "passing", "pass@1", str(name))
        ]
        found += [
            ("the folder", f"{one.accuracy:.10g}") for one in facts.answered if one.benchmark == name and not (one.variant or one.outcome)
        ]
        least = limits.get("min") if isinstance(limits, Mapping) else None
        if not found:
            text = f"at least {least}: it was not evaluated on what is published"
            faults.append(Fault("acceptance", str(name), text, "Add it to an eval stage and run the recipe"))
            continue
        if isinstance(limits, Mapping) and limits.get("anchorDelta") is not None:
            text = f"anchorDelta {limits['anchorDelta']}: no attested result compares it with the base"
            faults.append(Fault("acceptance", str(name), text, "Compare it with the base, or take the criterion out"))
        for file, value in found:
            if least is not None and not float(value) >= float(least):
                faults.append(Fault("acceptance", str(name), f"at least {least}: {file} has {value}", "Lower the limit, or keep more"))
    return faults


def licence(given: str | None, recipe: Mapping[str, Any], paths: Iterable[str]) -> tuple[Licence, list[Fault]]:
    """What is known of the licence, and the fault that nothing is.

    Args:
        given: on the command line.
        recipe: its `license`, and `source.license` of the base.
        paths: of the model's files; a text of the licence among them counts.
    """
    said = recipe.get("license")
    written = str(said) if isinstance(said, str) and said.strip() else ""
    source = recipe.get("source")
    base = str(source["license"]) if isinstance(source, Mapping) and isinstance(source.get("license"), str) else ""
    file = next((path for path in sorted(paths) if matches(path, LICENCE_FILES)), "")
    faults: list[Fault] = []
    if given and written and given.strip().lower() != written.strip().lower():
        text = f"the recipe says {written!r}, and --licence says {given!r}"
        faults.append(Fault("licence", "licence", text, "Say one of them, in the recipe"))
    name = written or (given or "").strip()
    who = "as the recipe says" if written else "as said when it was published" if name else "as the file in the model says"
    if not name and not file:
        text = "the recipe has no `license`, and the model no LICENSE file: nobody may use what has no licence"
        faults.append(Fault("licence", "licence", text, "Write `license: ..` into the recipe, or say --licence"))
    return Licence(name=name, said=who, file=file, base=base), faults


_NO_CONFIG = Fault("files", "config.json", "it is missing, so nothing knows what the weights are", "Run the recipe again")


def complete(paths: Collection[str]) -> list[Fault]:
    """Whether a folder with weights has what loads them: a config and a tokenizer; of several models in it, each its own.

    An ensemble has its members below `members/`, and at the top a config alone.
    """
    inner = sorted({str(PurePosixPath(path).parent) for path in paths if path.startswith("members/") and path.endswith(".safetensors")})
    if inner and not any(path.endswith(".safetensors") and "/" not in path for path in paths):
        faults = [] if "config.json" in paths else [_NO_CONFIG]
        for folder in inner:
            own = [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]
            faults += [replace(fault, what=f"{folder}: {fault.what}") for fault in complete(own)]
        return faults
    if not any(path.endswith(".safetensors") for path in paths):
        return [Fault("files", "the model", "its folder has no .safetensors file", "Run the recipe again")]
    faults = []
    if "config.json" not in paths:
        faults.append(_NO_CONFIG)
    if not any(matches(path, TOKENIZERS) for path in paths):
        text = f"none of {', '.join(TOKENIZERS)} is there, so no text becomes tokens"
        faults.append(Fault("files", "the tokenizer", text, "Import the model again with its tokenizer's files"))
    elif any(matches(path, ("tokenizer.json", "tokenizer.model")) for path in paths) and "tokenizer_config.json" not in paths:
        faults.append(Fault("files", "tokenizer_config.json", "it is missing beside the tokenizer", "Import the model again with it"))
    return faults


def names(paths: Sequence[str], own: Collection[str]) -> list[Fault]:
    """Whether a file of the model has the name of one that a publication writes itself."""
    return [
        Fault("files", path, "a publication writes a file of this name itself", "Import the model again without it")
        for path in paths
        if path in own or PurePosixPath(path).parts[0] in ("assets", ".git", ".gitattributes", ".github", ".gitignore")
    ]


def standing(refused: Mapping[Digest, tuple[str, Sequence[Ignored]]], policy: Policy) -> list[Fault]:
    """Objects about which no statement counts, with why: a key that was revoked, one that nobody trusts, or no statement at all.

    Args:
        refused: object -> what it is, and the statements about it that do not count.
        policy: narrowed by the key events of the log.
    """
    faults = []
    for digest, (what, ignored) in refused.items():
        reason = _reason(ignored, policy) if ignored else f"nobody says where {digest} comes from"
        faults.append(Fault("statements", what, reason, "Run the recipe again with a key that the policy trusts"))
    return faults


def revoked(refused: Mapping[Digest, tuple[str, Sequence[Ignored]]], policy: Policy) -> list[Fault]:
    """Statements that would count, had their key not been revoked or superseded before them.

    Args:
        refused: object -> what it is, and the statements about it that do not count.
        policy: narrowed by the key events of the log.
    """
    faults: dict[int, Fault] = {}
    for what, ignored in refused.values():
        for one in ignored:
            try:
                signers = dsse.verify(one.entry.signed, policy.keys.values())
            except VerificationError:
                continue  # by nobody whom the policy names
            ended = [name for name, key in policy.keys.items() if key in signers and one.entry.number not in policy.spans.get(name, Span())]
            if ended and one.entry.number not in faults:
                text = f"entry {one.entry.number} was signed by {' and '.join(ended)}, whose key does not count there: {one.reason}"
                hint = "Run the recipe again with a key that counts, or `ledger verify --rerun` with one"
                faults[one.entry.number] = Fault("statements", what, text, hint)
    return list(faults.values())


def _reason(ignored: Sequence[Ignored], policy: Policy) -> str:
    runs = [one for one in ignored if _is_run(one)]
    first = (runs or list(ignored))[0]
    return f"entry {first.entry.number} does not count: {first.reason}"


def _is_run(one: Ignored) -> bool:
    try:
        return one.entry.statement.predicate_type == predicates.RUN
    except VerificationError:
        return False


# --- what the author says ------------------------------------------------------------------------------------------------------


def free_text(texts: Mapping[str, str], facts: Facts) -> list[Fault]:
    """Numbers in the author's own words that read like a measurement and are none that is attested.

    Args:
        texts: where it stands -> the text.
        facts: with all numbers that are attested; one may be repeated with fewer digits, and in another unit of the same quantity.
    """
    known = numbers(facts)
    return [
        Fault("numbers", where, f"{found!r} is no attested number", "Leave it out, or have it measured and signed by an eval stage")
        for where, text in texts.items()
        for found in metric_like(text)
        if not _is_attested(found, known)
    ]


def metric_like(text: str) -> list[str]:
    """The numbers of a text that read like a measurement, each with its unit.

    Such are numbers with a fraction or a unit, and whole ones beside a word like `perplexity` or `faster`. Versions, dates, and numbers
    that are part of a name (`Qwen2.5-7B`, `8x7B`, `top-2`) are none.
    """
    text = plain(unicodedata.normalize("NFKC", text))  # as the card shows it: without what is not seen; a full-width % is one too
    found = []
    for match in _NUMBER.finditer(text):
        before, after = text[max(0, match.start() - _NEAR) : match.start()], text[match.end() : match.end() + _NEAR]
        unit = (match["unit"] or "").lower()
        if "." in match["digits"] or unit in _UNITS or _BEFORE.search(before) or _AFTER.match(after):
            found.append(match.group().strip())
    return found


def _is_attested(written: str, known: Sequence[tuple[float, str]]) -> bool:
    match = _NUMBER.search(written)
    if match is None:
        return False
    unit = (match["unit"] or "").lower()
    quantity, scales = _UNITS.get(unit, ("", (1.0,)))
    digits = match["digits"].replace(",", "")
    value = float(digits)
    step = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    fitting = {"%": ("%",), "bytes": ("bytes",), "count": ("tokens", "parameters"), "": ("", "%", "tokens", "parameters", "bytes")}
    allowed = fitting.get(quantity, ())
    return any(kind in allowed and any(abs(abs(number) / scale - value) <= step * (1 + 1e-9) for scale in scales) for number, kind in known)
