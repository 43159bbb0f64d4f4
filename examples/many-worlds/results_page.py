"""The page of results, and its pictures, from attested artifacts: text from numbers, the same bytes for the same artifacts.

A control that wins is named first and in words; a difference whose interval or test leaves it open is called not resolved.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from math import fsum
from typing import TYPE_CHECKING, Any

from stages import pictures, statistics
from stages.bridge_protocol.report import LABELS, OWN, label
from stages.bridges.spec import VERSIONS

if TYPE_CHECKING:
    from make_results import Evidence

Report = Mapping[str, Any]

CLAIMS = (
    ("v1, v2", "0 of 20 HumanEval+ at every scale, 7 of 20 without"),
    ("v3", "0 of 20; a random control 1 of 20"),
    ("v4 to v6", "no number; too little gradient reaches the hook"),
    ("v7", "one text's loss .34 against .665; the mean never below the baseline"),
    ("v8", "no gain over v7"),
    ("v9", "training loss .8166 to .7629; 0 of 20"),
    ("v10", "best mean of 50 texts .862 against .765: worse"),
    ("v11", "best mean of 50 texts .7642 against .8119 (-5.9 %); generation broken"),
    ("v11b", ".8071 against .8209 (-1.7 %); generation broken"),
    ("v12", "no loss given; multiple choice got worse"),
    ("v13", "GSM8K 20 to 23 of 30, ARC 27 to 27 of 30; together +3 of 60, p = .25"),
)
"""What the prior art wrote of its versions. None of these numbers is ours, and none can be checked."""


def page(evidence: Evidence) -> dict[str, str]:
    """File name -> text, the page first."""
    made: dict[str, str] = {}
    sections = [
        shipped(evidence, made),
        ensembles(evidence, made),
        weights(evidence, made),
        team(evidence, made),
        versions(evidence, made),
        claims(),
        again(),
        attested(evidence),
    ]
    return {"many-worlds.md": "\n\n".join(["# Many-Worlds: what came out", *sections]) + "\n", **made}


# --- the shipped combination -------------------------------------------------------------------------------------------------------


def shipped(evidence: Evidence, made: dict[str, str]) -> str:
    """The result in a sentence, what each member loses, and a picture."""
    gain, members = evidence.json("main", "gain", "report"), evidence.json("main", "members", "report")
    best = _best(evidence)
    whole = over_all(gain, "population")
    said = whole["difference"]
    verb = {"better": "a gain of", "worse": "a **loss** of"}.get(said["verdict"], "**not resolved**:")
    sentence = (
        f"Together the models answer {accuracy(whole['metrics'])} of {whole['questions']['counted']:,} questions right that no choice has "
        f"seen, the one that the search found best alone ({best}) {share(whole['baselineAccuracy'], said)}: "
        f"{verb} {points(said)} points, {outcome(said)}."
    )
    own = {name: _own(evidence, members, name) for name in _members(members)}
    lost = [name for name, row in own.items() if row["difference"]["verdict"] == "better"]
    if lost:
        parts = ", ".join(f"{name} by {points(own[name]['difference'])} points" for name in lost)
        second = f"**On their own domain these members do better than the population, resolved: {parts}.**"
    else:
        second = "On no member's own domain is a loss resolved."
    above = [name for name in own if float(over_all(members, name)["metrics"]["accuracy"]) > float(whole["baselineAccuracy"])]
    if above:
        parts = ", ".join(f"{name} ({points(over_all(members, name)['difference'])} points less the population)" for name in above)
        second += f" On these questions {parts} answered more than the one that the search found best."
    lines = [
        f"**{sentence}** {second}",
        "",
        "![Right answers of the population and of each member](many-worlds-members.svg)",
        "",
        "| | questions | accuracy [95 %] | it less the population, points [95 %] | won : lost | p (Holm) | |",
        "|---|---|---:|---:|---:|---:|---|",
        *(
            f"| population | {_domain(evidence, 'main', row)} | {accuracy(row['metrics'])} | | | | |"
            for row in members["rows"]
            if "difference" not in row
        ),
        *(
            f"| {row['variant']} | {_domain(evidence, 'main', row)}{' (its own)' if row is own[row['variant']] else ''} | "
            f"{accuracy(row['metrics'])} | {cells(row['difference'])} |"
            for row in members["rows"]
            if "difference" in row
        ),
        *(
            f"| {row['variant']} | all {row['questions']['counted']:,} | {accuracy(row['metrics'])} | {cells(row['difference'])} |"
            for row in members.get("pooled", [])
        ),
    ]
    bars = [_bar("population", whole["metrics"]), *(_bar(name, over_all(members, name)["metrics"], own=False) for name in own)]
    title = f"Right answers to {whole['questions']['counted']:,} questions"
    made["many-worlds-members.svg"] = pictures.intervals(bars, title=title, unit="per cent, Wilson's 95 %; higher is better")
    return "\n".join(lines)


def _best(evidence: Evidence) -> str:
    """The name of the best single model: the stage that made the same ensemble of one."""
    taken = evidence.digest("main", "best-single", "model")
    named = (stage for stage in evidence.stages("main", "model") if stage != "best-single")
    return next((stage for stage in named if evidence.digest("main", stage, "model") == taken), "best-single")


def _members(report: Report) -> list[str]:
    return list(dict.fromkeys(row["variant"] for row in report["rows"] if "difference" in row))


def _domain(evidence: Evidence, run: str, row: Report) -> str:
    return evidence.dataset(run, row["dataset"]["digest"]["sha256"]).removeprefix("report-")


def _own(evidence: Evidence, report: Report, name: str) -> Report:
    """A member's row on the questions of its own name; on those where it does best, where no questions have its name."""
    rows = [row for row in report["rows"] if row["variant"] == name]
    named = [row for row in rows if _domain(evidence, "main", row) == name]
    return named[0] if named else max(rows, key=lambda row: float(row["metrics"]["accuracy"]))


