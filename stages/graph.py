"""A graph on its way from names to digests: which actions are known, which wait, which composites are still closed. No effects.

A node is *waiting* until its inputs are digests; then a leaf is an action with a key, and a composite is expanded into its children
(`group/child`). Results come in by key, so two nodes that ask for the same action share one result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from stages.errors import RecipeError, StageError
from stages.stage import Composite, Input, Leaf, Node, Ref, Stage, spec_to_json
from store.actions import Action
from store.cas import Cas
from store.digest import Digest
from store.errors import StoreError

_OUTER = "/"
"""Put before the node of a Ref that a composite passes through: it is absolute already."""


@dataclass
class _State:
    node: Node
    stage: Stage
    action: Action | None = None
    outputs: Mapping[str, Input] | None = None
    known: dict[str, Digest] = field(default_factory=dict)


@dataclass
class Resolution:
    """The state of a graph.

    Attributes:
        actions: key -> action of every leaf whose inputs are known; in graph order.
        users: key -> ids of the nodes that ask for it.
        results: key -> output name -> digest, as they come in.
        faults: node -> why it cannot be expanded or become an action; what depends on it stays unknown.
    """

    find_stage: Callable[[str], Stage]
    store: Cas
    actions: dict[Digest, Action] = field(default_factory=dict)
    users: dict[Digest, list[str]] = field(default_factory=dict)
    results: dict[Digest, Mapping[str, Digest]] = field(default_factory=dict)
    faults: dict[str, StageError | StoreError] = field(default_factory=dict)
    _states: dict[str, _State] = field(default_factory=dict)
    _blocked: dict[str, list[str]] = field(default_factory=dict)

    def add(self, nodes: Iterable[Node]) -> list[Digest]:
        """Take nodes in; gives the keys that became known.

        Raises:
            RecipeError: two nodes have one id, or a Ref names nothing.
        """
        fresh = []
        for node in nodes:
            if node.id in self._states:
                raise RecipeError(f"two nodes are called {node.id!r}")
            self._states[node.id] = _State(node, self.find_stage(node.stage))
            fresh.append(node.id)
        for identifier in fresh:
            for name, source in self._states[identifier].node.inputs.items():
                if isinstance(source, Ref) and source.node not in self._states:
                    raise RecipeError(f"input {name} of {identifier} refers to {source.node!r}, which does not exist")
        return self._advance(fresh)

    def finish(self, key: Digest, outputs: Mapping[str, Digest]) -> list[Digest]:
        """A result has come in; gives the keys that became known through it.

        Raises:
            StageError: an output that the stage declares is missing, or one that it does not declare was given.
        """
        stage = self.leaf(key)
        check_names(f"outputs of {stage.name}", outputs, stage.outputs)
        self.results[key] = outputs
        unblocked: list[str] = []
        for identifier in self.users[key]:
            self._states[identifier].outputs = dict(outputs)
            unblocked += self._blocked.pop(identifier, [])
        return self._advance(unblocked)

    def leaf(self, key: Digest) -> Leaf:
        """The declaration of an action's stage."""
        stage = self._states[self.users[key][0]].stage
        assert isinstance(stage, Leaf)
        return stage

    def node(self, key: Digest) -> Node:
        """The first node that asks for an action."""
        return self._states[self.users[key][0]].node

    def resolve(self, source: Input) -> Digest | None:
        """Follow Refs to a digest; None while it is not known."""
        while isinstance(source, Ref):
            state = self._states.get(source.node)
            if state is None or state.outputs is None:
                return None
            if source.output not in state.outputs:
                raise RecipeError(f"{source.node} gives no {source.output!r}; it gives {', '.join(state.outputs) or 'nothing'}")
            source = state.outputs[source.output]
        return source

    def closed(self) -> tuple[str, ...]:
        """Composites that wait for something before they can be expanded."""
        return tuple(
            identifier for identifier, state in self._states.items() if isinstance(state.stage, Composite) and state.outputs is None
        )

    def identifiers(self) -> Iterator[str]:
        """Every node known so far, in graph order."""
        return iter(self._states)

    def leaves(self) -> int:
        """Actions known so far: distinct keys, and leaves whose key is not known yet."""
        unknown = sum(1 for state in self._states.values() if isinstance(state.stage, Leaf) and state.action is None)
        return len(self.actions) + unknown

    def waiting(self) -> Iterator[Node]:
        """Leaves whose inputs are not known yet."""
        return (state.node for state in self._states.values() if isinstance(state.stage, Leaf) and state.action is None)

    def _advance(self, identifiers: list[str]) -> list[Digest]:
        keys: list[Digest] = []
        queue = list(identifiers)
        while queue:
            identifier = queue.pop(0)
            state = self._states[identifier]
            if state.action is not None or state.outputs is not None or identifier in self.faults:
                continue
            try:
                if isinstance(state.stage, Composite):
                    queue += self._expand(identifier, state)
                    continue
                key = self._act(identifier, state)
            except (StageError, StoreError) as error:
                self.faults[identifier] = error
                continue
            if key is not None:
                keys.append(key)
                if key in self.results:
                    state.outputs = dict(self.results[key])
                    queue += self._blocked.pop(identifier, [])
        return list(dict.fromkeys(keys))

    def _act(self, identifier: str, state: _State) -> Digest | None:
        assert isinstance(state.stage, Leaf)
        for name, source in state.node.inputs.items():
            if name in state.known:
                continue  # a merge of many is asked again for each of them
            digest = self.resolve(source)
            if digest is None:
                self._block(identifier, source)
                return None
            state.known[name] = digest
        check_names(f"inputs of {identifier}", state.known, state.stage.inputs)
        state.action = Action(state.stage.name, state.stage.version, spec_to_json(state.node.spec), state.known)
        key = state.action.key
        self.actions.setdefault(key, state.action)
        self.users.setdefault(key, []).append(identifier)
        return key

    def _expand(self, identifier: str, state: _State) -> list[str]:
        assert isinstance(state.stage, Composite)
        inputs: dict[str, Input] = {}
        for name, source in state.node.inputs.items():
            digest = self.resolve(source)
            if digest is not None:
                inputs[name] = digest
            elif name in state.stage.reads:
                self._block(identifier, source)
                return []
            else:
                assert isinstance(source, Ref)
                inputs[name] = Ref(_OUTER + source.node, source.output)
        check_names(f"inputs of {identifier}", inputs, state.stage.inputs)
        graph = state.stage.expand(state.node.spec, inputs, self.store)
        children = {child.id: child for child in (_placed(identifier, node) for node in graph.nodes)}
        outputs = {name: _absolute(identifier, source) for name, source in graph.outputs.items()}
        if len(children) != len(graph.nodes):
            raise StageError(f"composite {state.node.stage} makes two nodes of one name")
        for source in (*outputs.values(), *(source for child in children.values() for source in child.inputs.values())):
            if isinstance(source, Ref) and source.node not in self._states and source.node not in children:
                raise StageError(f"composite {state.node.stage} refers to {source.node!r}, which it does not make")
        for child in children.values():
            self._states[child.id] = _State(child, self.find_stage(child.stage))
        state.outputs = outputs
        return [*children, *self._blocked.pop(identifier, [])]

    def _block(self, identifier: str, source: Input) -> None:
        """Wait for the node at the end of a chain of Refs: the first that has no outputs yet."""
        assert isinstance(source, Ref)
        while True:
            state = self._states[source.node]
            if state.outputs is None:
                self._blocked.setdefault(source.node, []).append(identifier)
                return
            following = state.outputs[source.output]
            assert isinstance(following, Ref)
            source = following


