"""Every version v1 to v12 on three families: it trains everything it has from the first step on, and leaves the target as it was."""

from __future__ import annotations

import itertools

import pytest
import torch

from stages.bridges import injection
from stages.bridges.bridge import parameter_count
from stages.bridges.spec import VERSIONS, WHAT, BridgeSpec
from stages.bridges.target import uncertainty
from stages.errors import SpecError
from stages.stage import spec_from_json, spec_to_json
from tests.stages.bridges.small import FAMILIES, PREFIXES, WIDTHS, bridged, moved, said, spec_of, texts

EVERY = (*VERSIONS, "prompt")


@pytest.mark.parametrize(("name", "family"), [*((name, "llama") for name in EVERY), *itertools.product(("v7", "c2c"), FAMILIES[1:])])
def test_everything_has_a_gradient_at_the_first_step_and_the_target_none(name: str, family: str) -> None:
    """Rows 18, 29, 36, 39: each parameter's gradient is above 0 at the start; counts equal the formula; the target keeps every bit."""
    target, bridge = bridged(spec_of(name), family)
    before = target.checksum()
    ids, scored = texts()
    made = bridge.inject(said(bridge), uncertainty(target, ids, torch.tensor(PREFIXES)))
    loss = target.nll(ids, scored, made) if bridge.spec.objective == "next-token" else target.align(ids, scored, made)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert [name for name, item in bridge.named_parameters() if item.grad is None or not float(item.grad.norm()) > 0] == []
    assert sum(item.numel() for item in bridge.parameters()) == parameter_count(bridge.spec, target, WIDTHS)
    assert not any(item.requires_grad or item.grad is not None for item in target.model.parameters())
    torch.optim.SGD(bridge.parameters(), lr=0.1).step()
    assert target.checksum() == before


@pytest.mark.parametrize("name", EVERY)
def test_controls_keep_shape_and_norm(name: str) -> None:
    """Nothing is the target's bits; zeros are of size 0; random vectors are as long as what they stand for, to rounding."""
    target, bridge = bridged(spec_of(name))
    ids, scored = texts()
    with torch.no_grad():
        moved(bridge)
        made = bridge.inject(said(bridge), uncertainty(target, ids, torch.tensor(PREFIXES)))
        size = target.ratio(ids, scored, made)
        assert bool((size > 0).all())
        assert target.ratio(ids, scored, injection.zeroed(made)).tolist() == [0.0, 0.0, 0.0]
        random = injection.random_like(made, 7)
        assert target.ratio(ids, scored, random).tolist() == pytest.approx(size.tolist(), rel=1e-4)
        assert target.nll(ids, scored, random).tolist() == target.nll(ids, scored, injection.random_like(made, 7)).tolist()
        assert target.nll(ids, scored, random).tolist() != target.nll(ids, scored, made).tolist()
        if made.fuse is None:
            mean = injection.mean_embedding(made, target)
            assert bool(torch.isfinite(target.nll(ids, scored, mean)).all())
            return
    with pytest.raises(SpecError, match="random_like"):
        injection.mean_embedding(made, target)


def test_versions_are_values_of_one_spec() -> None:
    """Each goes through JSON and comes back; no two are the same; each has its line."""
    assert all(spec_from_json(BridgeSpec, spec_to_json(spec)) == spec for spec in VERSIONS.values())
    assert len(set(VERSIONS.values())) == len(VERSIONS)
    assert list(WHAT) == list(VERSIONS)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"inject": "residual"}, "has the reader linear"),
        ({"reader": "linear"}, "pool: mean or pool: last"),
        ({"pool": "mean"}, "pool must be none"),
        ({"dim": 30}, "multiple"),
        ({"rank": 15}, "even"),
        ({"lora_rank": 4}, "cross-attention"),
        ({"inject": "cache", "reader": "fusion", "substrate": True}, "substrate"),
        ({"inject": "cache", "reader": "fusion", "norm": "pinned"}, "soft prompts"),
        ({"reader": "prompt", "norm": "vocabulary"}, "q-former"),
        ({"reader": "prompt", "gate": "confidence"}, "q-former and attention"),
        ({"reader": "prompt", "gate": "uncertainty"}, "asks none"),
        ({"objective": "align"}, "hidden states"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"insert_layer": 0}, "layer 1"),
        ({"soft_tokens": 0}, "at least 1"),
    ],
)
def test_impossible_specs_are_refused(change: dict[str, object], what: str) -> None:
    """With what would be possible."""
    with pytest.raises(SpecError, match=what):
        BridgeSpec(**change)  # type: ignore[arg-type]
