"""Episodes: reproducible, without replacement, never the query; lists that cannot be tampered."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from svfseg.data import (
    Index,
    TestEpisodes,
    TrainEpisodes,
    base_split,
    collate,
    draw_episode,
    draw_test_list,
    novel_split,
    read_episodes,
    write_episodes,
)
from svfseg.data.index import Sample


def made_index(count: int = 40, size: tuple[int, int] = (40, 50)) -> Index:
    """Images with one of four classes, some with two."""

    def load(position: int) -> Sample:
        rng = np.random.default_rng(position)
        mask = np.zeros(size, np.uint8)
        mask[5:25, 5:30] = 1 + position % 4
        if position % 5 == 0:
            mask[26:36, 30:45] = 1 + (position + 1) % 4
        mask[0] = 255
        return Sample(rng.integers(0, 255, (*size, 3), np.uint8), mask)

    def pixels(position: int) -> dict[int, int]:
        found = {1 + position % 4: 500}
        return found | ({1 + (position + 1) % 4: 150} if position % 5 == 0 else {})

    return Index(
        "made",
        ("ant", "bee", "cow", "dog"),
        ((1, 2), (3, 4)),
        tuple(f"im{i}" for i in range(count)),
        tuple(pixels(i) for i in range(count)),
        load,
        min_pixels=200,
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 10**5), st.integers(1, 5), st.booleans())
def test_episode_rules(seed: int, index: int, shot: int, in_order: bool) -> None:
    source = novel_split(made_index(), 0)
    episode = draw_episode(source, shot, seed, index, in_order)
    assert episode == draw_episode(source, shot, seed, index, in_order)
    assert episode.class_id in source.classes
    assert episode.query in source.queries
    assert episode.class_id in source.index.pixels[episode.query]
    assert len(set(episode.support)) == shot
    assert episode.query not in episode.support
    assert set(episode.support) <= set(source.images[episode.class_id])
    if in_order:
        assert episode.query == source.queries[index % len(source.queries)]


def test_training_passes_over_every_image_in_a_new_order() -> None:
    source = base_split(made_index(), 0)
    count = len(source.queries)
    passes = [
        [draw_episode(source, 1, 3, p * count + i).query for i in range(count)] for p in (0, 1)
    ]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(source.queries)
    assert passes[0] != passes[1]


def test_seeds_give_other_episodes() -> None:
    source = novel_split(made_index(), 0)
    assert draw_test_list(source, 1, 1, 50) != draw_test_list(source, 1, 2, 50)
    assert draw_test_list(source, 1, 1, 50)[:20] == draw_test_list(source, 1, 1, 20)


@pytest.mark.parametrize("shot", [1, 3])
def test_the_same_tensors_on_any_number_of_workers(shot: int) -> None:
    stream = TrainEpisodes(base_split(made_index(), 0), shot, 5, 6, 33, (0.8, 1.2), False)
    alone, several = (
        list(DataLoader(stream, 2, num_workers=n, collate_fn=collate)) for n in (0, 2)
    )
    for a, b in zip(alone, several, strict=True):
        assert a["class_id"] == b["class_id"]
        for name in ("query", "support", "support_mask", "target"):
            assert torch.equal(a[name], b[name])
    assert alone[0]["support"].shape == (2, shot, 3, 33, 33)
    assert alone[0]["support_mask"].shape == (2, shot, 33, 33)
    values = set(torch.cat([a["target"].unique() for a in alone]).tolist())
    assert values <= {0, 1, 255}


def test_test_items_follow_the_published_path() -> None:
    index = made_index()
    episodes = draw_test_list(novel_split(index, 0), 2, 0, 3)
    item = TestEpisodes(index, episodes, 33)[0]
    assert item["query"].shape == (3, 33, 33)
    assert item["original"].shape == (40, 50)
    assert item["support"].shape == (2, 3, 33, 33)
    # 50 -> 33 floored to 32; 40 * 33 / 50 = 26.4 -> 24; black to the right and below
    assert (item["query"][:, 24:] == 0).all()
    assert (item["query"][:, :, 32:] == 0).all()
    assert (item["target"][24:] == 255).all()
    assert (item["target"][:24, :32].unique()).tolist() in ([0, 1], [0, 1, 255])


def test_lists_are_written_and_read_back(tmp_path: Path) -> None:
    index = made_index()
    episodes = draw_test_list(novel_split(index, 1), 2, 9, 30)
    write_episodes(tmp_path / "list.json", index, episodes)
    assert read_episodes(tmp_path / "list.json", index) == episodes


def test_changed_lists_are_refused(tmp_path: Path) -> None:
    index, path = made_index(), tmp_path / "list.json"
    write_episodes(path, index, draw_test_list(novel_split(index, 1), 1, 9, 3))
    content = json.loads(path.read_text())
    content["episodes"][0]["query"] = "im1"
    (tmp_path / "changed.json").write_text(json.dumps(content))
    (tmp_path / "text.json").write_text("[")
    (tmp_path / "format.json").write_text(json.dumps({**json.loads(path.read_text()), "format": 9}))
    fewer = Index(index.name, index.classes, index.folds, ("im0",), index.pixels[:1], index.load)
    for name, source, message in (
        ("changed", index, "was changed after it was written"),
        ("text", index, "is not a list of episodes"),
        ("format", index, "has format 9"),
        ("list", fewer, "which made does not have"),
        ("none", index, "no episode list at"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_episodes(tmp_path / f"{name}.json", source)


def test_too_few_images_for_the_shots() -> None:
    source = novel_split(made_index(8), 0)
    with pytest.raises(ValueError, match=r"for 5 shot\(s\) and a query: ant \(2\), bee \(2\)"):
        draw_test_list(source, 5, 0, 1)
    with pytest.raises(ValueError, match="needs at least 1 support"):
        draw_test_list(source, 0, 0, 1)
