"""The parts of many-worlds training, each against its formula: places, substrate, adapters, losses, closed forms, pictures."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import InputError, SpecError
from stages.many_worlds import adapter, baselines, losses, picture, positions, substrate, tensor_file
from stages.many_worlds.adapter import Adapter
from stages.many_worlds.settings import Objective
from stages.many_worlds.substrate import Substrate
from stages.many_worlds.world import AdapterShape, World
from store.local import LocalCas
from tests.tiny import make_tokenizer


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- places --------------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_ends_of_byte_level_tokens_cut_the_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Ends rise to the length of the text, and the bytes between two ends are those of the token, inside of characters too."""
    from stages.hf_tokenizer import HfTokenizer

    folder = tmp_path_factory.getbasetemp() / "tokenizer"
    if not folder.exists():
        make_tokenizer(folder)
    tokenizer = HfTokenizer(folder)
    data = text.encode()
    ids, ends = positions.token_ends(tokenizer, data)
    assert ids == tokenizer.encode(text, add_special=False)
    assert ends == sorted(ends)
    assert (ends[-1] if ends else 0) == len(data)
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        whole = tokenizer.decode(ids[number : number + 1])
        if "�" not in whole:
            assert data[start:end].decode() == whole


@pytest.mark.parametrize(
    ("names", "text", "ends"),
    [
        (["▁the", "▁mill"], "the mill", [3, 8]),
        (["the", "▁mill"], "the mill", [3, 8]),
        (["▁n", "a", "<0xC3>", "<0xAF>", "ve"], "naïve", [1, 2, 3, 4, 6]),
        (["▁", "a"], "a", [0, 1]),
        (["other"], "text", None),
    ],
)
def test_ends_of_sentencepiece_tokens(names: list[str], text: str, ends: list[int] | None) -> None:
    """A blank that the tokenizer puts in front counts for nothing; tokens that do not spell the text are not guessed at."""
    assert positions.ends_by_text(names, text.encode()) == ends


def test_offsets_with_gaps_name_no_place_before_the_gap() -> None:
    """Where trimmed blanks belong to nobody, it is not known what the token before has read; multi-byte characters count in bytes."""
    assert positions.ends_by_offsets([(0, 2), (3, 5)], "né ok") == [-1, 6]
    assert positions.ends_by_offsets([(0, 2), (2, 5)], "né ok") == [3, 6]
    assert positions.last_at([-1, 0, 3, 3, 5]) == {3: 3, 5: 4}


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 30))
def test_texts_are_cut_at_characters(text: str, most: int) -> None:
    """The cut is a beginning of whole characters, and one more would not fit."""
    data = positions.cut(text, most)
    assert text.startswith(data.decode())
    assert len(data) <= most
    assert data == text.encode() or len(text[: len(data.decode()) + 1].encode()) > most


def test_prefix_keys_name_what_was_read() -> None:
    """A place's key is the key of the bytes before it, so two texts with one beginning have one key there."""
    data = b"a common start"
    assert positions.prefix_keys(data, [1, 8, 14]) == [positions.key_of(data[:end]) for end in (1, 8, 14)]


# --- substrate and adapters ----------------------------------------------------------------------------------------------------


def test_parameter_counts_equal_the_formulas() -> None:
    """985,090, 1,247,746 and 1,510,402 for h = 1536, 2048, 2560 at r = d = 256; 32,897 for the substrate; counted, not only computed."""
    assert sum(item.numel() for item in Substrate(256, 128, seeded()).parameters()) == substrate.parameter_count(256, 128) == 32_897
    for hidden, count in ((1536, 985_090), (2048, 1_247_746), (2560, 1_510_402)):
        pair = Adapter(hidden, 256, 256, generator=seeded())
        assert sum(item.numel() for item in pair.parameters()) == adapter.parameter_count(hidden, 256, 256) == count
        assert sum(item.numel() for item in pair.project.parameters()) == adapter.project_count(hidden, 256, 256)


