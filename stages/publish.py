"""Where a model should go once it is published: the recipe's `publish` stage.

`ledger run` computes nothing for it and publishes nothing. `ledger publish` does, when a person asks (`stages.publish_plan`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.errors import SpecError
from stages.stage import Composite, Graph, Input
from store.cas import Cas


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Where to, and how it is described."""

    org: str
    """Of the Hub."""
    repo_name_template: str = "{name}"
    """Of the repository; `{name}`, `{base}`, `{domain}` and `{variant}` are filled in."""
    include_alloy: bool = True
    card_from_benchmarks: bool = True
    tags: tuple[str, ...] = ()
    """Of the card, besides those that follow from what was done."""
    private: bool = False

    def __post_init__(self) -> None:
        if not self.include_alloy or not self.card_from_benchmarks:
            raise SpecError("a publication always has its alloy, and a card from what was attested: leave out the `false`")
        unknown = set(re.findall(r"{(.*?)}", self.repo_name_template)) - {"name", "base", "domain", "variant"}
        if unknown:
            raise SpecError(f"repo_name_template has no {{{sorted(unknown)[0]}}}; it has {{name}}, {{base}}, {{domain}} and {{variant}}")

    def repo(self, alloy: Mapping[str, Any], variant: str) -> str:
        """`org/name` for an alloy; what a repository's name cannot hold becomes `-`."""
        source = alloy.get("source")
        base = str(source.get("baseModel", "")) if isinstance(source, Mapping) else ""
        domains = alloy.get("domains")
        domain = str(domains[0]) if isinstance(domains, list) and domains else "general"
        name = self.repo_name_template
        for key, value in {"name": alloy.get("name", ""), "base": base.rpartition("/")[2], "domain": domain, "variant": variant}.items():
            name = name.replace("{" + key + "}", str(value))
        return f"{self.org}/{re.sub(r'-{2,}', '-', re.sub(r'[^A-Za-z0-9._-]+', '-', name)).strip('-.')}"


def expand(spec: Publish, inputs: Mapping[str, Input], store: Cas) -> Graph:
    """Nothing is computed."""
    return Graph((), {})


def lower(call: Any) -> Any:
    """The recipe form: checked, and no work.

    Raises:
        RecipeError: an unknown key, or a value that cannot be.
    """
    from stages import lowering

    lowering.bind(call.entry, STAGE)
    return lowering.Lowered((), {})


STAGE = Composite(
    name="publish",
    spec=Publish,
    inputs=(),
    outputs=(),
    reads=(),
    expand=expand,
    described=("cardHash", "notes"),
    lower=lower,
)