def over_all(report: Report, variant: str) -> Report:
    """A variant over all questions; its only row where there is one benchmark."""
    for row in report.get("pooled", []):
        if row["variant"] == variant:
            found: Report = row
            return found
    only = next(row for row in report["rows"] if row["variant"] == variant)
    base = next(row for row in report["rows"] if row["name"] == only["difference"]["baseline"])
    return {**only, "baselineAccuracy": base["metrics"]["accuracy"]}


# --- all ways to combine -----------------------------------------------------------------------------------------------------------


def ensembles(evidence: Evidence, made: dict[str, str]) -> str:
    """Every combiner against the best single model and against the shipped one."""
    single, ours = (evidence.json("baselines", stage, "report") for stage in ("over-best-single", "over-shipped"))
    base, ship = ("arithmetic", "fixed-share")
    base = next((row["baseline"] for row in single.get("pooled", [])), base)
    ship = next((row["baseline"] for row in ours.get("pooled", [])), ship)
    names = sorted(_members(single), key=lambda name: (-float(over_all(single, name)["metrics"]["accuracy"]), name))
    against = {name: over_all(ours, name) for name in _members(ours)}
    first = over_all(single, names[0])
    stands = {name: row["difference"]["verdict"] for name, row in against.items()}
    lines = [
        "## Every way to put them together",
        "",
        _against(stands, ship),
        "",
        "![Gain of each combination over one model alone](many-worlds-ensembles.svg)",
        "",
        f"The same {first['questions']['counted']:,} questions for every row, the first of each set that the population is reported on. "
        f"Each is compared with {base} alone ({share(first['baselineAccuracy'], first['difference'])}), "
        f"{'which' if base == _best(evidence) else f'though {_best(evidence)}'} is the best single model by the search, and with {ship}, "
        "question by question.",
        "",
        f"| | rule | accuracy [95 %] | over {base}, points [95 %] | won : lost | p (Holm) | | "
        f"over {ship}, points [95 %] | won : lost | p (Holm) | |",
        "|---|---|---:|---:|---:|---:|---|---:|---:|---:|---|",
    ]
    for name in names:
        row = over_all(single, name)
        second = cells(against[name]["difference"]) if name in against else " | | |"
        lines.append(f"| {name} | {_rule(evidence, name)} | {accuracy(row['metrics'])} | {cells(row['difference'])} | {second} |")
    lines += [
        "",
        "By domain:",
        "",
        f"| | questions | n | accuracy [95 %] | over {base}, points [95 %] | won : lost | p (Holm) | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
        *(
            f"| {row['variant']} | {_domain(evidence, 'baselines', row)} | {row['questions']['counted']:,} | {accuracy(row['metrics'])} | "
            f"{cells(row['difference']) if 'difference' in row else ' | | |'} |"
            for row in single["rows"]
        ),
    ]
    bars = []
    for name in names:
        found = over_all(single, name)["difference"]
        low, high = (None if found[end] is None else 100 * float(found[end]) for end in ("low", "high"))
        bars.append(pictures.Bar(name, 100 * float(found["mean"]), low, high, own=name == ship))
    made["many-worlds-ensembles.svg"] = pictures.intervals(
        bars, title=f"Gain over {base} alone, {first['questions']['counted']:,} questions", unit="points; higher is better",
        marks=[(0.0, base)], signed=True,
    )  # fmt: skip
    return "\n".join(lines)