def test_write_and_read_equal_the_formula() -> None:
    """The field is softmax_k(-|mean - B_k|^2 / 2 / (mean variance + 1e-6) / T), with log variances cut to -6..6; reading is field . B."""
    space = Substrate(8, 5, seeded()).double()
    with torch.no_grad():
        space.norms.copy_(torch.tensor([0.5, 1.0, 2.0, 1.5, 0.7]))
        space.log_temperature.fill_(0.3)
    mean, log_variance = torch.randn(3, 8, generator=seeded(1)).double(), 8 * torch.randn(3, 8, generator=seeded(2)).double()
    bases = space.bases().detach().numpy()
    assert np.linalg.norm(bases, axis=1) == pytest.approx([0.5, 1.0, 2.0, 1.5, 0.7])
    variance = np.exp(np.clip(log_variance.numpy(), -6, 6)).mean(axis=1, keepdims=True) + 1e-6
    away = np.square(mean.numpy()[:, None] - bases).sum(axis=2)
    weights = np.exp(-0.5 * away / variance / math.exp(0.3) + 0.5 * away.min(axis=1, keepdims=True) / variance / math.exp(0.3))
    weights /= weights.sum(axis=1, keepdims=True)
    field = space.write(mean, log_variance)
    assert field.detach().numpy() == pytest.approx(weights, abs=1e-12)
    assert space.read(field).detach().numpy() == pytest.approx(weights @ bases, abs=1e-12)
    query = (torch.randn(3, 8, generator=seeded(3)).double(), torch.zeros(3, 8).double())
    both = weights * space.write(*query).detach().numpy()
    assert space.read(field, query).detach().numpy() == pytest.approx(both / both.sum(axis=1, keepdims=True) @ bases, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-50, 50))
def test_a_field_is_weights(seed: int, size: float) -> None:
    """Whatever is written, the weights are not negative and sum to 1, and what is read lies among the bases."""
    space = Substrate(6, 9, seeded(seed))
    field = space.write(size * torch.randn(4, 6, generator=seeded(seed)), size * torch.randn(4, 6, generator=seeded(seed + 1)))
    assert (field >= 0).all()
    assert field.sum(dim=1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert (space.read(field).norm(dim=1) <= space.bases().norm(dim=1).max() + 1e-5).all()


def test_bases_start_orthogonal() -> None:
    """With no more Gaussians than dimensions the first bases are orthogonal and of length 1."""
    bases = Substrate(16, 8, seeded()).bases().detach()
    assert (bases @ bases.T).numpy() == pytest.approx(np.eye(8), abs=1e-5)


def test_a_disabled_adapter_says_nothing() -> None:
    """Without its adapter a model is as it was: Project and Read give zeros, exactly."""
    pair = Adapter(12, 4, 8, generator=seeded())
    states = torch.randn(3, 12, generator=seeded(1))
    assert pair.encode(states)[0].abs().sum() > 0
    assert pair.decode(torch.randn(3, 8, generator=seeded(2))).abs().sum() > 0
    pair.enabled = False
    assert not any(item.any() for item in (*pair.encode(states), pair.decode(torch.randn(3, 8))))
    assert pair.decode(torch.randn(3, 8)).shape == (3, 12)


def test_units_are_undone() -> None:
    """Standard states are made of states and back without loss."""
    pair = Adapter(5, 4, 8, generator=seeded())
    pair.center.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    pair.spread.copy_(torch.tensor([0.1, 1.0, 10.0, 100.0, 1000.0]))
    states = torch.randn(7, 5, generator=seeded(1)) * pair.spread + pair.center
    assert torch.allclose(pair.native(pair.standard(states)), states, rtol=1e-5)


# --- losses --------------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 1000), st.sampled_from([0.07, 0.5, 1.0]))
def test_info_nce_equals_its_sum_and_is_never_zero(rows: int, dim: int, seed: int, temperature: float) -> None:
    """The mean over both directions of -log(e^own / sum e^all), term by term; above 0 for every batch that is allowed."""
    left, right = (torch.randn(rows, dim, generator=seeded(seed + n), dtype=torch.float64) for n in (0, 1))
    found = losses.info_nce(left, right, temperature).item()
    cosines = [[float(torch.cosine_similarity(a, b, dim=0)) / temperature for b in right] for a in left]
    terms = []
    for number in range(rows):
        for others in (cosines[number], [cosines[other][number] for other in range(rows)]):
            terms.append(-math.log(math.exp(cosines[number][number]) / sum(map(math.exp, others))))
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-9, abs=1e-12)
    assert found > 0


def test_info_nce_of_one_pair_is_refused() -> None:
    """A batch of one would give 0 whatever the models do, so there is none."""
    with pytest.raises(SpecError, match="at least 2"):
        losses.info_nce(torch.ones(1, 4), torch.ones(1, 4), 0.07)


