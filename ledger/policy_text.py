"""The text of a policy file: a fresh one, and changes that leave everything else in it as its owner wrote it, comments too.

What changes one takes the text and gives the new one. It is read back before it is given: when it does not say exactly what was meant,
nothing is changed, and the error says what to write by hand.

>>> text = '''version: 1
... keys:
...   alice: "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="   # mine
... rules:
...   - keys: [alice]
... '''
>>> print(end_key(text, "alice", until=7).splitlines()[2])
  alice: {key: "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", until: 7}   # mine
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ledger.errors import PolicyError
from ledger.keys import PublicKey
from ledger.policy import TRUSTED, Policy, Rule, Span, Witnesses, age_text
from store.files import replace_file

if TYPE_CHECKING:
    from yaml import Node

_SIMPLE = (("stages", ("*",)), ("artifacts", ("*",)), ("predicates", None), ("builders", ("*",)))

_START = """\
# Whom this reader trusts. The format is described in docs/formats/policy.md.
version: 1

# Names for public keys. `ledger key list` shows yours. A key that was lost or retired keeps its past:
#   bob: {{key: "ed25519:...", from: 0, until: 1200}}   # counts up to entry 1199 of the log
keys:
  {name}: "{public}"
"""

_RULES = """
# A statement is trusted when one of these rules is met. `stages`, `artifacts` and `predicates` are patterns like a shell's;
# an artifact is a subject's name or its sha256:... text; `threshold` is how many different people must have signed.
rules:
  - stages: ["*"]
    artifacts: ["*"]
    keys: [{name}]
    threshold: 1
