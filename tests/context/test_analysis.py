"""The measure works: 0 where nothing depends on the query, the known value where something does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gcnet.context import (
    AveragePool,
    ContextBlock,
    GlobalContext,
    NonLocal,
    SimplifiedNonLocal,
    SqueezeExcitation,
)
from gcnet.context.look import (
    BlockStatistics,
    cosine_distance,
    covered_share,
    jensen_shannon,
    mean_statistics,
    measure,
    sample_positions,
)

LN2 = math.log(2)


class LooksAtItself(nn.Module):
    """Each position attends to itself alone: as dependent on the query as attention can be."""

    def attention(self, x: Tensor, queries: Tensor) -> Tensor:
        weights = torch.eye(x[0, 0].numel(), dtype=x.dtype)[queries]
        return weights.expand(len(x), -1, -1).reshape(len(x), len(queries), *x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        return x


class LooksElsewhere(LooksAtItself):
    """The first `part` of the positions attend to the first position, all others to the last."""

    def __init__(self, part: int) -> None:
        super().__init__()
        self.part = part

    def attention(self, x: Tensor, queries: Tensor) -> Tensor:
        weights = x.new_zeros(len(x), len(queries), x[0, 0].numel())
        weights[:, queries < self.part, 0] = 1
        weights[:, queries >= self.part, -1] = 1
        return weights.reshape(len(x), len(queries), *x.shape[2:])


def all_pairs(vectors: Tensor) -> Tensor:
    """The definition, word for word."""
    similarity = torch.cosine_similarity(vectors[:, :, None].double(), vectors[:, None].double(), dim=3)
    return ((1 - similarity) / 2).mean(dim=(1, 2))


def statistics(block: nn.Module, x: Tensor, **options: int) -> list[BlockStatistics]:
    with measure(block, **options) as found, torch.no_grad():
        block(x)
    ((name, images),) = found.items()
    assert name == ""
    return images


def randomised(block: nn.Module, seed: int = 0) -> nn.Module:
    """A block whose last layer is not zero any more."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in block.parameters():
        parameter.data.normal_(std=0.5, generator=generator)
    return block


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("positions", [1, 2, 7, 60])
def test_cosine_distance_is_the_mean_over_all_pairs(positions: int) -> None:
    vectors = inputs(3, positions, 5)
    torch.testing.assert_close(cosine_distance(vectors), all_pairs(vectors), rtol=1e-12, atol=1e-15)


