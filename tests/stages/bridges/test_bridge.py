"""What a bridge makes of its sources: norms, gates, mixtures, queries, order, and more or fewer sources."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.bridges import injection
from stages.bridges.bridge import Sender, build, gate, random_substrate
from stages.bridges.field import Field, align, of_rows, on_target_tokens
from stages.bridges.readers import QFormer, Soft, encode
from stages.bridges.spec import VERSIONS
from stages.bridges.target import uncertainty
from stages.bridges.twin import linear
from stages.bridges.vectors import length
from stages.errors import InputError
from tests.stages.bridges.small import HIDDEN, PREFIXES, WIDTHS, bridged, fields_of, moved, said, spec_of, texts

SOURCED = tuple(VERSIONS)


def soft_of(made: injection.Injection) -> Tensor:
    assert made.soft is not None
    return made.soft.detach()


def losses(name: str, fields: list[Field | None], **change: object) -> Tensor:
    """What the scored tokens cost with these fields, for a bridge away from its start."""
    target, bridge = bridged(spec_of(name, **change), widths=tuple(WIDTHS[: len(fields)]))
    moved(bridge)
    ids, scored = texts()
    with torch.no_grad():
        return target.nll(ids, scored, bridge.inject(fields, uncertainty(target, ids, torch.tensor(PREFIXES))))


# --- norms ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_v10_is_of_the_target_s_norm_in_training_and_in_evaluation(training: bool) -> None:
    """Row 32: the mean length of a row's soft tokens is the mean embedding's within 5 % (measured: 1e-5), and v9's is not after a push."""
    target, bridge = bridged(spec_of("v10"))
    moved(bridge)
    bridge.train(training)
    assert float(target.mean_norm) == pytest.approx(float(target.embedding.norm(dim=1).mean()))
    assert length(soft_of(bridge.inject(fields_of()))).mean(dim=(1, 2)).tolist() == pytest.approx([float(target.mean_norm)] * 3, rel=1e-5)
    _, free = bridged(spec_of("v9"))
    moved(free)
    assert float(length(soft_of(free.inject(fields_of()))).mean()) > 1.5 * float(target.mean_norm)


def test_v11b_keeps_its_norm_under_hostile_steps() -> None:
    """Row 40: 150 steps of Adam that make each soft token as long, then as short, as they can: within 7 % throughout; v11's grows."""
    grown = {}
    for name in ("v11b", "v11"):
        target, bridge = bridged(spec_of(name, layers=1, dim=16, heads=2))
        optimizer = torch.optim.Adam(bridge.parameters(), lr=0.05)
        ratios = []
        for step in range(150 if name == "v11b" else 60):
            soft = bridge.inject(fields_of()).soft
            assert soft is not None
            sign = -1 if step < 100 else 1
            loss = sign * (soft * torch.linspace(1, 30, HIDDEN)).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            ratios.append(length(soft.detach()) / target.mean_norm)
        grown[name] = torch.stack(ratios)
    assert float((grown["v11b"] - 1).abs().max()) < 0.07
    assert float(grown["v11"].max()) > 5


# --- gates ---------------------------------------------------------------------------------------------------------------------


def test_the_confidence_gate_starts_at_a_quarter_and_shut_is_neutral() -> None:
    """Row 43: .2689 for every query whatever it holds; forced to 0, v12 gives the mean embedding and v3 adds nothing; 1 is all."""
    target, bridge = bridged(spec_of("v12"))
    assert bridge.gate is not None
    fields = fields_of()
    assert bridge.gate(bridge.queries(fields)).flatten().tolist() == pytest.approx([1 / (1 + math.e)] * 12, abs=1e-6)
    assert 1 / (1 + math.e) == pytest.approx(0.2689, abs=5e-5)
    open_, start = soft_of(bridge.inject(fields, confidence=1.0)), soft_of(bridge.inject(fields))
    shut = soft_of(bridge.inject(fields, confidence=0.0))
    assert torch.equal(shut, target.mean_embedding.expand_as(shut))
    assert torch.allclose(start, 0.26894142 * open_ + 0.73105858 * shut, atol=1e-6)
    moved(bridge)
    assert len(set(bridge.gate(bridge.queries(fields)).flatten().tolist())) == 12

    target, bridge = bridged(spec_of("v3"))
    hidden = torch.randn(3, 4, HIDDEN)
    deltas = [bridge.inject(fields, confidence=share).delta for share in (None, 1.0, 0.0)]
    start, open_, shut = (delta(hidden).detach() for delta in deltas if delta is not None)
    assert torch.allclose(start, 0.26894142 * open_, atol=1e-7)
    assert not shut.any()


