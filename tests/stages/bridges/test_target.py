"""A frozen target with an injection: where it acts, that nothing is left behind, and that none is the target itself, bit for bit."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.bridges import injection
from stages.bridges.injection import Delta, Injection
from stages.bridges.target import BridgedTarget, normalised_entropy, uncertainty
from stages.bridges.vectors import length
from stages.errors import InputError, SpecError
from tests.stages.bridges.small import FAMILIES, HIDDEN, PREFIXES, VOCABULARY, bridged, fields_of, model, moved, said, spec_of, texts

KINDS = ("v2", "v3", "v7", "v11", "v12", "c2c", "prompt")
"""One for each way into a target."""
PAIRS = sorted({*zip(KINDS, itertools.cycle(FAMILIES), strict=False), *itertools.product(("v7", "c2c"), FAMILIES)})
"""Each kind on some family, and those that reach into a target's modules on all."""
STARTS = torch.tensor(PREFIXES)


def injected(name: str, family: str = "llama", **change: Any) -> tuple[BridgedTarget, Injection]:
    target, bridge = bridged(spec_of(name, **change), family)
    moved(bridge)
    with torch.no_grad():
        return target, bridge.inject(said(bridge))


def one(made: Injection, row: int) -> Injection:
    """The injection of one of three rows."""
    soft = None if made.soft is None else made.soft[row : row + 1] if len(made.soft) > 1 else made.soft

    def delta(hidden: Tensor) -> Tensor:
        assert made.delta is not None
        return made.delta(hidden.expand(3, -1, -1))[row : row + 1]

    def fuse(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        assert made.fuse is not None
        key, value = made.fuse(layer, keys.expand(3, -1, -1, -1), values.expand(3, -1, -1, -1))
        return key[row : row + 1], value[row : row + 1]

    return dataclasses.replace(made, soft=soft, delta=made.delta and delta, fuse=made.fuse and fuse)


def hooks(target: BridgedTarget) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in target.model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_soft_tokens_generate_what_transformers_generates(family: str) -> None:
    """Row 48: a soft prompt of length 0 at either place, and no injection at all, give the plain greedy tokens, each of them."""
    target = BridgedTarget(model(family), spec_of("v11"))
    ids = texts()[0][1]
    plain = target.model.generate(
        ids[None], attention_mask=torch.ones_like(ids[None]), do_sample=False, max_new_tokens=20, eos_token_id=None, pad_token_id=0
    )[0, len(ids) :].tolist()
    nothing = torch.zeros(1, 0, HIDDEN)
    assert target.generate(ids, injection.none(), 20) == plain
    assert target.generate(ids, Injection(soft=nothing), 20) == plain
    assert target.generate(ids, Injection(soft=nothing, place="seam"), 20) == plain


def test_generation_stops_where_it_should() -> None:
    """At a stop, which is the last token; after so many; where the model reads no more; and not before it has begun."""
    target = BridgedTarget(model(), spec_of("v11"))
    ids = texts()[0][0]
    plain = target.generate(ids, injection.none(), 8)
    assert target.generate(ids, injection.none(), 8, {plain[3]}) == plain[: plain.index(plain[3]) + 1]
    assert target.generate(ids, injection.none(), 0) == []
    assert len(target.generate(ids, injection.none(), 100)) == 64 - len(ids) + 1
    assert len(target.generate(ids, Injection(soft=torch.zeros(1, 4, HIDDEN)), 100)) == 60 - len(ids) + 1
    with pytest.raises(InputError, match="no prefix"):
        target.generate(ids[:0], injection.none(), 1)


@pytest.mark.parametrize(("name", "family"), [*PAIRS, ("seam", "llama")])
def test_generation_agrees_with_reading_the_whole(name: str, family: str) -> None:
    """With every kind of injection, the tokens made one by one with a cache are the most likely ones when all is read at once."""
    target, made = injected("v11" if name == "seam" else name, family, **({"place": "seam"} if name == "seam" else {}))
    ids = texts()[0][0, :5]
    for control in (one(made, 0), injection.random_like(one(made, 0), 3)):
        found = target.generate(ids, control, 6)
        whole = torch.cat([ids, torch.tensor(found)])[None]
        with torch.no_grad():
            logits = target.logits(whole, torch.tensor([5]), control)[0, 4:-1]
        assert logits.argmax(dim=-1).tolist() == found


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_row_does_not_depend_on_its_batch(name: str, family: str) -> None:
    """Rows of other lengths beside it, and what pads it, change nothing but rounding."""
    target, made = injected(name, family)
    ids, scored = texts()
    with torch.no_grad():
        together = target.nll(ids, scored, made)
        for row, last in enumerate((9, 12, 6)):
            alone = target.nll(ids[row : row + 1, :last], scored[row : row + 1, :last], one(made, row))
            assert float(alone) == pytest.approx(float(together[row]), rel=1e-4)
        other = torch.where(torch.arange(12) < torch.tensor([[9], [12], [6]]), ids, 5)
        assert target.nll(other, scored, made).tolist() == together.tolist()


@pytest.mark.parametrize("name", ["v2", "v7", "c2c", "seam"])
def test_nothing_acts_before_the_last_token_of_the_prefix(name: str) -> None:
    """Logits before it have the target's own bits (at the seam: up to rounding, as more tokens are read); those from it on do not."""
    target, made = injected("v11" if name == "seam" else name, **({"place": "seam"} if name == "seam" else {}))
    ids, _ = texts()
    with torch.no_grad():
        plain, found = (target.logits(ids, STARTS, item) for item in (injection.none(), made))
    for row, start in enumerate(PREFIXES):
        if name == "seam":
            assert torch.allclose(found[row, : start - 1], plain[row, : start - 1], atol=1e-4)
        else:
            assert torch.equal(found[row, : start - 1], plain[row, : start - 1])
        assert not torch.allclose(found[row, start - 1 :], plain[row, start - 1 :], atol=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_what_comes_later_changes_nothing_before(name: str) -> None:
    """Causality: with another last token, the logits up to it are the same."""
    target, made = injected(name)
    ids, _ = texts()
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCABULARY
    with torch.no_grad():
        assert torch.allclose(target.logits(ids, STARTS, made)[:, :-1], target.logits(other, STARTS, made)[:, :-1], atol=1e-5)


@pytest.mark.parametrize("place", ["front", "seam"])
def test_the_loss_of_soft_tokens_is_that_of_the_model_s_own_embeddings(place: str) -> None:
    """Against transformers, row by row: embeddings put together by hand, log-softmax, and a sum over the scored tokens."""
    target, made = injected("v11", place=place)
    ids, scored = texts()
    assert made.soft is not None
    embed = target.model.get_input_embeddings()
    with torch.no_grad():
        found = target.nll(ids, scored, made)
        for row, start in enumerate(PREFIXES):
            stop = int(scored[row].nonzero().max()) + 1
            before, after = embed(ids[row, :start]), embed(ids[row, start:stop])
            parts = [made.soft[row], before, after] if place == "front" else [before, made.soft[row], after]
            logs = torch.log_softmax(target.model(inputs_embeds=torch.cat(parts)[None]).logits[0].double(), dim=-1)
            at = torch.arange(start, stop)
            assert float(found[row]) == pytest.approx(-float(logs[3 + at, ids[row, start:stop]].sum()), rel=1e-5)


@pytest.mark.parametrize("family", [*FAMILIES, "phi3"])
def test_lora_is_a_change_of_queries_and_values(family: str) -> None:
    """Logits with LoRA equal those of a copy of the model whose q and v have the product of the pairs added to them, in three layouts."""
    target, bridge = bridged(spec_of("v7"), family)
    moved(bridge)
    assert bridge.lora is not None
    ids, _ = texts()
    made = Injection(delta=torch.zeros_like, lora=bridge.lora)
    merged = copy.deepcopy(target.model)
    blocks = merged.base_model.layers
    for block, query, value in zip(blocks[target.layer :], bridge.lora.query, bridge.lora.value, strict=True):
        changes = [pair(torch.eye(HIDDEN)).T.detach() for pair in (query, value)]
        heads, size = 4, HIDDEN // 4
        if family == "gpt_neox":
            weight = block.attention.query_key_value.weight.data.view(heads, 3, size, HIDDEN)
            weight[:, 0] += changes[0].view(heads, size, HIDDEN)
            weight[:, 2] += changes[1].view(heads, size, HIDDEN)
        elif family == "phi3":
            block.self_attn.qkv_proj.weight.data[:HIDDEN] += changes[0]
            block.self_attn.qkv_proj.weight.data[HIDDEN + 2 * size :] += changes[1]
        else:
            block.self_attn.q_proj.weight.data += changes[0]
            block.self_attn.v_proj.weight.data += changes[1]
    with torch.no_grad():
        found = target.logits(ids, torch.tensor([1, 1, 1]), made)
        assert torch.allclose(found, merged(input_ids=ids).logits, atol=1e-4)
        assert not torch.allclose(found, target.model(input_ids=ids).logits, atol=1e-2)


@pytest.mark.parametrize("name", ["v7", "v12", "c2c"])
def test_off_is_the_target_bit_for_bit(name: str) -> None:
    """LoRA and everything else off: the loss, logits and tokens are the model's own bits, after an injection as before it."""
    target, made = injected(name)
    ids, scored = texts()
    with torch.no_grad():
        own = target.model(input_ids=ids).logits
        target.nll(ids, scored, made)
        assert torch.equal(target.logits(ids, STARTS, injection.none()), own)
        left = dataclasses.replace(made, active=torch.tensor([False, False, False]))
        assert torch.equal(target.logits(ids, STARTS, left), own)


@pytest.mark.parametrize("name", KINDS)
def test_rows_that_are_left_alone_have_the_target_s_bits(name: str) -> None:
    """Row 49: beside rows with an injection too, and in generation."""
    target, made = injected(name)
    ids, scored = texts()
    mixed = dataclasses.replace(made, active=torch.tensor([True, False, True]))
    with torch.no_grad():
        plain, all_of_it, found = (target.nll(ids, scored, item) for item in (injection.none(), made, mixed))
        assert found.tolist() == [all_of_it[0].item(), plain[1].item(), all_of_it[2].item()]
        assert plain[1] != all_of_it[1]
    off = dataclasses.replace(one(made, 0), active=torch.tensor([False]))
    assert target.generate(ids[0], off, 8) == target.generate(ids[0], injection.none(), 8)


def test_lora_gains_nothing_by_being_counted_as_a_message() -> None:
    """With zeros for the message, what LoRA does by itself is still there; with none(), it is not."""
    target, made = injected("v7")
    ids, scored = texts()
    with torch.no_grad():
        plain, zero = target.nll(ids, scored, injection.none()), target.nll(ids, scored, injection.zeroed(made))
    assert not torch.allclose(plain, zero, atol=1e-3)


def test_hooks_are_gone_whatever_happens() -> None:
    """Row 29: after a call, after an error in what is added, after an error of the model, and while a stream waits."""
    target, made = injected("v7")
    ids, scored = texts()
    own = hooks(target)
    target.nll(ids, scored, made)
    assert hooks(target) == own

    def fails(hidden: Tensor) -> Tensor:
        assert hooks(target) > own
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        target.nll(ids, scored, dataclasses.replace(made, delta=fails))
    assert hooks(target) == own
    with pytest.raises(IndexError):
        target.nll(ids + VOCABULARY, scored, made)
    assert hooks(target) == own
    stream = target.stream(ids[0, :5], one(made, 0))
    next(stream)
    assert hooks(target) == own


def _goal_of(state: Tensor, scored: Tensor) -> Delta:
    """What `align` asks for, of states that are known."""
    mean = torch.stack([rows[mask].mean(dim=0) for rows, mask in zip(state, scored, strict=True)])
    return lambda hidden: mean[:, None].expand_as(hidden)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_after_so_many_layers(family: str) -> None:
    """What is added to is the state that `hidden-states` keeps at that layer: floor(2 L / 3) of 3 is 2, and the layer can be chosen."""
    ids, scored = texts()
    for layer, wanted in ((None, 2), (1, 1)):
        target = BridgedTarget(model(family), spec_of("v2", insert_layer=layer))
        state = target.model(input_ids=ids, output_hidden_states=True).hidden_states[wanted]
        found = target.align(ids, scored, Injection(delta=_goal_of(state, scored)))
        assert float(found.abs().max()) < 1e-5
    with pytest.raises(SpecError, match="3 layers"):
        BridgedTarget(model(family), spec_of("v2", insert_layer=4))
    with pytest.raises(SpecError, match="the last"):
        bridged(spec_of("v7", insert_layer=3), family)


def test_a_residual_is_measured_against_what_it_is_added_to() -> None:
    """Row 28: |added| / |state| of a constant vector, by hand over the places where it acts; v1 adds a hundredth of v2."""
    target = BridgedTarget(model(), spec_of("v2"))
    ids, scored = texts()
    with torch.no_grad():
        states = target.model(input_ids=ids, output_hidden_states=True).hidden_states[2]
        added = torch.full((HIDDEN,), 2.0)
        found = target.ratio(ids, scored, Injection(delta=lambda hidden: added.expand_as(hidden)))
        for row, (start, stop) in enumerate(zip(PREFIXES, (9, 12, 6), strict=True)):
            by_hand = (added.norm() / states[row, start - 1 : stop].norm(dim=-1)).mean()
            assert float(found[row]) == pytest.approx(float(by_hand), rel=1e-5)
        sizes = []
        for name in ("v1", "v2"):
            target, bridge = bridged(spec_of(name))
            sizes.append(target.ratio(ids, scored, bridge.inject(said(bridge))))
    assert (sizes[0] * 100).tolist() == pytest.approx(sizes[1].tolist(), rel=1e-4)
    assert target.ratio(ids, scored, injection.none()).tolist() == [0, 0, 0]


def test_align_looks_at_what_is_added_behind_the_prefix() -> None:
    """By hand: 1 - cosine, and mean square, of the vector added there against the mean state of the scored tokens."""
    ids, scored = texts()
    added = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(3))
    made = Injection(delta=lambda hidden: added.expand_as(hidden))
    for name in ("v6", "v4"):
        target = BridgedTarget(model(), spec_of(name))
        states = target.model(input_ids=ids, output_hidden_states=True).hidden_states[2]
        goals = target.goal(ids, scored)
        for row, found in enumerate(target.align(ids, scored, made)):
            goal = states[row, scored[row]].mean(dim=0)
            assert torch.allclose(goals[row], goal, atol=1e-6)
            cosine = float(1 - torch.cosine_similarity(added, goal, dim=0))
            square = float((added - goal).square().sum() / goal.square().sum())
            assert float(found) == pytest.approx(cosine if name == "v6" else square, rel=1e-4)
    with pytest.raises(SpecError, match="hidden states"):
        target.align(ids, scored, injection.none())


def test_uncertainty_is_0_where_the_target_is_sure_and_1_where_it_knows_nothing() -> None:
    """Row 49: peaked logits 0, even logits 1, two equal halves log 2 / log V; of a model, that of its last token whatever pads the row."""
    peaked = torch.full((VOCABULARY,), -1e4)
    peaked[3] = 1e4
    assert normalised_entropy(peaked).item() == 0
    assert normalised_entropy(torch.zeros(VOCABULARY)).item() == pytest.approx(1)
    peaked[5] = 1e4
    assert normalised_entropy(peaked).item() == pytest.approx(
        float(torch.log(torch.tensor(2.0)) / torch.log(torch.tensor(float(VOCABULARY))))
    )
    plain = copy.deepcopy(model())
    target = BridgedTarget(plain, spec_of("v12u"))
    ids, _ = texts()
    found = uncertainty(target, ids, STARTS)
    for row, start in enumerate(PREFIXES):
        assert float(uncertainty(target, ids[row : row + 1, :start])) == pytest.approx(float(found[row]), rel=1e-4)
    with torch.no_grad():
        plain.lm_head.weight.zero_()
    assert uncertainty(target, ids).tolist() == pytest.approx([1, 1, 1])
    with torch.no_grad():
        plain.lm_head.weight.copy_(torch.randn(VOCABULARY, HIDDEN) * 1e4)
    assert float(uncertainty(target, ids).max()) < 1e-3


def test_questions_without_an_answer_are_refused() -> None:
    """A row with nothing scored, or without a prefix; a mask that is none."""
    target = BridgedTarget(model(), spec_of("v11"))
    ids, scored = texts()
    with pytest.raises(InputError, match="at least one scored"):
        target.nll(ids, torch.zeros_like(scored), injection.none())
    with pytest.raises(InputError, match="at least one scored"):
        target.nll(ids, scored.long(), injection.none())
    with pytest.raises(InputError, match="nothing before it"):
        target.nll(ids, torch.ones_like(scored), injection.none())
    with pytest.raises(SpecError, match="an injection is"):
        Injection(soft=torch.zeros(1, 1, HIDDEN), delta=torch.zeros_like)


@pytest.mark.parametrize("name", ["v7", "v12", "c2c"])
def test_targets_in_half_precision_take_it_too(name: str) -> None:
    """bfloat16: finite losses, and gradients in the bridge's float32."""
    target, bridge = bridged(spec_of(name))
    half = BridgedTarget(copy.deepcopy(target.model).to(torch.bfloat16), target.spec)
    ids, scored = texts()
    loss = half.nll(ids, scored, bridge.inject(said(bridge))).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert bool(torch.isfinite(loss))
    assert all(item.grad is not None and item.grad.dtype == torch.float32 for item in bridge.parameters())


def test_a_cache_is_changed_where_the_source_has_read_as_much_and_nowhere_else() -> None:
    """Nothing is added where no source token ends with the target's, nor to the prefix's last token; at the start nothing at all."""
    target, bridge = bridged(spec_of("c2c"))
    keys, values = torch.randn(3, 2, 6, 8), torch.randn(3, 2, 6, 8)
    fields = fields_of()
    fields[0].mask[0, 2] = fields[1].mask[0, 2] = False
    start = bridge.inject(fields)
    assert start.fuse is not None
    assert all(not item.any() for layer in range(3) for item in start.fuse(layer, keys, values))
    moved(bridge)
    made = bridge.inject(fields)
    assert made.fuse is not None
    for layer in range(3):
        for added in made.fuse(layer, keys, values):
            assert added.any(dim=-1).any(dim=1).tolist() == [[True, True, False, True, True, False], [True] * 6, [True] * 3 + [False] * 3]
    ids, scored = texts()
    before = target.nll(ids, scored, made)
    for field in fields:
        for row, count in enumerate(PREFIXES):
            field.states[row, count - 1] = 7.0
    assert target.nll(ids, scored, bridge.inject(fields)).tolist() == before.tolist()


def test_gates_of_a_cache_are_soft_in_training_and_open_or_shut_at_test() -> None:
    """A gate whose logit is negative lets nothing through at test, sigmoid(logit / T) of it in training; annealing closes it there too."""
    _, bridge = bridged(spec_of("c2c"))
    moved(bridge)
    with torch.no_grad():
        for name, item in bridge.named_parameters():
            if name.endswith("logit"):
                item.fill_(-1.0)
    keys, values = torch.randn(3, 2, 6, 8), torch.randn(3, 2, 6, 8)

    def size() -> float:
        made = bridge.inject(fields_of())
        assert made.fuse is not None
        with torch.no_grad():
            return float(sum(length(item).sum() for item in made.fuse(1, keys, values)))

    warm = size()
    assert warm > 0
    bridge.anneal(0.1)
    assert 0 < size() < warm / 100
    bridge.eval()
    assert size() == 0