def _against(stands: Mapping[str, str], ship: str) -> str:
    """How the controls stand against the combination that ships; who does better first."""
    groups = {verdict: [name for name, kind in stands.items() if kind == verdict] for verdict in ("better", "not distinguishable", "worse")}
    said = [f"**Better than {ship}, which ships: {', '.join(groups['better'])}.**"] if groups["better"] else []
    if groups["not distinguishable"]:
        said.append(f"Not resolved from {ship}: {', '.join(groups['not distinguishable'])}.")
    if groups["worse"]:
        said.append(f"Worse than {ship}, resolved: {', '.join(groups['worse'])}.")
    return " ".join(said)


def _rule(evidence: Evidence, name: str) -> str:
    """What an ensemble's own config says of it."""
    config = evidence.config("baselines", name)
    settings = ", ".join(
        f"{key} {_plain(value)}" for key, value in sorted(config["combiner"]["settings"].items()) if value not in ([], {}, "")
    )
    names = [member["name"] for member in config["members"]]
    if len(names) == 1:
        return "alone"
    return f"`{config['combiner']['name']}`{f' ({settings})' if settings else ''}; {names[0]} first of {len(names)}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True).replace('"', "")


# --- who spoke ---------------------------------------------------------------------------------------------------------------------


def weights(evidence: Evidence, made: dict[str, str]) -> str:
    """Each member's mean part in the answers, by domain, out of the records of every question."""
    model = evidence.digest("main", "population", "model")
    rows: list[tuple[str, str, statistics.Mean]] = []
    kept: list[str] = []
    for row in evidence.json("main", "gain", "report")["rows"]:
        if row["variant"] != "population":
            continue
        data = evidence.records("main", row["benchmark"], model, row["dataset"]["digest"]["sha256"])
        domain = _domain(evidence, "main", row)
        kept.append(f"{domain} `{_digest_of(evidence, row['benchmark'])}`")
        questions = [json.loads(line) for line in data.splitlines()]
        parts = [(item["cluster"], part) for item in questions if (part := _parts(item))]
        for name in sorted({name for _, part in parts for name in part}):
            mean = statistics.clustered_mean([part[name] for _, part in parts], [cluster for cluster, _ in parts])
            rows.append((domain, name, mean))
    head = "## Who speaks"
    where = f"The records of every question are kept, attested, under {', '.join(kept)} (`ledger export DIGEST FILE`)."
    if not rows:
        return f"{head}\n\n{where} These do not tell who spoke."
    shown = [(domain, name, 100 * found.mean, _times(found.low), _times(found.high)) for domain, name, found in rows]
    bars = [pictures.Bar(f"{domain}: {name}", value, low, high, own=domain == name) for domain, name, value, low, high in shown]
    made["many-worlds-weights.svg"] = pictures.intervals(
        bars, title="Whose words the answers are", unit="mean part of a question's answer, per cent"
    )
    return "\n".join(
        [
            head,
            "",
            "Each member's part in what the population said, mean over questions, per cent [95 %]. Every question's weights are in its "
            "record.",
            "",
            "![Mean part of each member by domain](many-worlds-weights.svg)",
            "",
            "| questions | member | part, % [95 %] |",
            "|---|---|---:|",
            *(f"| {domain} | {name} | {value:.1f}{_ends(low, high, '.1f')} |" for domain, name, value, low, high in shown),
            "",
            where,
        ]
    )