def test_cosine_distance_goes_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = inputs(2, 50, 4)
    vectors[1, :20] = 0  # the first pieces of the second image have no direction
    whole = cosine_distance(vectors)
    monkeypatch.setattr("gcnet.context.look.CHUNK", 7)
    torch.testing.assert_close(cosine_distance(vectors), whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(whole[1], all_pairs(vectors[1:, 20:])[0], rtol=1e-12, atol=0)


def test_cosine_distance_of_known_sets() -> None:
    axes = torch.eye(4)[None]
    assert cosine_distance(axes).item() == pytest.approx(0.5 * 3 / 4, abs=1e-15)
    assert cosine_distance(torch.cat([axes, -axes], 1)).item() == pytest.approx(0.5, abs=1e-15)
    assert (
        cosine_distance(axes.expand(2, -1, -1) * torch.tensor([1.0, 1e-30])[:, None, None]).tolist()
        == [pytest.approx(0.375)] * 2
    )
    assert cosine_distance(torch.zeros(1, 3, 4)).isnan().all()


def test_equal_vectors_are_at_distance_exactly_0_and_tiny_distances_keep_their_digits() -> None:
    one = inputs(2, 1, 33)
    assert cosine_distance(one.expand(-1, 977, -1)).tolist() == [0.0, 0.0]
    nearly = one.double().expand(-1, 50, -1) + 1e-9 * inputs(2, 50, 33).double()
    unit = nearly / nearly.norm(dim=2, keepdim=True)
    away = unit - unit[:, :1]
    exact = (away[:, :, None] - away[:, None]).square().sum(3).mean(dim=(1, 2)) / 4
    assert 0 < exact.max() < 1e-17  # far below what 1 - cos can resolve
    torch.testing.assert_close(cosine_distance(nearly), exact, rtol=1e-6, atol=0)


def test_jensen_shannon_is_the_mean_over_all_pairs() -> None:
    maps = inputs(2, 9, 20).softmax(dim=2)
    p, q = maps[:, :, None].double(), maps[:, None].double()
    definition = 0.5 * (p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log()).sum(3)
    torch.testing.assert_close(jensen_shannon(maps), definition.mean(dim=(1, 2)), rtol=1e-9, atol=0)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_jensen_shannon_of_known_maps(count: int) -> None:
    disjoint = torch.eye(count)[None]
    assert jensen_shannon(disjoint).item() == pytest.approx(LN2 * (1 - 1 / count), abs=1e-15)
    same = inputs(2, 1, 1001).softmax(2).expand(-1, count, -1)
    assert jensen_shannon(same).tolist() == [0.0, 0.0]


def test_covered_share_of_known_maps() -> None:
    uniform, point = torch.full((1, 1, 8), 1 / 8), torch.eye(8)[None, :1]
    assert covered_share(uniform).item() == pytest.approx(1)
    assert covered_share(point).item() == pytest.approx(1 / 8)
    assert covered_share(torch.cat([uniform, point], 1)).item() == pytest.approx(9 / 16)
    half = torch.tensor([[[0.25] * 4 + [0.0] * 4]])
    assert covered_share(half).item() == pytest.approx(0.5)


@pytest.mark.parametrize("queries", [10, 1000])
@pytest.mark.parametrize("block", [GlobalContext(32), SimplifiedNonLocal(32)], ids=["gc", "snl"])
def test_shared_attention_is_exactly_independent_of_the_query(block: nn.Module, queries: int) -> None:
    x = inputs(3, 32, 12, 9)
    images = statistics(randomised(block), x, queries=queries)
    assert len(images) == 3
    for image, vectors in zip(images, x.flatten(2).transpose(1, 2), strict=True):
        assert (image.context, image.attention, image.jsd) == (0.0, 0.0, 0.0)
        assert image.input == pytest.approx(all_pairs(vectors[None]).item())
        assert image.output != image.input
        assert image.share is not None
        assert 1 / 108 < image.share < 1
        assert image.positions == 108
        assert image.queries == min(queries, 108)


@pytest.mark.parametrize(
    "block",
    [SqueezeExcitation(32, ratio=0.5), GlobalContext(32, ratio=0.5, pooling="average")],
    ids=["se", "mean"],
)
def test_blocks_without_a_map_have_features_to_measure(block: nn.Module) -> None:
    (image,) = statistics(randomised(block), inputs(1, 32, 6, 6))
    assert (image.context, image.attention, image.jsd, image.share) == (0.0, None, None, None)
    assert image.queries == 0
    assert image.output is not None
    assert image.output > 0.1


def test_a_fresh_block_adds_nothing_that_had_a_direction() -> None:
    (image,) = statistics(GlobalContext(32), inputs(1, 32, 6, 6))
    assert image.context is None
    assert image.output == image.input


@pytest.mark.parametrize("size", [(5, 4), (40,), (3, 4, 5)])
def test_attention_that_is_the_position_itself_is_as_dependent_as_can_be(size: tuple[int, ...]) -> None:
    block = ContextBlock(LooksAtItself(), add=nn.Identity())
    x = inputs(2, 8, *size)
    positions = math.prod(size)
    for image in statistics(block, x, queries=positions):
        assert image.jsd == pytest.approx(LN2 * (1 - 1 / positions), rel=1e-12)
        assert image.attention == pytest.approx(0.5 * (1 - 1 / positions), rel=1e-12)
        assert image.share == pytest.approx(1 / positions)
        assert image.context == pytest.approx(image.input)
        assert image.output == pytest.approx(image.input)  # x + x


def test_two_camps_of_queries() -> None:
    """A third of the queries look at one end, the others at the other: 2 * 1/3 * 2/3 of the pairs differ."""
    block = ContextBlock(LooksElsewhere(10), add=nn.Identity())
    (image,) = statistics(block, inputs(1, 8, 5, 6))
    assert image.jsd == pytest.approx(LN2 * 4 / 9, rel=1e-12)
    assert image.attention == pytest.approx(0.5 * 4 / 9, rel=1e-12)


def test_a_sample_of_queries_estimates_the_whole() -> None:
    block, x = ContextBlock(LooksElsewhere(75), add=nn.Identity()), inputs(1, 2, 15, 15)
    estimates = [statistics(block, x, queries=64, seed=seed)[0].jsd or 0 for seed in range(40)]
    exact = statistics(block, x, queries=225)[0].jsd
    assert exact == pytest.approx(LN2 * 4 / 9, rel=1e-12)
    assert sum(estimates) / 40 == pytest.approx(exact, rel=0.02)  # unbiased: the error of one is 3 %
    assert max(abs(estimate - exact) for estimate in estimates) > 1e-3
    whole = ContextBlock(LooksAtItself(), add=nn.Identity())
    assert statistics(whole, x, queries=64)[0].jsd == pytest.approx(LN2 * (1 - 1 / 225), rel=1e-12)


def test_non_local_blocks_against_the_definition() -> None:
    block, x = randomised(NonLocal(8)), inputs(2, 8, 5, 4)
    images = statistics(block, x)
    assert isinstance(block, NonLocal)
    with torch.no_grad():
        maps = block.attention(x, torch.arange(20)).flatten(2)
        term = block.add(block.pool(x)).flatten(2).transpose(1, 2)
    for index, image in enumerate(images):
        one = slice(index, index + 1)
        assert image.attention == pytest.approx(all_pairs(maps[one]).item(), rel=1e-9)
        assert image.jsd == pytest.approx(jensen_shannon(maps[one]).item(), rel=1e-12)
        assert image.jsd is not None
        assert image.jsd > 0.01
        assert image.context == pytest.approx(all_pairs(term[one]).item(), rel=1e-9)


@pytest.mark.parametrize("mode", ["dot_product", "concatenation"])
def test_weights_that_are_no_probabilities_have_no_divergence(mode: str) -> None:
    (image,) = statistics(randomised(NonLocal(8, mode=mode)), inputs(1, 8, 5, 4))  # type: ignore[arg-type]
    assert image.jsd is None
    assert image.share is None
    assert image.attention is not None
    assert image.attention > 0


def test_sub_sampled_keys_and_single_positions() -> None:
    block = randomised(NonLocal(8, sub_sample=True))
    (image,) = statistics(block, inputs(1, 8, 6, 4))
    assert image.positions == 24
    assert image.jsd is not None
    (alone,) = statistics(randomised(NonLocal(8)), inputs(1, 8, 1, 1))
    assert (alone.jsd, alone.attention, alone.input, alone.share) == (0.0, 0.0, 0.0, 1.0)


def test_hooks_go_and_outputs_stay() -> None:
    model = nn.Sequential(
        randomised(GlobalContext(8, ratio=0.5)), nn.Conv2d(8, 8, 1), randomised(NonLocal(8))
    )
    x = inputs(2, 8, 4, 4).requires_grad_()
    expected = model(x)
    with measure(model) as found:
        assert torch.equal(model(x), expected)
        model(x)
    assert {name: len(images) for name, images in found.items()} == {"0": 4, "2": 4}
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="at least 2 queries"), measure(model, queries=1):
        pass


def test_means_leave_out_what_is_missing() -> None:
    one = BlockStatistics(positions=10, queries=10, input=0.2, context=None, output=0.4, jsd=0.1)
    two = BlockStatistics(positions=20, queries=20, input=0.4, context=0.3, output=0.4, jsd=None)
    mean = mean_statistics([one, two])
    assert (mean.positions, mean.input, mean.context, mean.jsd, mean.share) == (
        15,
        pytest.approx(0.3),
        0.3,
        0.1,
        None,
    )


def test_samples_are_all_or_the_same_few() -> None:
    assert sample_positions(5, 8, 0).tolist() == [0, 1, 2, 3, 4]
    few = sample_positions(1000, 8, 0)
    assert len(set(few.tolist())) == 8
    assert torch.equal(few, sample_positions(1000, 8, 0))
    assert not torch.equal(few, sample_positions(1000, 8, 1))


def test_average_pool_has_no_attention_of_its_own() -> None:
    block = ContextBlock(AveragePool(), add=nn.Linear(4, 4))
    assert statistics(block, inputs(1, 4, 3, 3))[0].attention is None