def test_info_nce_of_equal_rows_is_log_b() -> None:
    """Where all rows are alike the loss is log B: nothing is told apart, and the loss says so."""
    assert losses.info_nce(torch.ones(8, 3), torch.ones(8, 3), 0.07).item() == pytest.approx(math.log(8), rel=1e-6)


def test_distances_and_native_preservation() -> None:
    """Both mse and l1 are means over all numbers, cosine is 1 - the mean cosine; a scale is punished only beyond 1, of either sign."""
    found, wanted = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert losses.distance(found, wanted, "mse").item() == pytest.approx(0.5)
    assert losses.distance(found, wanted, "l1").item() == pytest.approx(0.5)
    assert losses.distance(found, wanted, "cosine").item() == pytest.approx(1 - (math.sqrt(0.5) + 1) / 2)
    assert [losses.native_preservation(torch.tensor(s)).item() for s in (0.5, 1.0, 3.0, -3.0)] == [0, 0, 4, 4]


def world(*, seed: int = 0, scale: float = 1.0, temperature: float = 0.07) -> World:
    return World(
        16, 8, {"one": AdapterShape(12, 6), "two": AdapterShape(20, 6)}, seed=seed, scale=scale, dropout=0.0, temperature=temperature
    )


def states(rows: int = 10) -> dict[str, torch.Tensor]:
    return {"one": torch.randn(rows, 12, generator=seeded(5)), "two": torch.randn(rows, 20, generator=seeded(6))}


@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize("distance", ["mse", "l1"])
def test_a_gradient_reaches_every_parameter_at_step_one(scale: float, distance: losses.Distance) -> None:
    """Bases, norms and temperature of the substrate, log variances, scales, both heads: nothing is dead, at any size of the first scale."""
    objective = Objective(round_trip_distance=distance, learn_temperature=True)
    made = world(scale=scale)
    torch.autograd.backward(made.losses(states(), objective)["loss"])
    trained = dict(made.trained(objective, ""))
    assert set(trained) == {name for name, _ in made.named_parameters()}
    dead = [name for name, value in trained.items() if value.grad is None or not value.grad.abs().max() > 0]
    assert dead == []


def test_cosine_sees_no_sizes() -> None:
    """The one exception: with cosine as the distance Read's scale has no gradient, by arithmetic, and all else has."""
    made = world()
    torch.autograd.backward(made.losses(states(), Objective(round_trip_distance="cosine"))["loss"])
    size = {name: 0.0 if value.grad is None else float(value.grad.abs().max()) for name, value in made.named_parameters()}
    blind = {name for name in size if name.endswith("read.scale")} | {"contrast_log_temperature"}
    assert {name for name, value in size.items() if value > 1e-6} >= set(size) - blind
    assert max(value for name, value in size.items() if name.endswith("read.scale")) < 1e-6