def _digest_of(evidence: Evidence, benchmark: str) -> str:
    return next(str(item.digest) for item in evidence.used if (item.run, item.name) == ("main", f"records of {benchmark}"))


def _parts(record: Mapping[str, Any]) -> dict[str, float]:
    """Member -> mean part in a question's answers; empty where nobody told any."""
    told = record.get("about", [])
    means = [item["shares"]["mean"] for item in (told if isinstance(told, list) else [told]) if "shares" in item]
    return {name: fsum(float(item[name]) for item in means) / len(means) for name in (means[0] if means else ())}


# --- the team ----------------------------------------------------------------------------------------------------------------------


def team(evidence: Evidence, made: dict[str, str]) -> str:
    """How the members were chosen, and what confirmed them."""
    found = evidence.json("main", "team-search", "team")
    made["many-worlds-team.svg"] = evidence.data("main", "team-search", "picture").decode()
    told = found["confirmation"]
    n = found["questions"]["heldOut"]
    test = told["against"]
    said = (
        f"Chosen on {found['questions']['select']:,} questions: {', '.join(found['selectedTeam'])}. On {n:,} others some member is right "
        f"in {_wilson(told['anyone'], n)}, {told['single']} alone in {_wilson(told['alone'], n)} ({test['wins']} : {test['losses']}, "
        f"p = {_p(test['p'])})."
    )
    beyond = told["againstControl"]
    if beyond is None:
        said += " What further samples of one model would have brought was not measured."
    else:
        resolved = beyond["low"] is not None and float(beyond["low"]) > 0
        margin = f"{100 * float(beyond['mean']):+.1f}{_ends(_times(beyond['low']), _times(beyond['high']), '+.1f')} points"
        said += f" Ahead of as many samples of {told['single']} by {margin}, {'resolved' if resolved else '**not resolved**'}."
    return "\n".join(["## Who belongs together", "", said, "", "![The team search](many-worlds-team.svg)"])


# --- versions of the bridge --------------------------------------------------------------------------------------------------------