"""


def starting(name: str, public: PublicKey, *, trusted: Path = TRUSTED) -> str:
    """The text of a fresh policy, with comments: trusts this key for everything, and the shipped keys for what they were shipped for.

    Raises:
        PolicyError: the name cannot name a key, or is a shipped key's.
    """
    shipped = {stem: policy for stem, policy in Policy.shipped(trusted).items() if public not in policy.keys.values()}
    text = _START.format(name=_yaml_word(name), public=public) + "".join(_shipped_keys(stem, policy) for stem, policy in shipped.items())
    text += _RULES.format(name=_yaml_word(name)) + "".join(_shipped_rules(stem, policy) for stem, policy in shipped.items())
    Policy.parse(text, source="starting policy")
    return text


def end_key(text: str, name: str, *, until: int) -> str:
    """The policy in which a key counts up to the entry before `until`, and no further than it did before.

    Raises:
        PolicyError: there is no such key, or the text is of a form that is not edited here.
    """
    before = Policy.parse(text)
    if name not in before.keys:
        raise PolicyError("policy", f"no key is named {name!r}")
    span = before.spans.get(name, Span())
    until = until if span.until is None else min(until, span.until)
    first = min(span.first, until)
    wanted = replace(before, spans={**before.spans, name: Span(first, until)})
    value = _value(_value(_compose(text), "keys"), name)
    fields: dict[str, Any] = {"key": str(before.keys[name])} | ({"from": first} if first else {}) | {"until": until}
    fields |= {"replaces": before.replaces[name]} if name in before.replaces else {}
    shown = _flow(fields, text)
    return _checked(_put(text, value.start_mark.index, _end(value), shown), wanted, f"{name}: {shown}")


def add_key(
    text: str,
    name: str,
    public: PublicKey,
    *,
    first: int = 0,
    replaces: str | None = None,
    rule: Rule | None = None,
    witness: Witnesses | None = None,
) -> str:
    """The policy with one more key.

    Args:
        text: the policy.
        name: what it is called.
        public: the key.
        first: the first entry at which it counts.
        replaces: the older key of the same holder; the new one joins every rule, and the witnesses, where that one stands.
        rule: a rule of its own, its `keys` being this name.
        witness: it is a witness; what `checkpoints` says when the policy has none yet.

    Raises:
        PolicyError: the name or the key is there already, or the text is of a form that is not edited here.
    """
    before = Policy.parse(text)
    if name in before.keys:
        raise PolicyError("policy", f"a key is named {name!r} already")
    fields: dict[str, Any] = {"key": str(public)} | ({"from": first} if first else {}) | ({"replaces": replaces} if replaces else {})
    entry = f"{_word(name, text)}: {_flow(fields, text) if len(fields) > 1 else json.dumps(str(public))}"
    wanted = replace(
        before,
        keys={**before.keys, name: public},
        spans={**before.spans, name: Span(first)} if len(fields) > 1 else before.spans,
        replaces={**before.replaces, name: replaces} if replaces else before.replaces,
        rules=tuple(replace(one, keys=_joined(one.keys, name, replaces)) for one in before.rules) + ((rule,) if rule is not None else ()),
    )
    if before.checkpoints is not None:
        names = _joined(before.checkpoints.names, name, replaces)
        names = (*names, name) if witness is not None and name not in names else names
        wanted = replace(wanted, checkpoints=replace(before.checkpoints, names=names))
    elif witness is not None:
        wanted = replace(wanted, checkpoints=witness)
    edited = _add_to_mapping(text, "keys", entry, replaces)
    if replaces:
        edited = _join_lists(edited, name, replaces)
    if rule is not None:
        edited = _add_rule(edited, rule)
    if witness is not None:
        edited = _add_witness(edited, name, witness)
    return _checked(edited, wanted, entry)


def save(path: Path, change: Callable[[str], str]) -> tuple[str, str]:
    """Change a policy file, whole or not at all; gives the text before and after.

    Raises:
        PolicyError: it cannot be read, changed or written; it is as it was.
    """
    try:
        before = path.read_text(encoding="utf-8")
        after = change(before)
        replace_file(path, after.encode())
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(path, f"cannot change the policy: {error}") from error
    return before, after


def _joined(names: tuple[str, ...], name: str, beside: str | None) -> tuple[str, ...]:
    """Names with one more, behind the one that it replaces; as they are when that is not among them."""
    return tuple(one for old in names for one in ((old, name) if old == beside else (old,)))


# --- the text ------------------------------------------------------------------------------------------------------------------


def _compose(text: str) -> Node:
    import yaml

    node = yaml.compose(text, Loader=yaml.SafeLoader)  # not the C parser: its marks count otherwise
    assert node is not None  # the text was parsed as a policy
    return node


def _items(node: Node) -> list[tuple[Node, Node]]:
    return cast("list[tuple[Node, Node]]", node.value)


def _value(node: Node, name: str) -> Node:
    return next(value for key, value in _items(node) if key.value == name)


def _is_flow(node: Node) -> bool:
    return bool(cast("Any", node).flow_style)


def _end(node: Node) -> int:
    """Where a value ends; a block's own end mark stands behind the comments after it, so its last item is asked."""
    while cast("Any", node).id != "scalar" and not _is_flow(node) and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)


def _put(text: str, start: int, stop: int, new: str) -> str:
    return text[:start] + new + text[stop:]


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _word(word: str, text: str) -> str:
    """A name as it is written in this text: a policy in JSON stays JSON."""
    return json.dumps(word) if text.lstrip().startswith("{") else _yaml_word(word)


def _flow(fields: dict[str, Any], text: str) -> str:
    return "{" + ", ".join(f"{_word(name, text)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()) + "}"


def _append(text: str, node: Node, item: str, *, dash: str = "", after: str | None = None) -> str:
    """One more item in a list or mapping, in the form that it has: behind the one named `after`, else behind the last one."""
    if not node.value:
        return _put(text, node.start_mark.index, _end(node), f"{text[node.start_mark.index]}{item}{text[_end(node) - 1]}")
    pairs = [one if isinstance(one, tuple) else (one, one) for one in node.value]
    start, last = next((pair for pair in pairs if pair[0].value == after), pairs[-1])
    if _is_flow(node):
        return _put(text, _end(last), _end(last), f", {item}")
    at = _line_end(text, _end(last))
    return _put(text, at, at, f"\n{' ' * (start.start_mark.column - len(dash))}{dash}{item}")


