"""The YAML of a policy file as nodes rather than values: they know their lines, and a key given twice is still there to be seen.

A node is taken literally: text is text, a whole number is plain decimal digits, and whatever is of another kind is refused with its line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from ledger.errors import PolicyError

if TYPE_CHECKING:
    from yaml import Node

_TAG = "tag:yaml.org,2002:"
_FORMS = {"map": "mapping", "seq": "sequence"}


class YamlNodes:
    """Reads the nodes of one text; `source` names it in messages.

    Raises:
        PolicyError: from any method, when a node is of another kind.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    def compose(self, text: str) -> Node | None:
        """The top node; None for a text without any."""
        import yaml

        try:
            node: Node | None = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            hint = ' (write "*" in quotes)' if "alias" in str(error.context) else ""
            raise PolicyError(
                self.source, f"not YAML: {error.problem}{hint}", error.problem_mark.line + 1 if error.problem_mark else None
            ) from error
        except yaml.YAMLError as error:
            raise PolicyError(self.source, f"not YAML: {error}") from error
        except RecursionError as error:
            raise PolicyError(self.source, "not a policy: nested without end") from error
        return node

    def mapping(self, node: Node, what: str, known: tuple[str, ...] | None) -> dict[str, Node]:
        """The items of a mapping; unknown keys are refused when the known ones are given."""
        if not is_node(node, "map"):
            raise self.error(node, f"{what} is a mapping (name: value); got {_kind(node)}")
        items: dict[str, Node] = {}
        for key, value in node.value:
            name = self.text(key, f"a name in {what}")
            if name in items:
                raise self.error(key, f"{name!r} is given twice in {what}")
            if known is not None and name not in known:
                raise self.error(key, f"unknown {name!r} in {what}{nearest(name, known)}; known: {', '.join(known)}")
            items[name] = value
        return items

    def sequence(self, node: Node, what: str) -> list[Node]:
        """The items of a list."""
        if not is_node(node, "seq"):
            raise self.error(node, f"{what} is a list; got {_kind(node)}")
        return cast("list[Node]", node.value)

    def texts(self, node: Node, what: str) -> tuple[str, ...]:
        """The texts of a list that has some, none of them empty."""
        texts = tuple(self.text(item, f"an item of {what}") for item in self.sequence(node, what))
        if not texts or "" in texts:
            raise self.error(node, f"{what}: an empty list or an empty text would match nothing; leave it out or fill it")
        return texts

    def text(self, node: Node, what: str) -> str:
        """What is text by its tag, too."""
        if not is_node(node, "str"):
            raise self.error(node, f"{what} is text; got {_kind(node)} (put it in quotes if it is meant as text)")
        return cast("str", node.value)

    def integer(self, node: Node, what: str, least: int) -> int:
        """A number that is not below `least`."""
        text = node.value if is_node(node, "int") else ""
        if not text.isascii() or not text.isdigit() or str(int(text[:16])) != text or int(text) < least:
            raise self.error(node, f"{what} is a whole number from {least}, in plain decimal digits; got {_kind(node)}")
        return int(text)

    def error(self, node: Node, problem: str) -> PolicyError:
        """What is wrong, with the node's line."""
        return PolicyError(self.source, problem, node.start_mark.line + 1)


def is_node(node: Node, kind: str) -> bool:
    """Whether a node has the tag and also the form: `!!map text` has the one without the other."""
    return node.tag == _TAG + kind and _form(node) == _FORMS.get(kind, "scalar")


def _form(node: Node) -> str:
    form: str = cast("Any", node).id  # `scalar`, `sequence` or `mapping`; the type stubs do not know it
    return form


def _kind(node: Node) -> str:
    return repr(node.value) if isinstance(node.value, str) else {"mapping": "a mapping", "sequence": "a list"}[_form(node)]


def nearest(name: str, known: Iterable[str]) -> str:
    """Words that name the known one which was probably meant; "" when none is near."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