def test_the_uncertainty_gate_is_exactly_shut_where_the_target_is_certain() -> None:
    """Row 49: 0 up to the threshold, then straight up to 1; rows at 0 are the target's bits; the mixture moves from the mean embedding."""
    assert gate(torch.tensor([0.0, 0.3, 0.30001, 0.65, 1.0]), 0.3).tolist() == pytest.approx([0, 0, 1e-5 / 0.7, 0.5, 1], abs=1e-6)
    assert gate(torch.tensor([0.3]), 0.3).item() == 0
    assert gate(torch.tensor([1.0]), 1.0).item() == 0
    target, bridge = bridged(spec_of("v12u", threshold=0.5))
    ids, scored = texts()
    made = bridge.inject(fields_of(), torch.tensor([0.2, 0.75, 1.0]))
    assert made.active is not None
    assert made.active.tolist() == [False, True, True]
    full = soft_of(bridge.inject(fields_of(), torch.tensor([1.0, 1.0, 1.0])))
    assert torch.allclose(soft_of(made)[1], (full[1] + target.mean_embedding) / 2, atol=1e-6)
    with torch.no_grad():
        plain, found = target.nll(ids, scored, injection.none()), target.nll(ids, scored, made)
    assert found[0].item() == plain[0].item()
    assert not torch.isclose(found[1:], plain[1:]).any()
    with pytest.raises(InputError, match="uncertainty"):
        bridge.inject(fields_of())


def test_every_version_takes_the_uncertainty_gate() -> None:
    """Residuals, attention and caches are multiplied with g, and rows at 0 left alone."""
    for name in ("v2", "v6", "c2c"):
        target, bridge = bridged(spec_of(name, gate="uncertainty", threshold=0.5))
        moved(bridge)
        ids, scored = texts()
        with torch.no_grad():
            sizes = [target.ratio(ids, scored, bridge.inject(fields_of(), torch.full((3,), value))) for value in (1.0, 0.75)]
            certain = target.nll(ids, scored, bridge.inject(fields_of(), torch.zeros(3)))
            assert torch.equal(certain, target.nll(ids, scored, injection.none()))
        assert (sizes[1] / sizes[0]).tolist() == pytest.approx([0.5] * 3, rel=1e-4)


# --- what soft tokens are made of ----------------------------------------------------------------------------------------------


def test_grounded_tokens_are_mixtures_of_the_target_s_embeddings() -> None:
    """Row 41: weights at least 0 that sum to 1, soft = w . E, no longer than the longest row of E; the top tokens are the heaviest."""
    target, bridge = bridged(spec_of("v12"))
    moved(bridge)
    fields = fields_of()
    with torch.no_grad():
        weights, soft = bridge.weights(fields), soft_of(bridge.inject(fields, confidence=1.0))
        assert bool((weights >= 0).all())
        assert weights.sum(dim=-1).flatten().tolist() == pytest.approx([1.0] * 12, abs=1e-5)
        assert torch.allclose(soft, weights @ target.embedding, atol=1e-5)
        assert float(length(soft).max()) <= float(target.embedding.norm(dim=1).max())
        ids, shares = bridge.top_tokens(fields, 5)
    assert ids.shape == shares.shape == (3, 4, 5)
    assert ids[1, 2].tolist() == sorted(range(96), key=lambda token: -float(weights[1, 2, token]))[:5]
    assert float(shares[..., 0].min()) > 1 / 96