def _add_to_mapping(text: str, label: str, item: str, after: str | None) -> str:
    top = _compose(text)
    if all(key.value != label for key, _ in _items(top)):
        return _append(text, top, f"{_word(label, text)}: {{{item}}}")
    return _append(text, _value(top, label), item, after=after)


def _join_lists(text: str, name: str, beside: str) -> str:
    """Put a name into every list of keys that names another one."""
    done = 0
    while True:  # each change moves what is behind it
        top = _compose(text)
        lists = [_value(rule, "keys") for rule in (_value(top, "rules").value if _has(top, "rules") else [])]
        if _has(top, "checkpoints"):
            lists.append(_value(_value(top, "checkpoints"), "witnesses"))
        waiting = [
            one for one in lists if any(item.value == beside for item in one.value) and all(item.value != name for item in one.value)
        ]
        if not waiting or done > len(lists):
            return text
        text = _append(text, waiting[0], _word(name, text), dash="- ", after=beside)
        done += 1


def _has(node: Node, name: str) -> bool:
    return any(key.value == name for key, _ in _items(node))


def _add_rule(text: str, rule: Rule) -> str:
    fields: dict[str, Any] = {"keys": list(rule.keys)}
    fields |= {label: list(getattr(rule, label)) for label, usual in _SIMPLE if getattr(rule, label) != usual}
    item = _flow(fields, text)
    top = _compose(text)
    if not _has(top, "rules"):
        return _append(text, top, f"{_word('rules', text)}: [{item}]")
    return _append(text, _value(top, "rules"), item, dash="- ")


def _add_witness(text: str, name: str, witness: Witnesses) -> str:
    top = _compose(text)
    if _has(top, "checkpoints"):
        names = _value(_value(top, "checkpoints"), "witnesses")
        return text if any(one.value == name for one in names.value) else _append(text, names, _word(name, text), dash="- ")
    fields: dict[str, Any] = {"witnesses": [name]} | ({"maxAge": age_text(witness.max_age_s)} if witness.max_age_s is not None else {})
    return _append(text, top, f"{_word('checkpoints', text)}: {_flow(fields, text)}")


def _checked(text: str, wanted: Policy, by_hand: str) -> str:
    try:
        found = Policy.parse(text)
    except PolicyError as error:
        raise PolicyError("policy", f"its form is not one that can be changed here ({error}); write by hand: {by_hand}") from error
    if found != wanted:
        raise PolicyError("policy", f"its form is not one that can be changed here; write by hand: {by_hand}")
    return text


# --- a fresh one ---------------------------------------------------------------------------------------------------------------


def _shipped_keys(stem: str, policy: Policy) -> str:
    lines = "".join(f'  {_yaml_word(name)}: "{key}"\n' for name, key in policy.keys.items())
    return f"  # shipped with the program ({stem}.yaml); trusted below for the artifacts named there and for nothing else\n{lines}"


def _shipped_rules(stem: str, policy: Policy) -> str:
    text = f"  # shipped with the program ({stem}.yaml): delete this if you do not want the examples to verify\n"
    for rule in policy.rules:
        text += f"  - keys: [{', '.join(map(_yaml_word, rule.keys))}]\n    threshold: {rule.threshold}\n"
        for label, patterns in (("stages", rule.stages), ("predicates", rule.predicates), ("artifacts", rule.artifacts)):
            if patterns is not None:
                text += f"    {label}:\n" + "".join(f"      - {_quoted(pattern)}\n" for pattern in patterns)
    return text


def _yaml_word(name: str) -> str:
    """A key's name as YAML text; quoted where YAML would read a number, a truth value or nothing."""
    plain = name[0].isalpha() and name.lower() not in ("true", "false", "yes", "no", "on", "off", "y", "n", "null")
    return name if plain else f'"{name}"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