def test_contrastive_alone_trains_no_reader() -> None:
    """What is not in the loss is not moved by it: with contrastive alone Read keeps its first weights, and all else learns."""
    made = world()
    torch.autograd.backward(made.losses(states(), Objective(round_trip=0.0, cross_model=0.0, native=0.0))["loss"])
    still = {name for name, value in made.named_parameters() if value.grad is None or not value.grad.any()}
    assert still == {name for name, _ in made.named_parameters() if ".read." in name} | (still & {"contrast_log_temperature"})


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    """Each part is what its own formula gives on points that went through the substrate."""
    made, batch = world(), states()
    objective = Objective(contrastive=2.0, round_trip=3.0, cross_model=0.5)
    parts = made.losses(batch, objective)
    points = {name: made.point(name, batch[name]) for name in batch}
    one, two = (made.direction(points[name]) for name in ("one", "two"))
    assert parts["contrastive"].item() == pytest.approx(losses.info_nce(one, two, 0.07).item(), rel=1e-6)
    back = [((made.adapter(n).decode(points[n]) - batch[n]) ** 2).mean().item() for n in batch]
    assert parts["round_trip"].item() == pytest.approx(sum(back) / 2, rel=1e-6)
    ways = [((made.adapter(b).decode(points[a]) - batch[b]) ** 2).mean().item() for a, b in itertools.permutations(batch, 2)]
    assert parts["cross_model"].item() == pytest.approx(sum(ways) / 2, rel=1e-6)
    total = 2 * parts["contrastive"] + 3 * parts["round_trip"] + 0.5 * parts["cross_model"] + 0.1 * parts["native"]
    assert parts["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_a_new_model_is_all_that_is_trained() -> None:
    """With `new` the trained parameters are those of its adapter, and only losses that it is part of count."""
    made = world()
    names = [name for name, _ in made.trained(Objective(), "two")]
    assert names
    assert all(name.startswith("adapters.of:two.") for name in names)
    parts = made.losses(states(), Objective(), "two")
    own = made.adapter("two").decode(made.point("two", states()["two"]))
    assert parts["round_trip"].item() == pytest.approx(((own - states()["two"]) ** 2).mean().item(), rel=1e-6)


def test_a_model_may_have_any_name() -> None:
    """Names that torch has taken for itself, such as `train`, are names of models too."""
    made = World(16, 8, {"train": AdapterShape(3, 2), "keys": AdapterShape(3, 2)}, seed=0, scale=1.0, dropout=0.0, temperature=0.07)
    assert made.names == ("train", "keys")
    with pytest.raises(InputError, match="no adapter of 'eval'; there are train, keys"):
        made.adapter("eval")


# --- closed forms --------------------------------------------------------------------------------------------------------------


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_ridge_equals_least_squares_on_stretched_rows() -> None:
    """The normal equations give what plain least squares gives when the penalty is written as further rows."""
    x, y = rng(0).normal(size=(50, 4)), rng(1).normal(size=(50, 3))
    rows = np.vstack([x / math.sqrt(50), math.sqrt(0.3) * np.eye(4)])
    expected = np.linalg.lstsq(rows, np.vstack([y / math.sqrt(50), np.zeros((4, 3))]), rcond=None)[0]
    assert baselines.ridge(x, y, 0.3) == pytest.approx(expected)


def test_tuned_ridge_takes_the_penalty_that_predicts_best() -> None:
    """With few noisy rows a larger penalty is chosen than with a clean linear relation."""
    x, noise = rng(0).normal(size=(60, 30)), rng(1).normal(size=(60, 2))
    tuning = np.arange(60) % 3 == 0
    assert baselines.tuned_ridge(x, x @ rng(2).normal(size=(30, 2)), tuning)[1] == baselines.PENALTIES[0]
    assert baselines.tuned_ridge(x, noise, tuning)[1] == baselines.PENALTIES[-1]


def test_procrustes_is_scipys() -> None:
    """Where PCA keeps everything, the turn is the one that scipy finds, and a hidden rotation is found again."""
    from scipy.linalg import orthogonal_procrustes

    x = rng(0).normal(size=(200, 5))
    turn = np.linalg.qr(rng(1).normal(size=(5, 5)))[0]
    maps = baselines.procrustes(x, x @ turn, 5)
    assert x @ maps.left == pytest.approx(x @ turn @ maps.right)
    y = rng(2).normal(size=(200, 5))
    maps = baselines.procrustes(x, y, 5)
    assert maps.left @ maps.right.T == pytest.approx(orthogonal_procrustes(x, y)[0])


def test_canonical_correlations_are_found() -> None:
    """Two noisy views of two hidden numbers agree on the places although nothing else in them does, where a rotation is led astray."""
    hidden = rng(0).normal(size=(3000, 2))
    views = [hidden @ rng(n).normal(size=(2, 6)) + 5 * rng(n + 9).normal(size=(3000, 1)) * rng(n + 5).normal(size=(1, 6)) for n in (1, 2)]
    maps = baselines.canonical_correlation(views[0], views[1], 2, 1e-6)
    turned = baselines.procrustes(views[0], views[1], 2)
    chosen = slice(0, 100)
    by_cca = baselines.hits(views[0][chosen] @ maps.left, views[1][chosen] @ maps.right).mean()
    assert by_cca > baselines.hits(views[0][chosen] @ turned.left, views[1][chosen] @ turned.right).mean() + 0.2


def test_tuned_canonical_correlation_is_one_of_those_that_it_tries() -> None:
    """It is the fit on all rows with a penalty of the list, and finds at least as many of the tuning rows as the worst of them."""
    x = rng(0).normal(size=(200, 6))
    y = x @ rng(1).normal(size=(6, 5)) + rng(2).normal(size=(200, 5))
    tuning = np.arange(200) % 4 == 0
    maps, penalty = baselines.tuned_canonical_correlation(x, y, 4, tuning)
    assert penalty in baselines.PENALTIES
    assert maps.left == pytest.approx(baselines.canonical_correlation(x, y, 4, penalty).left)


def test_principal_directions_are_numpys() -> None:
    """The first directions keep as much as a truncated singular value decomposition, the most that any of that rank can."""
    x = rng(0).normal(size=(100, 8)) @ rng(1).normal(size=(8, 8))
    u, s, v = np.linalg.svd(x, full_matrices=False)
    kept = baselines.principal(x, 3)
    assert x @ kept @ kept.T == pytest.approx((u[:, :3] * s[:3]) @ v[:3])
    assert baselines.principal(x, 99).shape == (8, 8)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 1000), st.integers(1, 17))