def versions(evidence: Evidence, made: dict[str, str]) -> str:
    """All bridges in one table, each against the target alone, what it is made of, and the strongest control."""
    order = list(VERSIONS)
    found = [evidence.json("bridges", stage, "metrics") for stage in evidence.stages("bridges", "metrics")]
    found.sort(key=lambda item: (order.index(item["settings"]["version"]), json.dumps(item["settings"], sort_keys=True)))
    names = [item["settings"]["version"] for item in found]
    strong = [(strongest(item["conditions"]), strongest(item["conditions"], beside=True)) for item in found]
    texts = found[0]["texts"]
    lines = [
        "## Every version of the bridge",
        "",
        _overall(found),
        "",
        "![Gain of each version over the target alone](many-worlds-bridges.svg)",
        "",
        "![Each version against its strongest control but the ensembles](many-worlds-controls.svg)",
        "",
        f"{', '.join(found[0]['sources'])} to {found[0]['target']}, {texts['heldOut']:,} held-out texts, {texts['scoredBytes']:,} bytes "
        "scored. The source reads what the target reads, and nothing else. Nats per byte by which the bridge is ahead, [95 %] over texts, "
        "not adjusted for their number; below 0 the control does better ([bridges.md](../bridges.md)).",
        "",
        "| | ahead of the target alone | of the same bridge on a constant | of other texts' states | strongest control | ahead of it "
        "| strongest but the ensembles | ahead of it | what that says |",
        "|---|---:|---:|---:|---|---:|---|---:|---|",
    ]
    for name, item, controls in zip(names, found, strong, strict=True):
        conditions = item["conditions"]
        parts = [ahead(conditions[key]) for key in ("none", "prompt", "shuffled")]
        parts += [part for key in controls for part in (label(key), ahead(conditions[key]))]
        lines.append(f"| {name} | {' | '.join(parts)} | {words(conditions)} |")
    lines.append(_boost(evidence))
    unit = "thousandths of a nat per byte; above 0 the bridge is better"
    for file, title, keys in (
        ("many-worlds-bridges.svg", "Ahead of the target alone", ["none"] * len(found)),
        ("many-worlds-controls.svg", "Ahead of its strongest control but the ensembles", [key for _, key in strong]),
    ):
        rows = zip(names, found, keys, strict=True)
        bars = [_thousandths(name if key == "none" else f"{name}: {_brief(key)}", item["conditions"][key]) for name, item, key in rows]
        made[file] = pictures.intervals(bars, title=title, unit=unit, marks=[(0.0, "alike")], signed=True)
    missing = sorted({f"{label(key)} ({why})" for item in found for key, why in item["missing"].items()})
    if missing:
        lines += ["", f"Controls that mean nothing for some versions: {'; '.join(missing)}."]
    lines += [
        "",
        "<details><summary>Every control of every version</summary>",
        "",
        "| | control | nats per byte [95 %] | the bridge is ahead by [95 %] | |",
        "|---|---|---:|---:|---|",
    ]
    for name, item in zip(names, found, strict=True):
        for key in sorted(item["conditions"], key=_place):
            value = item["conditions"][key]
            level = f"{float(value['value']):.4f}{_ends(value.get('low'), value.get('high'), '.4f')}"
            lines.append(
                f"| {name} | {label(key)} | {level} | {ahead(value) if key != OWN else ''} | {_STANDS.get(value.get('verdict', ''), '')} |"
            )
    return "\n".join([*lines, "", "</details>"])


def _place(condition: str) -> tuple[int, str]:
    """Where a condition stands in a table: the bridge, what it is held against in the order of its report, itself without a source."""
    order = [OWN, *LABELS]
    return (order.index(condition) if condition in order else len(order), condition)


_STANDS = {"wins": "**beats the bridge**", "open": "not resolved", "loses": "beaten"}


def strongest(conditions: Mapping[str, Mapping[str, str]], *, beside: bool = False) -> str:
    """The control with the smallest loss; `beside`: among those in which the target itself speaks, so without the byte ensembles.

    >>> losses = {"bridge": {"value": "1"}, "none": {"value": "1.2"}, "prompt": {"value": "1.1"}, "bytes-bayes": {"value": "0.5"}}
    >>> strongest(losses), strongest(losses, beside=True)
    ('bytes-bayes', 'prompt')
    """
    named = [key for key in conditions if key != OWN and not (beside and key.startswith("bytes-"))]
    return min(named, key=lambda key: (float(conditions[key]["value"]), key))


def words(conditions: Mapping[str, Mapping[str, str]]) -> str:
    """Who beats it, then what is open, in words.

    >>> words({"none": {"verdict": "loses"}, "prompt": {"verdict": "loses"}, "shuffled": {"verdict": "wins"}})
    '**the states of another text of the domain beats it**; better than the target alone'
    """
    stands = {key: conditions[key]["verdict"] for key in sorted(conditions, key=_place) if key != OWN}
    winners = [label(key) for key, kind in stands.items() if kind == "wins"]
    said = [f"**{' and '.join(winners)} {'beat' if len(winners) > 1 else 'beats'} it**"] if winners else []
    if stands["none"] == "open":
        said.append("no gain over the target alone is resolved")
    if stands["none"] == "loses":
        said.append("better than the target alone")
        empty = [key for key in ("prompt", "shuffled") if stands[key] != "loses"]
        if not empty:
            said.append("and by what its sources say of the text")
        elif any(stands[key] == "open" for key in empty):
            which = " and from ".join(label(key) for key in empty if stands[key] == "open")
            said.append(f"whether by what its sources say is not resolved (from {which})")
    return "; ".join(said) or "no control is resolved"