def _placed(parent: str, node: Node) -> Node:
    inputs = {name: _absolute(parent, source) for name, source in node.inputs.items()}
    return Node(f"{parent}/{node.id}", node.stage, node.spec, inputs, node.label)


def _absolute(parent: str, source: Input) -> Input:
    if not isinstance(source, Ref):
        return source
    if source.node.startswith(_OUTER):
        return Ref(source.node[1:], source.output)
    return Ref(f"{parent}/{source.node}", source.output)


def check_names(what: str, given: Iterable[str], declared: Iterable[str]) -> None:
    """Compare names with a declaration in which `shard-*` stands for any number of names with that prefix.

    Raises:
        StageError: naming what is missing and what is not declared.
    """
    given, declared = set(given), tuple(declared)
    exact = {name for name in declared if not name.endswith("*")}
    prefixes = tuple(name[:-1] for name in declared if name.endswith("*"))
    missing = sorted(exact - given)
    extra = sorted(name for name in given - exact if not (prefixes and name.startswith(prefixes)))
    if missing or extra:
        parts = ([f"missing {', '.join(missing)}"] if missing else []) + ([f"not declared: {', '.join(extra)}"] if extra else [])
        raise StageError(f"{what}: {'; '.join(parts)} (declared: {', '.join(declared) or 'none'})")
