"""The model card: a function of facts that were read from signed statements (`stages.card_facts`), and of nothing else.

What others wrote is escaped (`stages.markdown`), so it stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ledger.report import entries as entries_of
from stages.card_facts import Difference, Facts, Source, Table
from stages.compare import rounded, size
from stages.markdown import code, md, paragraphs, plain

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


def render(facts: Facts) -> str:
    """The text of README.md."""
    parts = [
        _front(facts),
        f"# {md(facts.name)}",
        facts.what,
        paragraphs(facts.summary),
        paragraphs(facts.description) if facts.description != facts.summary else "",
        _qr(facts),
        _members(facts),
        _files(facts),
        _answered(facts),
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
    own = [row.measured.source for table in facts.tables for row in table.rows if row.file]
    return own + [one.source for one in facts.results] + [row.source for row in facts.answered if not row.variant]


def _sources(facts: Facts) -> list[Source]:
    """Who says each number, those of the models that are only compared with among them."""
    rows = [row for table in facts.tables for row in table.rows]
    differences = [row.difference.source for row in rows if row.difference is not None]
    answers = [row.source for row in facts.answered] + [row.change.source for row in facts.answered if row.change is not None]
    return [row.measured.source for row in rows] + differences + [one.source for one in facts.results] + answers


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
    "answers": "loads with {by}, every tensor of every model in it accounted for; reads a text and writes on",
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


def _members(facts: Facts) -> str:
    """Who speaks, by digest, and by its place on the Hub where it came from there."""
    if facts.ensemble is None:
        return ""
    lines = ["## Members", "", "| member | on the Hub | came out of | files |", "|---|---|---|---|"]
    for member in facts.ensemble.members:
        hub = f"{md(member.hub)} at {code(member.revision[:12])}" if member.hub else "taken in from a folder"
        lines.append(f"| {md(member.name)} | {hub} | {md(member.made_by)} | `sha256:{member.digest}` |")
    settings = f" ({md(facts.ensemble.settings)})" if facts.ensemble.settings else ""
    lines += [
        "",
        f"The first is the target. They are combined by {code(facts.ensemble.combiner)}{settings}. Each member's files lie under "
        "`members/`, as they were; the digest is that of their list.",
    ]
    return "\n".join(lines)


def _answered(facts: Facts) -> str:
    """Accuracies with their intervals, paired differences, and who spoke."""
    if not facts.answered:
        return ""
    lines = [
        "## Questions",
        "",
        "Accuracy with Wilson's 95 % interval. A difference is paired, question by question, in points with its 95 % interval; won : lost "
        "are the questions that only one of both got right, and p is McNemar's exact one, adjusted for all differences of the table. "
        "Where a row has no interval of its difference, no question came out otherwise.",
        "",
        "| | benchmark | on | questions | accuracy | against | difference | won : lost | p | | entry |",
        "|---|---|---|---:|---:|---|---:|---:|---:|---|---:|",
    ]
    for row in facts.answered:
        name = f"{md(row.benchmark)} ({md(row.outcome)})" if row.outcome else md(row.benchmark)
        accuracy = f"{100 * row.accuracy:.1f} %" + _between(row.low, row.high, "")
        front = (md(row.variant) if row.variant else "**this model**", name, md(row.dataset), f"{row.questions:,}", accuracy)
        paired = ("", "", "", "", "")
        if row.change is not None:
            one = row.change
            difference = f"{100 * one.mean:+.1f}" + _between(one.low, one.high, "+")
            paired = (md(one.baseline), difference, f"{one.wins} : {one.losses}", f"{one.p:.2g}", md(one.verdict))
        lines.append(f"| {' | '.join((*front, *paired, str(row.source.entry)))} |")
    sources = sorted({row.change.source.entry for row in facts.answered if row.change is not None})
    if sources:
        lines += ["", f"Differences: {entries_of(sources)}."]
    spoken = [row for row in facts.answered if row.shares]
    if spoken:
        names = list(dict.fromkeys(name for row in spoken for name in row.shares))
        lines += [
            "",
            "Who spoke, as the mean part of each member in what was said; the records have it for every question:",
            "",
            f"| benchmark | {' | '.join(md(name) for name in names)} | entry |",
            f"|---|{'---:|' * len(names)}---:|",
        ]
        for row in spoken:
            cells = (f"{100 * row.shares[name]:.1f} %" if name in row.shares else "" for name in names)
            lines.append(f"| {md(row.benchmark)} on {md(row.dataset)} | {' | '.join(cells)} | {row.source.entry} |")
    return "\n".join(lines)


def _between(low: float | None, high: float | None, sign: str) -> str:
    return "" if low is None or high is None else f" [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


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
    what = f"that the {steps:,} runs went as stated" + (
        " and that the numbers above are what came out" if numbers or facts.results or facts.answered else ""
    )
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
    if facts.ensemble is not None:
        strangers = [code(member.name) for member in facts.ensemble.members if not member.hub]
        if strangers:
            lines.append(f"- where {', '.join(strangers)} came from before being taken in as members;")
        if len(strangers) < len(facts.ensemble.members):
            lines.append("- who trained the members of the Hub and on what: they were taken from there as they were at those commits;")
    elif facts.base.name and not facts.base.hub:
        lines.append(f"- where the base model {code(facts.base.name)} came from before it was taken in (`sha256:{facts.base.digest}`);")
    elif facts.base.hub:
        lines.append(f"- who trained {md(facts.base.hub)} and on what: it was taken from the Hub as it was at that commit;")
    if numbers:
        lines.append("- that perplexity on this text says anything about answers, facts, code or other languages;")
        if all(row.file for table in facts.tables for row in table.rows):
            lines.append("- how it compares with anything else: it was compared with nothing;")
    elif facts.answered:
        lines.append("- that it answers other questions as well as these, or questions that are put otherwise;")
        if all(row.change is None for row in facts.answered):
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
    if facts.ensemble is not None:
        return "\n".join(
            [
                *lines,
                "",
                "With `alloy-ledger[models]` installed; the members' files are held against their digests before any is loaded:",
                "",
                "```python",
                "from transformers import AutoModelForCausalLM",
                "",
                f'model = AutoModelForCausalLM.from_pretrained("{facts.repo}", trust_remote_code=True)',
                'print(model.generate_text("Question: ..", stop=["\\n"]))',
                "```",
            ]
        )
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
    if facts.ensemble is not None:
        text += f" The licences of the members: {md(licence.base) if licence.base else 'not known here; each counts for its own files'}."
    elif facts.base.name:
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