def _overall(found: Sequence[Report]) -> str:
    """All versions at once: which controls win how often, then how many gain and by what."""
    stands = [{key: item["verdict"] for key, item in one["conditions"].items() if key != OWN} for one in found]
    wins = Counter(key for one in stands for key, kind in one.items() if kind == "wins")
    ordered = sorted(wins, key=lambda key: (-wins[key], key))
    said = (
        [f"**Controls that win: {'; '.join(f'{label(key)} against {wins[key]} of {len(found)} versions' for key in ordered)}.**"]
        if ordered
        else []
    )
    names = [one["settings"]["version"] for one in found]
    gaining = [name for name, one in zip(names, stands, strict=True) if one["none"] == "loses"]
    said.append(f"Better than the target alone, resolved: {', '.join(gaining) or 'none'}.")
    real = [name for name, one in zip(names, stands, strict=True) if all(one[key] == "loses" for key in ("none", "prompt", "shuffled"))]
    said.append(f"Resolved too that it is by what the sources say of the text: {', '.join(real) or 'none'}.")
    every = [name for name, one in zip(names, stands, strict=True) if set(one.values()) == {"loses"}]
    said.append(f"Better than every control: {', '.join(every) or 'none'}.")
    return " ".join(said)


def _boost(evidence: Evidence) -> str:
    """The last version of the prior art, which is no bridge: its row counts questions, not nats."""
    single, ours = (evidence.json("baselines", stage, "report") for stage in ("over-best-single", "over-shipped"))
    name = "first-token-boost"
    alone, ship = over_all(single, name)["difference"], over_all(ours, name)["difference"]
    return (
        f"| v13, first-token boost ([above](#every-way-to-put-them-together)) | {points(alone)} points of questions | | | "
        f"{over_all(ours, name)['difference']['baseline'] if 'pooled' in ours else 'fixed-share'} | {points(ship)} points | | | "
        f"{_VERDICTS[alone['verdict']]} against its target alone; {_VERDICTS[ship['verdict']]} against what ships |"
    )


def _brief(key: str) -> str:
    return {"none": "target alone", "bytes-fixed-share": "byte ensemble", "bytes-bayes": "byte ensemble, Bayes"}.get(key, key)


def _thousandths(name: str, item: Mapping[str, str]) -> pictures.Bar:
    low, high = (1000 * float(item[key]) if key in item else None for key in ("aheadLow", "aheadHigh"))
    return pictures.Bar(name, 1000 * float(item["ahead"]), low, high, own=item["verdict"] == "loses")


def ahead(item: Mapping[str, str]) -> str:
    """By how much a bridge is ahead of a control.

    >>> ahead({"ahead": "0.01234", "aheadLow": "-0.001", "aheadHigh": "0.02"})
    '+0.0123 [-0.0010, +0.0200]'
    """
    return f"{float(item['ahead']):+.4f}{_ends(item.get('aheadLow'), item.get('aheadHigh'), '+.4f')}"


# --- the rest ----------------------------------------------------------------------------------------------------------------------


def claims() -> str:
    """What the prior art wrote of the same versions."""
    lines = [
        "## What was claimed before",
        "",
        "Claims of the prior art, with other and larger models. They cannot be checked, and are not comparable: up to v12 the source read "
        "the whole text that the target was scored on, so these losses may know the future; nothing was held out, no control was run "
        "beside them, and v13 was tuned on the questions that it reports.",
        "",
        "| | claimed |",
        "|---|---|",
    ]
    return "\n".join([*lines, *(f"| {name} | {text} |" for name, text in CLAIMS)])