def test_hits_equal_a_search_by_hand(rows: int, dim: int, seed: int, block: int) -> None:
    """A place is found when no other candidate is as near; the number of rows compared at a time changes nothing."""
    left, right = rng(seed).normal(size=(rows, dim)), rng(seed + 1).normal(size=(rows, dim))
    unit = [item / np.linalg.norm(item, axis=1, keepdims=True) for item in (left, right)]
    cosines = np.asarray(unit[0], np.float32) @ np.asarray(unit[1], np.float32).T
    expected = [all(cosines[n, n] > cosines[n, m] + 1e-6 for m in range(rows) if m != n) for n in range(rows)]
    close = [any(abs(cosines[n, n] - cosines[n, m]) <= 1e-5 for m in range(rows) if m != n) for n in range(rows)]
    found = baselines.hits(left, right, block)
    assert all(near or a == b for a, b, near in zip(found, expected, close, strict=True))


def test_ties_are_misses() -> None:
    """What maps all places to one point finds nothing, whatever the order of the candidates."""
    assert baselines.hits(np.ones((5, 3)), np.ones((5, 3))).sum() == 0
    assert baselines.hits(np.eye(5), np.eye(5)).all()


def test_r_squared_and_cka() -> None:
    """The mean gives 0, the truth 1; CKA is 1 for a rotation with one scale, and small for unrelated rows."""
    x = rng(0).normal(size=(500, 4))
    assert baselines.r_squared(np.broadcast_to(x.mean(axis=0), x.shape), x) == pytest.approx(0.0)
    assert baselines.r_squared(x, x) == 1.0
    turn = np.linalg.qr(rng(1).normal(size=(4, 4)))[0]
    assert baselines.cka(x, 3 * x @ turn + 7) == pytest.approx(1.0)
    assert baselines.cka(x, rng(2).normal(size=(500, 4))) < 0.05


# --- files and pictures --------------------------------------------------------------------------------------------------------


def test_tensor_files_come_back_and_are_one_sequence_of_bytes(tmp_path: Path) -> None:
    """Every type comes back bit for bit, the order of the names does not matter, and another kind of file is refused by name."""
    store = LocalCas(tmp_path / "store")
    values = {
        "b": torch.randn(3, 2, generator=seeded(), dtype=torch.float32),
        "a": torch.randn(4, generator=seeded()).bfloat16(),
        "none": torch.empty(0, 5),
        "scalar": torch.tensor(1.5),
        "keys": torch.tensor([-(2**63), 2**63 - 1]),
    }
    digest = tensor_file.write(store, "test/v1", {"x": [1, "y"]}, values)
    assert digest == tensor_file.write(store, "test/v1", {"x": [1, "y"]}, dict(reversed(values.items())))
    back = tensor_file.read(store.path(digest), "test/v1")
    assert back.head == {"x": [1, "y"]}
    assert all(torch.equal(back.tensors[name], value) and back.tensors[name].dtype == value.dtype for name, value in values.items())
    with pytest.raises(InputError, match="'test/v1', not 'other/v1'"):
        tensor_file.read(store.path(digest), "other/v1")


def test_losses_are_drawn_as_what_they_are() -> None:
    """The picture is XML without script, draws every line, thins long runs to their means, and refuses what it cannot draw."""
    from xml.etree import ElementTree

    drawn = picture.losses({"<b>": [3.0, 2.0, 1.0], "other": [0.5] * 3}, title="A & B")
    assert {item.tag.rpartition("}")[2] for item in ElementTree.fromstring(drawn).iter()} <= {
        "svg", "title", "style", "rect", "text", "line", "path"
    }  # fmt: skip
    assert drawn.count('fill="none" stroke-width="1.8"') == 2
    assert len(picture.losses({"loss": [float(n % 7) for n in range(50_000)]}, title="long")) < 20_000
    for history in ({"loss": [1.0]}, {"loss": [1.0, math.nan]}, {"a": [1.0, 2.0], "b": [1.0]}, {}):
        with pytest.raises(InputError):
            picture.losses(history, title="x")