def test_the_embedding_table_is_not_stored() -> None:
    """Row 41's fault: what is saved is what is trained, the units of the sources and nothing else; and it is all that is needed."""
    for name in ("v12", "v7", "c2c"):
        target, bridge = bridged(spec_of(name))
        moved(bridge)
        trained = sum(item.numel() for item in bridge.parameters())
        assert sum(item.numel() for item in bridge.state_dict().values()) == trained + 2 * sum(WIDTHS)
        again = build(bridge.spec, target, WIDTHS, 99)
        again.load_state_dict(bridge.state_dict())
        ids, scored = texts()
        with torch.no_grad():
            assert torch.equal(*(target.nll(ids, scored, item.inject(fields_of())) for item in (bridge, again)))


def test_queries_ask_for_different_things() -> None:
    """Row 37: outputs of no two of 16 queries have a cosine of .9, before training and in it; their attention differs."""
    target, bridge = bridged(spec_of("v11", soft_tokens=16))
    ids, scored = texts()
    optimizer = torch.optim.AdamW(bridge.parameters(), lr=3e-3)
    assert isinstance(bridge.reader, QFormer)
    for _ in range(20):
        found = bridge.queries(fields_of()).detach()
        cosines = torch.nn.functional.cosine_similarity(found[:, :, None], found[:, None], dim=-1) - torch.eye(16)
        assert float(cosines.max()) < 0.9
        optimizer.zero_grad()
        target.nll(ids, scored, bridge.inject(fields_of())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    points, mask = bridge._sequence(bridge._heard(fields_of()))
    layer = bridge.reader.layers[0]
    maps = layer.cross.maps(layer.norms[0](bridge.reader.queries.expand(3, -1, -1)), points, mask).detach()  # type: ignore[union-attr,index,operator]
    assert maps.sum(dim=-1).flatten().tolist() == pytest.approx([1.0] * maps[..., 0].numel(), abs=1e-5)
    assert not maps[0, :, :, :-1][..., ~mask[0]].any()
    apart = (maps[:, :, :, None] - maps[:, :, None]).abs().sum(dim=-1) / 2
    assert float((apart + torch.eye(16)).amin()) > 0.01


# --- order ---------------------------------------------------------------------------------------------------------------------


def shuffled(fields: list[Field]) -> list[Field]:
    """Source tokens in another order, row by row; the last too."""
    return [
        Field(torch.stack([torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(field.states, PREFIXES, strict=True)]), field.mask)
        for field in fields
    ]


@pytest.mark.parametrize(
    ("name", "positions", "matters"),
    [
        *((name, True, True) for name in ("v2", "v6", "v11", "v12", "c2c")),
        *((name, True, False) for name in ("v8", "v9")),
        *((name, False, False) for name in ("v6", "v11", "v12")),
    ],
)
def test_whether_the_order_of_source_tokens_matters(name: str, positions: bool, matters: bool) -> None:
    """Row 38: it does token by token, since each point is told its place, and for the last token's state; a mean does not know it, nor
    attention without places, which sums over keys and values.
    """
    fields = fields_of()
    found = [losses(name, list(items), positions=positions) for items in (fields, shuffled(fields))]
    assert torch.allclose(found[0], found[1], rtol=1e-4) != matters


def test_places_are_counted_from_the_end_of_the_prefix() -> None:
    """Padding is no place: the last state of each row is at 0, so rows of other lengths look alike from the seam."""
    assert fields_of()[0].from_end()[:, :7].tolist() == [[4, 3, 2, 1, 0, 0, 0], [6, 5, 4, 3, 2, 1, 0], [2, 1, 0, 0, 0, 0, 0]]
    code = encode(torch.tensor([0, 1, 50]), 8)
    assert code.shape == (3, 8)
    assert code[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("name", SOURCED)
def test_one_two_and_three_sources_speak(name: str) -> None:
    """Row 44: any number; each of them is heard; one can be left out; with its Project, a source may stand at any place."""
    target, bridge = bridged(spec_of(name), widths=(24, 40, 24))
    moved(bridge)
    ids, scored = texts()
    certain = torch.ones(3)
    fields = fields_of((24, 40, 24))
    seen = []
    with torch.no_grad():
        for heard in ([0], [0, 1], [0, 1, 2], [1, 2]):
            made = bridge.inject([field if number in heard else None for number, field in enumerate(fields)], certain)
            seen.append(target.nll(ids, scored, made).tolist())
        assert len({item[0] for item in seen}) == len(seen)
        senders = list(bridge.senders)
        bridge.senders = torch.nn.ModuleList([senders[2], senders[0], senders[1]])
        turned = target.nll(ids, scored, bridge.inject([fields[2], fields[0], fields[1]], certain))
    assert turned.tolist() == pytest.approx(seen[2], rel=1e-4)


@pytest.mark.parametrize("name", SOURCED)
def test_adding_a_source_changes_no_other(name: str) -> None:
    """Row 44: every earlier number keeps its bits, and with the new source silent so does what comes out; it is not built in or later."""
    target, bridge = bridged(spec_of(name))
    before = {name: value.clone() for name, value in bridge.state_dict().items()}
    ids, scored = texts()
    certain = torch.ones(3)
    with torch.no_grad():
        old = target.nll(ids, scored, bridge.inject(fields_of(), certain))
        bridge.add_source(32)
        assert all(torch.equal(bridge.state_dict()[name], value) for name, value in before.items())
        assert torch.equal(target.nll(ids, scored, bridge.inject([*fields_of(), None], certain)), old)
    at_once = build(bridge.spec, target, (*WIDTHS, 32), bridge.seed)
    assert all(torch.equal(value, bridge.state_dict()[name]) for name, value in at_once.state_dict().items())


def test_a_random_substrate_keeps_the_reader_and_nothing_of_the_sources() -> None:
    """The control: Project and Gaussians are drawn anew; reader, gate, LoRA and units stay."""
    for name in ("v7", "v12", "c2c"):
        _, bridge = bridged(spec_of(name))
        moved(bridge)
        sender = bridge.senders[0]
        assert isinstance(sender, Sender)
        sender.fit_units(torch.randn(50, 24) * 3 + 1)
        made = random_substrate(bridge, 5)
        for key, value in made.state_dict().items():
            of_source = ".project." in key or key.startswith("space.")
            if value.any():  # first biases are zero in both
                assert torch.equal(value, bridge.state_dict()[key]) != of_source, key


def test_units_are_taken_from_training_states() -> None:
    """A source whose numbers are shifted and stretched says the same once its units are taken."""
    _, bridge = bridged(spec_of("v11"), widths=(24,))
    field = fields_of((24,))[0]
    states = field.states[field.mask]
    made = []
    for scale, shift in ((1.0, 0.0), (50.0, 7.0)):
        sender = bridge.senders[0]
        assert isinstance(sender, Sender)
        sender.fit_units(states * scale + shift)
        made.append(soft_of(bridge.inject([Field(field.states * scale + shift, field.mask)])))
    assert torch.allclose(made[0], made[1], atol=1e-5)


def test_a_prompt_of_equal_size_hears_nobody() -> None:
    """The control: as many vectors of the mean embedding's norm, for any number of rows."""
    target, bridge = bridged(spec_of("prompt"))
    ids, scored = texts()
    assert soft_of(bridge.inject([])).shape == (1, 4, HIDDEN)
    assert float(length(soft_of(bridge.inject([]))).mean()) == pytest.approx(float(target.mean_norm), rel=0.2)
    assert target.nll(ids, scored, bridge.inject(said(bridge))).shape == (3,)


def test_wrong_fields_are_refused() -> None:
    """Too few, of another width, none at all, no mask, a prefix without a state."""
    _, bridge = bridged(spec_of("v11"))
    fields = fields_of()
    with pytest.raises(InputError, match="2 sources, and there are 1"):
        bridge.inject(fields[:1])
    with pytest.raises(InputError, match="made for 24"):
        bridge.inject([fields[1], fields[0]])
    with pytest.raises(InputError, match="all sources"):
        bridge.inject([None, None])
    with pytest.raises(InputError, match="mask"):
        Field(torch.zeros(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(InputError, match="at least one state"):
        of_rows([torch.zeros(2, 4), torch.zeros(0, 4)])


def test_sizes_at_the_prior_art_s_scale() -> None:
    """Row 39, counted and not only computed: Q-Former to 2560 is 2,765,312 (2.77 M), v9 is 10,526,720."""
    generator = torch.Generator().manual_seed(0)
    former = QFormer(256, 16, 2, 4, generator)
    head = linear(256, 2560, generator, bias=True)
    assert sum(item.numel() for module in (former, head) for item in module.parameters()) == 2_765_312
    assert sum(item.numel() for item in Soft(256, 16, 2560, generator).parameters()) == Soft.count(256, 16, 2560) == 10_526_720


# --- what gets across ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rate", "steps"), [("v2", 1e-2, 80), ("v7", 1e-2, 40), ("v9", 1e-2, 40), ("v11b", 3e-3, 40), ("c2c", 1e-2, 40)]
)
def test_what_only_the_source_knows_gets_across(name: str, rate: float, steps: int) -> None:
    """Four endings after one prefix, as likely to the target; the source's noisy states tell which.

    After some steps the loss on new noise is under half of log 4, the best that is possible without a source, and far above it with another
    row's field: it is the field that tells.
    """
    target, bridge = bridged(spec_of(name), widths=(24,))
    generator = torch.Generator().manual_seed(9)
    signs = torch.randn(4, 24, generator=generator)
    ids, scored = texts()[0][:1, :7].repeat(12, 1), torch.zeros(12, 7, dtype=torch.bool)
    scored[:, 6] = True
    optimizer = torch.optim.AdamW(bridge.parameters(), lr=rate)

    def batch() -> Field:
        which = torch.arange(12) % 4
        ids[:, 6] = which + 10
        noise = 0.5 * torch.randn(12, 6, 24, generator=generator)
        return Field(signs[which][:, None] + noise, torch.ones(12, 6, dtype=torch.bool))

    for _ in range(steps):
        optimizer.zero_grad()
        target.nll(ids, scored, bridge.inject([batch()])).mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(bridge.parameters(), 1.0)
        optimizer.step()
    field = batch()
    with torch.no_grad():
        own = target.nll(ids, scored, bridge.eval().inject([field])).mean()
        another = target.nll(ids, scored, bridge.inject([Field(field.states.roll(1, 0), field.mask)])).mean()
    assert float(own) < math.log(4) / 2 < 2 * math.log(4) < float(another)


# --- which tokens have read the same -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(1, 30), min_size=1), st.sets(st.integers(1, 30), min_size=1))
def test_aligned_tokens_have_read_the_same_bytes(source: set[int], target: set[int]) -> None:
    """A number exactly where both have an end, and there the same; held ones have read less or as much, and no later one has."""
    ours, theirs = sorted(target), sorted(source)
    exact, held = align(theirs, ours), align(theirs, ours, hold=True)
    for end, number, last in zip(ours, exact, held, strict=True):
        assert (number >= 0) == (end in source)
        assert number < 0 or theirs[number] == end
        assert sum(other <= end for other in theirs) == last + 1
    states = torch.arange(len(theirs), dtype=torch.float32)[:, None] + 1
    rows, mask = on_target_tokens(states, exact)
    assert mask.tolist() == [number >= 0 for number in exact]
    assert rows[:, 0].tolist() == [number + 1.0 for number in exact]


def test_ends_that_nobody_knows_align_with_nothing() -> None:
    """-1 of a trimmed blank is no place, and of several tokens that end there the last counts."""
    assert align([-1, 2, 2], [-1, 2]) == [-1, 2]