def again() -> str:
    """How the page is made."""
    return "\n".join(
        [
            "## Make it again",
            "",
            "`make results` runs [recipe.yaml](../../examples/many-worlds/recipe.yaml), "
            "[baselines.yaml](../../examples/many-worlds/baselines.yaml) and [bridges.yaml](../../examples/many-worlds/bridges.yaml), "
            "verifies what they attest, and writes this page. What was done before is not done again. What the numbers mean: "
            "[statistics.md](../statistics.md), [benchmarks.md](../benchmarks.md), [ensemble.md](../ensemble.md), "
            "[bridges.md](../bridges.md), [team-search.md](../team-search.md).",
        ]
    )


def attested(evidence: Evidence) -> str:
    """What every number rests on."""
    signers = sorted({name for piece in evidence.used for name in piece.signers})
    lines = [
        "## What attests it",
        "",
        "| alloy | SHA-256 | `ledger verify` |",
        "|---|---|---|",
        *(f"| {name} | `{digest.hex}` | {verdict} |" for name, digest, verdict in evidence.files.values()),
        "",
        f"Keys: {', '.join(f'{name} `{evidence.key(name)}`' for name in signers)}. Every number above is of one of these:",
        "",
        "| run | artifact | digest | entry | signed by |",
        "|---|---|---|---:|---|",
        *(f"| {one.run} | {one.name} | `{one.digest}` | {one.entry} | {', '.join(one.signers)} |" for one in evidence.used),
    ]
    return "\n".join(lines)


# --- numbers as text ---------------------------------------------------------------------------------------------------------------


def accuracy(found: Mapping[str, Any]) -> str:
    """Per cent with its interval.

    >>> accuracy({"accuracy": "0.5", "low": "0.4", "high": "0.6"})
    '50.0 % [40.0, 60.0]'
    """
    return f"{100 * float(found['accuracy']):.1f} %{_ends(_times(found['low']), _times(found['high']), '.1f')}"


def share(value: str, difference: Mapping[str, Any]) -> str:
    """A base's accuracy; Wilson's interval where every question is a cluster of its own, so that it follows from the count."""
    n = difference["questions"]
    return _wilson(value, n) if difference["clusters"] == n else f"{100 * float(value):.1f} %"


def _wilson(value: str, n: int) -> str:
    found = statistics.wilson(float(value) * n, n)
    return f"{100 * float(value):.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def points(difference: Mapping[str, Any]) -> str:
    """A difference in points with its interval.

    >>> points({"mean": "0.5", "low": "0.4", "high": "0.6"}), points({"mean": "0", "low": None, "high": None})
    ('+50.0 [+40.0, +60.0]', '+0.0 (answered alike throughout)')
    """
    shown = f"{100 * float(difference['mean']):+.1f}"
    if difference["low"] is None:
        return f"{shown} (answered alike throughout)"
    return f"{shown}{_ends(_times(difference['low']), _times(difference['high']), '+.1f')}"


_VERDICTS = {"better": "better, resolved", "worse": "worse, resolved", "not distinguishable": "not resolved"}


def outcome(difference: Mapping[str, Any]) -> str:
    """Won, lost, and p."""
    return f"won {difference['wins']}, lost {difference['losses']}, p = {_p(difference['pHolm'])} (Holm)"


def cells(difference: Mapping[str, Any]) -> str:
    """Four cells of a table: difference, won : lost, p, verdict."""
    won = f"{difference['wins']} : {difference['losses']}"
    return f"{points(difference)} | {won} | {_p(difference['pHolm'])} | {_VERDICTS[difference['verdict']]}"


def _p(value: str) -> str:
    return f"{float(value):.2g}"


def _times(value: str | float | None) -> float | None:
    return None if value is None else 100 * float(value)


def _ends(low: Any, high: Any, form: str) -> str:
    return "" if low is None or high is None else f" [{float(low):{form}}, {float(high):{form}}]"


def _bar(name: str, found: Mapping[str, Any], *, own: bool = True) -> pictures.Bar:
    return pictures.Bar(name, 100 * float(found["accuracy"]), 100 * float(found["low"]), 100 * float(found["high"]), own=own)
