"""The model card: a function of facts that were read from signed statements, and of nothing else.

Every number stands in a `Measured`, a `Difference` or a `Step` that names the entry of the log that it rests on; what others wrote (names,
descriptions, paths) is escaped for Markdown and HTML, so it stays text. Which facts there are is for `stages.publish_facts` to find out.

>>> md("**bold** <b>|</b> [x](https://e.example)")
'\\\\*\\\\*bold\\\\*\\\\* &lt;b&gt;\\\\|&lt;/b&gt; \\\\[x\\\\]\\\\(https&#58;//e.example\\\\)'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ledger.report import entries as entries_of
from stages.compare import rounded, size

PROOF_QR, VERIFY_QR = "proof-qr.png", "verify-qr.png"
PERPLEXITY, DIFFERENCE, LOSS = "assets/perplexity{}.svg", "assets/difference{}.svg", "assets/loss.svg"

_HUB_LICENCES = (
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigcode-openrail-m", "afl-3.0", "artistic-2.0",
    "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0",
    "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1",
    "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "lppl-1.3c", "ms-pl", "mpl-2.0",
    "odbl", "ofl-1.1", "osl-3.0", "postgresql", "ncsa", "unlicense", "zlib", "pddl", "gemma", "llama2", "llama3", "llama3.1", "llama3.2",
    "llama3.3", "llama4", "deepfloyd-if-license", "apple-amlr", "intel-research", "h-research", "lgpl-lr",
)  # fmt: skip
"""What the Hub knows by name (hub-docs, "Licenses"); any other is `other` with a name of its own."""

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u00ad\u180e\u200b-\u200d\u2060-\u2064\ufeff]"
)


# --- facts ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who says something.

    Attributes:
        entry: number of the entry in the log.
        signers: names of the keys that signed it.
        others: names of the keys that have done again what it rests on, with the same outputs.
    """

    entry: int
    signers: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One evaluation. Numbers are as signed; None where the statement has none."""

    value: float
    stderr: float | None
    low: float | None
    high: float | None
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A paired difference to a baseline, in per cent.

    Attributes:
        baseline: what it is compared with, for people.
        verdict: `better`, `worse` or `not resolved`.
        limit: the most that the recipe allows, in per cent; accepted: what came of it; None and "" without a limit.
    """

    baseline: str
    percent: float
    low: float | None
    high: float | None
    verdict: str
    source: Source
    limit: float | None = None
    accepted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model in one type, as measured.

    Attributes:
        file: its name in the repository; "" for what is only compared with.
        variant, tier: `this model`, `base`, `control random`; `Q4_K_M`.
        size_bytes: of the file; None for what is no file.
    """

    file: str
    variant: str
    tier: str
    size_bytes: int | None
    measured: Measured
    difference: Difference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Perplexities on one dataset.

    Attributes:
        dataset: its name in the recipe; digest: hex SHA-256. scored: tokens. context: tokens of a chunk. toolchains: what measured.
        notes: what the runs were warned of.
    """

    dataset: str
    digest: str
    scored: int
    context: int
    chunks: int
    toolchains: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A number of any other benchmark."""

    file: str
    benchmark: str
    dataset: str
    metric: str
    value: str
    stderr: str | None
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stage of the work, and the entries of its runs.

    Attributes:
        what: for people. runs: how many.
        signers: names of the keys that signed them. others: names of the keys that have done one of them again, with the same outputs.
        confirmed: how many of them were done again. least: by how many other keys each of them was, at least.
    """

    stage: str
    what: str
    entries: tuple[int, ...]
    signers: tuple[str, ...]
    runs: int
    confirmed: int = 0
    least: int = 0
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of the publication.

    Attributes:
        tier: of a GGUF file; "" for the files of the model's folder.
    """

    path: str
    size_bytes: int
    tier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """That a file or the folder was loaded.

    Attributes:
        what: the file's name, or `the folder`. how: `forward`, `counted` or `tokens` (`stages.load_check`). by: what loaded it.
        parameters: as counted there. architecture: class or architecture. source: None when it was not recorded (a preview).
    """

    what: str
    how: str
    by: str
    parameters: int
    architecture: str
    source: Source | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """What is known of the licence.

    Attributes:
        name: as it was given; "" when only a file says it. said: who says so. file: the text, in the repository; "" when there is none.
        base: the licence of the base model, as the recipe says it; "" when nobody does.
    """

    name: str
    said: str
    file: str
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What it was made from.

    Attributes:
        name: as the recipe calls it; "" when it was trained from nothing. hub: its id on the Hub, with `revision`, when it came from there.
        relation: `quantized`, `finetune` or `merge`. digest: of its tree of files.
        others: further models that were merged in, as Hub ids.
    """

    name: str
    hub: str
    revision: str
    relation: str
    digest: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a card says. Texts of others are as they came; `render` escapes them.

    Attributes:
        what: one plain sentence, made of facts: its parts are escaped already.
        repo: `org/name`. alloy: file name of the alloy. alloy_digest: hex SHA-256 of it. verify_url: what the QR holds.
        log: origin of the log, and how many entries it had when this was released. release: entry of the release.
        keys: name -> public text of the keys that signed anything here; model_key: of `model.sig`, None when there is none.
        proof_qr: whether the proof of the release fits into a QR, and so is one.
        pictures: path in the repository -> what it shows.
    """

    name: str
    version: str
    repo: str
    what: str
    description: str
    summary: str
    limitations: tuple[str, ...]
    author: str
    tags: tuple[str, ...]
    datasets: tuple[str, ...]
    licence: Licence
    base: Base
    library: str
    files: tuple[File, ...]
    tables: tuple[Table, ...]
    results: tuple[Result, ...]
    loads: tuple[Loads, ...]
    steps: tuple[Step, ...]
    alloy: str
    alloy_digest: str
    verify_url: str
    log: tuple[str, int]
    release: int | None
    keys: Mapping[str, str]
    model_key: str | None
    proof_qr: bool
    pictures: Mapping[str, str]


# --- text --------------------------------------------------------------------------------------------------------------------


def md(text: str) -> str:
    """Text of others as one line of Markdown that shows exactly it: no markup, no HTML, no link, no image, no line break."""
    shown = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _MARKUP.sub(r"\\\1", shown).replace(":", "&#58;").replace("@", "&#64;")
    escaped = re.sub(r"(?i)(www)\.", r"\1&#46;", escaped)
    # What would begin a list or underline a heading at the start of a line.
    return re.sub(r"^(\d*)(\.(?=\s|\Z)|[-=])", r"\1\\\2", escaped)


def plain(text: str) -> str:
    """Text of others on one line, without what is there and not seen."""
    return " ".join(_UNSEEN.sub("", text).split())


def code(text: str) -> str:
    """Text of others as code, on one line. A backtick cannot be escaped inside, so it is shown as another quote."""
    shown = plain(text).replace("`", "'").replace("|", "¦")
    return f"`{shown}`" if shown else ""


def paragraphs(text: str) -> str:
    """Text of others that may have several paragraphs."""
    return "\n\n".join(filter(None, (md(part) for part in re.split(r"\n\s*\n", text))))


# --- the whole -----------------------------------------------------------------------------------------------------------------


def render(facts: Facts) -> str:
    """The text of README.md."""
    parts = [
        _front(facts),
        f"# {md(facts.name)}",
        facts.what,
        paragraphs(facts.summary),
        paragraphs(facts.description) if facts.description != facts.summary else "",
        _qr(facts),
        _files(facts),
        *(_table(facts, table, number) for number, table in enumerate(facts.tables)),
        _results(facts),
        _standing(facts),
        _made(facts),
        _quick_start(facts),
        _verify(facts),
        _licence(facts),
        _limits(facts),
        _footer(facts),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _front(facts: Facts) -> str:
    import yaml

    head: dict[str, Any] = {"license": hub_licence(facts.licence.name)}
    if head["license"] == "other":
        head["license_name"] = re.sub(r"[^a-z0-9.]+", "-", facts.licence.name.lower()).strip("-") or "see-licence-file"
        if facts.licence.file:
            head["license_link"] = plain(facts.licence.file)
    head |= {"library_name": facts.library, "pipeline_tag": "text-generation"}
    models = [plain(name) for name in (facts.base.hub, *facts.base.others) if name]
    if models:
        head |= {"base_model": models if len(models) > 1 else models[0], "base_model_relation": facts.base.relation}
    head["tags"] = [plain(tag) for tag in facts.tags]
    if facts.datasets:
        head["datasets"] = [plain(name) for name in facts.datasets]
    results = _model_index(facts)
    if results:
        head["model-index"] = [{"name": plain(facts.name), "results": results}]
    return "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000) + "---"


def hub_licence(name: str) -> str:
    """A licence as the Hub writes it.

    >>> hub_licence("Apache-2.0"), hub_licence("MIT"), hub_licence("My own"), hub_licence("")
    ('apache-2.0', 'mit', 'other', 'other')
    """
    plain = name.strip().lower()
    return plain if plain in _HUB_LICENCES else "other"


def _model_index(facts: Facts) -> list[dict[str, Any]]:
    """Perplexity and its standard error of every file that is here, by the form that the Hub reads."""
    results: list[dict[str, Any]] = []
    for table in facts.tables:
        for row in table.rows:
            if not row.file:
                continue
            metrics = [_metric("perplexity", row.measured.value, f"perplexity ({plain(row.tier)})")]
            if row.measured.stderr is not None:
                metrics.append(_metric("perplexity_stderr", row.measured.stderr, f"standard error of perplexity ({plain(row.tier)})"))
            results.append(
                {
                    "task": {"type": "text-generation", "name": "Text generation"},
                    "dataset": {"type": f"sha256:{table.digest}", "name": f"{plain(table.dataset)} ({table.scored} tokens)"},
                    "metrics": metrics,
                    "source": {"name": f"entry {row.measured.source.entry} of the ledger", "url": facts.verify_url},
                }
            )
    return results


def _metric(kind: str, value: float, name: str) -> dict[str, Any]:
    return {"type": kind, "value": float(f"{value:.6g}"), "name": name, "verified": False}


def _qr(facts: Facts) -> str:
    sources = _sources(facts)
    what = "Every measured number on this page" if sources else "Every run behind these files"
    who = _keys([one.signers for one in sources] or [one.signers for one in facts.steps])
    confirmed, again = confirmations(facts), _done_again(facts)
    if confirmed:
        others = f", confirmed by {confirmed} other key{'s' if confirmed > 1 else ''}"
    else:
        others = f"; {again}, the rest is confirmed by nobody else yet" if again else ", confirmed by nobody else yet"
    picture = f'[<img src="{VERIFY_QR}" alt="QR code: check this model" width="180">]({facts.verify_url})'
    words = (
        f"{what} is in a statement signed with {who}{others}{'; the last column has its entry in the log' if sources else ''}. "
        "[What that proves, and what not](#what-is-proven-and-what-is-not) · [How to check it](#how-to-check-it)"
    )
    return f"{picture}\n\n{words}"


def _keys(names: Iterable[tuple[str, ...]]) -> str:
    each = [code(name) for name in dict.fromkeys(name for several in names for name in several)]
    return f"the key{'s' if len(each) > 1 else ''} {' and '.join(each) or 'of nobody'}"


def _measurements(facts: Facts) -> list[Source]:
    """Who says each measurement of the files that are published."""
    return [row.measured.source for table in facts.tables for row in table.rows if row.file] + [one.source for one in facts.results]


def _sources(facts: Facts) -> list[Source]:
    """Who says each number, those of the models that are only compared with among them."""
    rows = [row for table in facts.tables for row in table.rows]
    differences = [row.difference.source for row in rows if row.difference is not None]
    return [row.measured.source for row in rows] + differences + [one.source for one in facts.results]


def confirmations(facts: Facts) -> int:
    """By how many other keys all of the work was done again: the least of all steps and measurements."""
    return min([len(one.others) for one in _measurements(facts)] + [step.least for step in facts.steps], default=0)


def _done_again(facts: Facts) -> str:
    """How much of the work other keys have done again, and which; "" when nothing."""
    measured = _measurements(facts)
    counts = [
        (sum(step.confirmed for step in facts.steps), sum(step.runs for step in facts.steps), "runs behind these files"),
        (sum(bool(one.others) for one in measured), len(measured), "measurements of them"),
    ]
    parts = [f"{again:,} of the {all_:,} {what}" for again, all_, what in counts if again]
    if not parts:
        return ""
    were = "was" if sum(again for again, _, _ in counts) == 1 else "were"
    names = [one.others for one in facts.steps] + [one.others for one in measured]
    return f"{' and '.join(parts)} {were} done again with the same outputs, with {_keys(names)}"


def _files(facts: Facts) -> str:
    folder = [file for file in facts.files if not file.tier]
    lines = ["## Files", ""]
    tiers = sorted((file for file in facts.files if file.tier), key=lambda file: (-file.size_bytes, file.path))
    rows = [("file", "type", "size"), ("---", "---", "---:")]
    weights = [file for file in folder if file.path.endswith(".safetensors")]
    if weights:
        count = f"{len(weights)} files" if len(weights) > 1 else code(weights[0].path)
        rows.append(
            (f"safetensors, {count}" if len(weights) > 1 else count, "safetensors", _bytes(sum(file.size_bytes for file in weights)))
        )
    rows += [(code(file.path), md(file.tier), _bytes(file.size_bytes)) for file in tiers]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    loads = [
        f"{code(one.what) if '.' in one.what else md(one.what)}: {_LOADED[one.how].format(by=md(one.by))} {_entry(one.source)}"
        for one in facts.loads
    ]
    if loads:
        lines += ["", "Each of them was loaded before it was published:", "", *(f"- {line}" for line in loads)]
    return "\n".join(lines)


_LOADED = {
    "forward": "loads with {by}, every tensor accounted for, and reads a text",
    "counted": "is known to {by}, and its files hold exactly the parameters that its architecture has; too large to be run for this check",
    "tokens": "loads with {by} and predicts the tokens of a text",
}


def _bytes(count: int) -> str:
    return f"{size(count)} ({count:,} bytes)"


def _entry(source: Source | None) -> str:
    return f"[{source.entry}]" if source is not None else "(not recorded)"


def _table(facts: Facts, table: Table, number: int) -> str:
    name = md(table.dataset)
    lines = [
        f"## Perplexity on {name}",
        "",
        f"{table.scored:,} tokens in {table.chunks:,} chunks of {table.context:,}, the second half of each scored; lower is better. "
        "± is the standard error over chunks, in square brackets stands the 95 % interval. A difference is paired: both models read the "
        "same tokens, so it is known much better than either perplexity alone. "
        f"Measured with {', '.join(md(one) for one in table.toolchains)}.",
        "",
        "| | type | size | perplexity | against | difference | | entry |",
        "|---|---|---:|---:|---|---:|---|---:|",
    ]
    for row in table.rows:
        variant = f"**{md(row.variant)}**" if row.file else md(row.variant)
        sized = "" if row.size_bytes is None else size(row.size_bytes)
        measured = row.measured
        value = rounded(measured.value, measured.stderr)
        if measured.low is not None and measured.high is not None:
            value += f" [{_like(measured.low, value)}, {_like(measured.high, value)}]"
        change = _difference(row.difference)
        lines.append(f"| {variant} | {md(row.tier)} | {sized} | {value} | {change} | {measured.source.entry} |")
    sources = sorted({row.difference.source.entry for row in table.rows if row.difference is not None})
    if sources:
        lines += ["", f"Differences: {entries_of(sources)}."]
    suffix = f"-{number}" if number else ""
    pictures = [path for path in (PERPLEXITY.format(suffix), DIFFERENCE.format(suffix)) if path in facts.pictures]
    for path in pictures:
        lines += ["", f"![{md(facts.pictures[path])}]({path})"]
    if table.notes:
        lines += ["", "The tools warned:", "", *(f"- {md(text)}" for text in table.notes)]
    lines += ["", f"The text is `sha256:{table.digest}`."]
    return "\n".join(lines)


def _like(value: float, shown: str) -> str:
    """A bound with as many decimals as the value beside it."""
    decimals = shown.partition(" ")[0].partition(".")[2]
    return f"{value:.{len(decimals)}f}"


def _difference(difference: Difference | None) -> str:
    """Cells `against | difference | verdict`; a gain of a lower perplexity is negative, and is written with its own sign."""
    if difference is None:
        return " | | "
    change = f"{difference.percent:+.2f} %"
    if difference.low is not None and difference.high is not None:
        change += f" [{difference.low:+.2f}, {difference.high:+.2f}]"
    words = md(difference.verdict)
    if difference.limit is not None:
        words += f"; {md(difference.accepted)} (limit {difference.limit:+g} %)"
    return f"{md(difference.baseline)} | {change} | {words}"


def _results(facts: Facts) -> str:
    if not facts.results:
        return ""
    lines = ["## Other results", "", "| file | benchmark | on | metric | value | entry |", "|---|---|---|---|---:|---:|"]
    for one in facts.results:
        value = one.value if one.stderr is None else f"{one.value} ± {one.stderr}"
        lines.append(
            f"| {code(one.file)} | {md(one.benchmark)} | {md(one.dataset)} | {md(one.metric)} | {md(value)} | {one.source.entry} |"
        )
    return "\n".join(lines)


def _standing(facts: Facts) -> str:
    """What is proven, attested and not proven, in plain words."""
    confirmed = confirmations(facts)
    steps = sum(step.runs for step in facts.steps)
    names = _keys([one.signers for one in facts.steps] + [one.signers for one in _sources(facts)])
    numbers = [row for table in facts.tables for row in table.rows if row.file]
    lines = ["## What is proven, and what is not", ""]
    lines += [
        "**Proven**, once you check it yourself (one command, below): that the files are the ones that the signed statements are about, "
        "byte for byte; that the statements are in the log, in that order, and were not changed; which stage each file came out of, and "
        "from what.",
        "",
    ]
    what = f"that the {steps:,} runs went as stated" + (" and that the numbers above are what came out" if numbers or facts.results else "")
    if confirmed:
        lines.append(
            f"**Attested**: {what}. It is signed with {names}, and {confirmed} other key{'s have' if confirmed > 1 else ' has'} done all "
            "of it again, with the same outputs."
        )
    else:
        again = _done_again(facts)
        more = f"Of it, {again}; the rest was" if again else "It was"
        lines.append(
            f"**Attested**: {what}. It is signed with {names}. {more} confirmed by nobody else yet: whoever holds the inputs can "
            "run it again (`ledger verify --rerun`)."
        )
    lines += ["", "**Not proven**, by anything here:", ""]
    if facts.base.name and not facts.base.hub:
        lines.append(f"- where the base model {code(facts.base.name)} came from before it was taken in (`sha256:{facts.base.digest}`);")
    elif facts.base.hub:
        lines.append(f"- who trained {md(facts.base.hub)} and on what: it was taken from the Hub as it was at that commit;")
    if numbers:
        lines.append("- that perplexity on this text says anything about answers, facts, code or other languages;")
        if all(row.file for table in facts.tables for row in table.rows):
            lines.append("- how it compares with anything else: it was compared with nothing;")
    else:
        lines.append("- how good the model is: no evaluation of these files is attested;")
    lines.append("- anything about safety, bias or fitness for a purpose: it was not looked at;")
    if facts.description or facts.summary or facts.limitations:
        lines.append("- the description and the limitations, which are the author's own words.")
    else:
        lines[-1] = lines[-1][:-1] + "."
    return "\n".join(lines)


def _made(facts: Facts) -> str:
    if not facts.steps:
        return ""
    lines = ["## How it was made", "", "| stage | what | runs | entries | key | confirmed by |", "|---|---|---:|---|---|---|"]
    for step in facts.steps:
        confirmed = md(", ".join(step.others)) if step.confirmed else "nobody else"
        if 0 < step.confirmed < step.runs:
            confirmed += f", {step.confirmed:,} of {step.runs:,}"
        where = entries_of(sorted(step.entries)).partition(" ")[2]
        lines.append(f"| {md(step.stage)} | {md(step.what)} | {step.runs:,} | {where} | {md(', '.join(step.signers))} | {confirmed} |")
    if LOSS in facts.pictures:
        lines += ["", f"![{md(facts.pictures[LOSS])}]({LOSS})"]
    return "\n".join(lines)


def _quick_start(facts: Facts) -> str:
    lines = ["## Quick start"]
    if any(file.path.endswith(".safetensors") for file in facts.files):
        lines += [
            "",
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'tokenizer = AutoTokenizer.from_pretrained("{facts.repo}")',
            f'model = AutoModelForCausalLM.from_pretrained("{facts.repo}", dtype="auto")',
            "```",
        ]
    tiers = [file for file in facts.files if file.tier]
    if tiers:
        smallest = min(tiers, key=lambda file: file.size_bytes)
        lines += ["", "```sh", f"llama-cli -hf {facts.repo}:{smallest.tier}", "```"]
    return "\n".join(lines)


def _verify(facts: Facts) -> str:
    lines = [
        "## How to check it",
        "",
        "With `alloy-ledger` installed; nothing of the weights is downloaded:",
        "",
        "```sh",
        f"ledger verify hf:{facts.repo} --expect sha256:{facts.alloy_digest}",
        "```",
        "",
        "The hash after `--expect` is that of the alloy, which lists every other file by hash. Take it from somebody you trust, or from "
        "the QR on paper: this page could be changed together with the files. Trust a key once, by its name and text, from a place of its "
        "owner's:",
        "",
        "| key | |",
        "|---|---|",
        *(f"| {md(name)} | {code(text)} |" for name, text in facts.keys.items()),
    ]
    if facts.model_key is not None:
        lines.append(f"| of `model.sig` | {code(facts.model_key)} |")
    steps = ["", f"- The QR above, scanned with a phone, opens a page that does the same in the browser ([link]({facts.verify_url}))."]
    if facts.proof_qr:
        steps.append(
            f"- [`{PROOF_QR}`]({PROOF_QR}) holds the whole proof of the release: `ledger verify --offline {PROOF_QR}` needs no network."
        )
    if facts.model_key is not None:
        steps.append(
            "- `model_signing verify key` (OpenSSF Model Signing) accepts `model.sig`, which covers every file but itself and "
            "`.gitattributes`, which the Hub made."
        )
    return "\n".join(lines + steps)


def _licence(facts: Facts) -> str:
    licence = facts.licence
    name = md(licence.name) if licence.name else f"see [{code(licence.file)}]({_link(licence.file)})"
    text = f"{name} ({md(licence.said)})."
    if licence.file and licence.name:
        text += f" The text is in [{code(licence.file)}]({_link(licence.file)})."
    if facts.base.name:
        called = code(facts.base.hub or facts.base.name)
        text += f" The licence of the base model {called}: {md(licence.base) if licence.base else 'not known here'}."
    return f"## Licence\n\n{text}"


def _link(path: str) -> str:
    from urllib.parse import quote

    return quote(path)


def _limits(facts: Facts) -> str:
    if not facts.limitations:
        return ""
    return "\n".join(["## Limitations, in the author's words", "", *(f"- {md(text)}" for text in facts.limitations)])


def _footer(facts: Facts) -> str:
    origin, entries = facts.log
    author = f" by {md(facts.author)}" if facts.author else ""
    release = "" if facts.release is None else f", released as entry {facts.release}"
    return (
        f"---\n\n{md(facts.name)} {md(facts.version)}{author}. This page was written from the statements in log {md(origin)} "
        f"({entries:,} entries{release}); the recipe, all results and the receipt are in {code(facts.alloy)}."
    )


def numbers(facts: Facts) -> Sequence[tuple[float, str]]:
    """Every number that an attestation gives, with its unit: what the author's own words may repeat (`stages.publish_checks`)."""
    found: list[tuple[float, str]] = []
    for table in facts.tables:
        found += [(table.scored, "tokens"), (table.chunks, ""), (table.context, "tokens")]
        for row in table.rows:
            measured = row.measured
            found += [(value, "") for value in (measured.value, measured.stderr, measured.low, measured.high) if value is not None]
            found += [(row.size_bytes, "bytes")] if row.size_bytes is not None else []
            if row.difference is not None:
                change = row.difference
                found += [(value, "%") for value in (change.percent, change.low, change.high, change.limit) if value is not None]
    found += [(file.size_bytes, "bytes") for file in facts.files] + [(one.parameters, "parameters") for one in facts.loads]
    for result in facts.results:
        for text in (result.value, result.stderr):
            try:
                found.append((float(text or "nan"), ""))
            except ValueError:
                continue
    return found
