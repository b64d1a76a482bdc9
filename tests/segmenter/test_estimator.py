"""The estimator: manners, answers, and what comes back from its file."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from svfseg import FewShotSegmenter
from svfseg.config import BackboneConfig, ModelConfig
from svfseg.data import stickers
from svfseg.data.index import Sample
from svfseg.models import build_model
from svfseg.models.head import Head, as_head
from svfseg.segmenter import NotFittedError
from svfseg.segmenter.adaptation import (
    FASTER,
    LONGER,
    PRESETS,
    Preset,
    Support,
    _Count,
    _Tuning,
    adapt,
    tunable_copy,
)
from svfseg.segmenter.events import TuningStep, ignore
from svfseg.segmenter.hub import DEFAULT
from svfseg.segmenter.inference import Predictor, by_class

SIZE = 128


@pytest.fixture(scope="module")
def scenes() -> dict[int, list[Sample]]:
    """Scenes with exactly one class, by class id: 1 and others with four or more."""
    index = stickers(0, 60, "test")
    found: dict[int, list[Sample]] = {}
    for position, pixels in enumerate(index.pixels):
        if len(pixels) == 1 and next(iter(pixels.values())) > 4000:
            (class_id,) = pixels
            sample = index.load(position)
            found.setdefault(class_id, []).append(
                Sample(sample.image, (sample.mask == class_id).astype(np.uint8))
            )
    return {c: s for c, s in found.items() if len(s) >= 3}


def of(scenes: dict[int, list[Sample]], number: int = 0) -> list[Sample]:
    return list(scenes.values())[number]


def tiny(**parameters: object) -> FewShotSegmenter:
    return FewShotSegmenter(size=SIZE, device="cpu", **parameters)


def iou(mask: np.ndarray, target: np.ndarray) -> float:
    return float(((mask == 1) & (target == 1)).sum() / ((mask == 1) | (target == 1)).sum())


@pytest.fixture(scope="module")
def fitted(scenes: dict[int, list[Sample]]) -> FewShotSegmenter:
    first = of(scenes)
    return tiny().fit([s.image for s in first[:2]], [s.mask for s in first[:2]], ["thing"])


def test_it_finds_the_class_and_not_much_else(
    fitted: FewShotSegmenter, scenes: dict[int, list[Sample]]
) -> None:
    sample = of(scenes)[2]
    found = tiny(threshold=0.5, reject_absent=False).fit(
        [s.image for s in of(scenes)[:2]], [s.mask for s in of(scenes)[:2]]
    ).predict(sample.image)  # fmt: skip
    assert iou(found.mask, sample.mask) > 0.35
    answer = fitted.predict(sample.image)
    assert answer.classes == ("thing",)
    assert set(answer.confidence) == {"thing"}
    assert 0 <= answer.least_confidence <= 1
    assert answer.mask.shape == sample.mask.shape == answer.probabilities.shape[1:]
    assert answer.mask.dtype == np.uint8
    assert set(np.unique(answer.mask)) <= {0, 1}


def test_scikit_learns_manners(scenes: dict[int, list[Sample]]) -> None:
    segmenter = tiny(adapt="svf", steps=3)
    twin = clone(segmenter)
    assert twin.get_params() == segmenter.get_params()
    assert twin is not segmenter
    assert repr(twin) == "FewShotSegmenter(adapt='svf', steps=3, size=128, device='cpu')"
    with pytest.raises(ValueError, match="unknown parameter sise"):
        twin.set_params(sise=3)
    with pytest.raises(NotFittedError, match="call fit"):
        twin.predict(of(scenes)[0].image)
    with pytest.raises(AttributeError):
        twin.save("nowhere.svf")
    sample = of(scenes)[0]
    assert twin.set_params(adapt=None).fit(sample.image, sample.mask) is twin
    twin.predict([sample.image])
    mask = twin.predict(sample.image).mask
    twin.set_params(batch=2)
    assert np.array_equal(twin.predict(sample.image).mask, mask)


def test_paths_pictures_and_arrays_are_one(scenes: dict[int, list[Sample]], tmp_path: Path) -> None:
    sample, query = of(scenes)[0], of(scenes)[2].image
    Image.fromarray(sample.image).save(tmp_path / "a.png")
    Image.fromarray(sample.mask * 255).save(tmp_path / "m.png")
    Image.fromarray(query).save(tmp_path / "q.png")
    answers = [
        tiny().fit(image, mask).predict(asked)
        for image, mask, asked in (
            (sample.image, sample.mask, query),
            (tmp_path / "a.png", str(tmp_path / "m.png"), tmp_path / "q.png"),
            (
                Image.open(tmp_path / "a.png"),
                Image.open(tmp_path / "m.png"),
                Image.fromarray(query),
            ),
            ([sample.image], [sample.mask.astype(bool)], query),
        )
    ]
    for other in answers[1:]:
        assert np.array_equal(answers[0].probabilities, other.probabilities)


def test_phone_pictures_are_turned_upright(
    fitted: FewShotSegmenter, scenes: dict[int, list[Sample]], tmp_path: Path
) -> None:
    image = of(scenes)[2].image[:200]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(np.rot90(image)).save(tmp_path / "turned.png", exif=exif)
    shown = fitted.predict(tmp_path / "turned.png")
    assert shown.mask.shape == (200, 256)
    assert np.array_equal(shown.mask, fitted.predict(image).mask)


@pytest.mark.parametrize("strategy", [None, *PRESETS])
def test_what_is_saved_answers_alike(
    strategy: str | None, scenes: dict[int, list[Sample]], tmp_path: Path
) -> None:
    """Fit, save, load: the same masks, from a file that names what it needs."""
    samples, query = of(scenes)[:2], of(scenes)[2].image
    segmenter = tiny(adapt=strategy, steps=2).fit([s.image for s in samples],
                                                  [s.mask for s in samples])  # fmt: skip
    path = segmenter.save(tmp_path / "task.svf")
    again = FewShotSegmenter.load(path, device="cpu")
    assert again.classes_ == segmenter.classes_
    assert again.thresholds_ == segmenter.thresholds_
    expected, found = segmenter.predict(query), again.predict(query)
    np.testing.assert_allclose(
        found.probabilities.astype(float), expected.probabilities.astype(float), atol=2e-3
    )
    assert found.confidence.keys() == expected.confidence.keys()
    assert again.get_params()["adapt"] == strategy
    with zipfile.ZipFile(path) as file:
        about = json.loads(file.read("task.json"))
    assert about["strategy"] == strategy
    assert about["supports"] == {"class": 2}
    if strategy == "svf":
        assert path.stat().st_size < 300_000
    # once more, from what was loaded
    assert again.save(tmp_path / "again.svf").stat().st_size == path.stat().st_size


def test_the_models_own_weights_stay(scenes: dict[int, list[Sample]]) -> None:
    sample = of(scenes)[0]
    segmenter = tiny(adapt="svf", steps=3)
    base = segmenter._load_base().head
    before = copy.deepcopy(base.state_dict())
    segmenter.fit(sample.image, sample.mask)
    tuned = segmenter.predictor_.head.backbone.state_dict()
    assert any(not torch.equal(tuned[k], before[f"backbone.{k}"]) for k in tuned)
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    assert segmenter.unfit() is segmenter
    assert "classes_" not in vars(segmenter)
    plain = segmenter.set_params(adapt=None).fit(sample.image, sample.mask)
    assert plain.predictor_.head is base


@pytest.mark.parametrize("strategy", list(PRESETS))
def test_seeds_decide_everything(strategy: str, scenes: dict[int, list[Sample]]) -> None:
    sample, query = of(scenes)[0], of(scenes)[2].image
    runs = [
        tiny(adapt=strategy, steps=2, seed=seed).fit(sample.image, sample.mask).predict(query)
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(runs[0].probabilities, runs[1].probabilities)
    assert not np.array_equal(runs[0].probabilities, runs[2].probabilities)


def test_several_classes_at_once_share_a_pass(scenes: dict[int, list[Sample]]) -> None:
    first, second = of(scenes, 0), of(scenes, 1)
    images = [first[0].image, second[0].image]
    masks = [first[0].mask, 2 * second[0].mask]
    segmenter = tiny(threshold=0.5, reject_absent=False).fit(images, masks, ["a", "b"])
    passes = []
    hook = segmenter.predictor_.head.backbone.layer0.register_forward_pre_hook(
        lambda module, args: passes.append(len(args[0]))
    )
    both = segmenter.predict(first[2].image)
    hook.remove()  # the head is shared by all segmenters of its model
    assert passes == [1]
    assert both.probabilities.shape[0] == 2
    assert set(both.confidence) == {"a", "b"}
    one = tiny(seconds=0).fit(images[0], masks[0])
    two = tiny(seconds=0).fit(images, masks, ["a", "b"])
    logits = [
        each.predictor_.predict_maps([first[2].image], each.features_)[0].logits[0]
        for each in (one, two)
    ]
    torch.testing.assert_close(logits[0], logits[1], atol=0.05, rtol=0)


def test_a_list_is_answered_in_batches_as_image_by_image(
    fitted: FewShotSegmenter, scenes: dict[int, list[Sample]]
) -> None:
    images = [of(scenes)[2].image, of(scenes, 1)[0].image[:190], of(scenes, 1)[1].image]
    for one, answer in zip(images, fitted.predict(images), strict=True):
        alone = fitted.predict(one)
        assert answer.mask.shape == one.shape[:2]
        np.testing.assert_allclose(answer.probabilities.astype(float),
                                   alone.probabilities.astype(float), atol=2e-3)  # fmt: skip


def test_a_fit_that_fails_leaves_the_one_before(
    fitted: FewShotSegmenter, scenes: dict[int, list[Sample]]
) -> None:
    twin = copy.deepcopy(fitted)
    speck = np.zeros((3000, 3000), np.uint8)
    speck[1505, 1505] = 1
    with pytest.raises(ValueError, match="too small"):
        twin.fit(np.zeros((3000, 3000, 3), np.uint8), speck)
    query = of(scenes)[2].image
    assert np.array_equal(twin.predict(query).mask, fitted.predict(query).mask)


def test_an_image_without_the_class_can_stay_empty(scenes: dict[int, list[Sample]]) -> None:
    first, others = of(scenes, 0), of(scenes, 1)
    images = [*(s.image for s in first[:2]), *(s.image for s in others[:3])]
    masks = [*(s.mask for s in first[:2]), None, None, None]
    segmenter = tiny().fit(images, masks)
    answer = segmenter.predict(others[0].image)
    assert not answer.mask.any()
    assert answer.confidence["class"] > 0.5
    assert answer.present == {"class": False}
    always = tiny(reject_absent=False, threshold=0.1).fit(images, masks)
    assert always.predict(others[0].image).present == {"class": True}
    assert always.predict(first[2].image).mask.any()


def test_tiles_cover_a_large_image(scenes: dict[int, list[Sample]]) -> None:
    """Pasted into a large canvas, a thing is found by tiles at its own resolution."""
    samples = of(scenes)
    canvas = np.full((900, 1000, 3), 128, np.uint8)
    canvas[400:656, 600:856] = samples[2].image
    target = np.zeros((900, 1000), np.uint8)
    target[400:656, 600:856] = samples[2].mask
    whole = FewShotSegmenter(size=128, threshold=0.5, device="cpu")
    tiled = clone(whole).set_params(tile=True, size=192)
    scores = []
    for segmenter in (whole, tiled):
        segmenter.fit([s.image for s in samples[:2]], [s.mask for s in samples[:2]])
        scores.append(iou(segmenter.predict(canvas).mask, target))
    assert scores[1] > scores[0]
    assert segmenter.predict(canvas).mask.shape == (900, 1000)


class ForwardOnly(torch.nn.Module):
    """A head that has a forward and nothing else."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.backbone = head.backbone

    def forward(self, *episode: torch.Tensor) -> torch.Tensor:
        return self.head(*episode)


def test_a_head_with_only_a_forward_serves_too(scenes: dict[int, list[Sample]]) -> None:
    torch.manual_seed(0)
    backbone = BackboneConfig("test_resnet", "none")
    base = build_model(ModelConfig(head="baseline", hidden=16, backbone=backbone)).eval()
    plain = as_head(ForwardOnly(base))
    samples = of(scenes)[:2]
    maps = []
    for head in (base, plain):
        predictor = Predictor(head, SIZE)
        features = by_class(predictor.encode_supports(samples, [1]), [1])
        maps.append(predictor.predict_maps([of(scenes)[2].image], features)[0].logits)
    torch.testing.assert_close(maps[0], maps[1], atol=1e-2, rtol=0)


def test_pickle_and_deepcopy_keep_a_fit(
    fitted: FewShotSegmenter, scenes: dict[int, list[Sample]]
) -> None:
    query = of(scenes)[2].image
    for other in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(other.predict(query).mask, fitted.predict(query).mask)


@pytest.mark.parametrize(
    ("race", "ladder", "share", "times"),
    [
        ((0.2, 0.2), (0.3, 0.2, 0.1), 0, 1),  # tuning does harm: none
        ((0.2, 0.1), (0.1, 0.2, 0.205), 1, 1),
        ((0.2, 0.3), (0.1, 0.3, 0.2), 0.5, FASTER),
        ((0.2, 0.3), (0.1, 0.3, 0.4, 0.4), 1, FASTER),  # twice as many gain nothing
        ((0.2, 0.1), (0.1, 0.2, 0.4, 0.5, 0.6), LONGER, 1),
    ],
)
def test_leaving_out_chooses_steps_and_rate(
    scenes: dict[int, list[Sample]],
    race: tuple[float, float],
    ladder: tuple[float, ...],
    share: float,
    times: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both rates to the half for the first that is left out; then the one ahead, while it gains."""
    preset = Preset(PRESETS["norm"].lr, 4)
    monkeypatch.setitem(PRESETS, "norm", preset)
    supports = [Support(sample, i) for i, sample in enumerate([*of(scenes), *of(scenes)][:4])]
    base = tiny()._load_base().head
    answers = iter([*race, *(score for score in ladder for _ in range(2))])
    events: list[TuningStep] = []
    found = adapt(
        base, supports, [1], "norm", 64, score=lambda *_: next(answers), report=events.append
    )
    assert [event.step for event in events] == list(range(1, len(events) + 1))
    assert all(event.step <= event.steps for event in events)
    assert events[-1].step == events[-1].steps or share == 0
    assert next(answers, None) is None
    assert found.lr == times * preset.lr
    assert found.steps == share * preset.steps
    assert list(found.held_out.values()) == pytest.approx(ladder)


def test_a_given_rate_is_kept_while_steps_are_chosen(scenes: dict[int, list[Sample]]) -> None:
    supports = [Support(sample, i) for i, sample in enumerate([*of(scenes), *of(scenes)][:4])]
    base = tiny()._load_base().head
    found = adapt(base, supports, [1], "norm", 64, lr=0.002, score=lambda *_: 0.5)
    assert {tried.lr for tried in found.held_out} == {0.002}


def test_tuning_ends_when_nothing_is_gained(
    scenes: dict[int, list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate of nothing it ends after its patience; a lucky first episode ends nothing."""
    supports = [Support(sample, i) for i, sample in enumerate(of(scenes)[:2])]
    base = tiny()._load_base().head
    monkeypatch.setattr("svfseg.segmenter.adaptation.PATIENCE", 3)
    monkeypatch.setattr("svfseg.segmenter.adaptation.MEMORY", 2)
    losses = iter([0.1, *[0.5] * 20])
    monkeypatch.setattr(
        "torch.nn.functional.cross_entropy",
        lambda logits, *_, **__: 0 * logits.sum() + next(losses),
    )
    idle = _Tuning(tunable_copy(base, "norm"), supports, [1], 64, 0.0, (0, 0), _Count(ignore))
    idle.advance(20)
    assert len(idle.losses) == 2 + 3
    losses = iter([0.1, *(0.5 * 0.7**i for i in range(20))])
    falling = _Tuning(tunable_copy(base, "norm"), supports, [1], 64, 0.0, (0, 0), _Count(ignore))
    falling.advance(12)
    assert len(falling.losses) == 12


def test_judging_in_between_changes_no_step(scenes: dict[int, list[Sample]]) -> None:
    """Half the steps and then the rest are the same training as all at once."""
    supports = [Support(sample, i) for i, sample in enumerate(of(scenes)[:2])]
    base = tiny()._load_base().head
    runs = []
    for stops in ((4,), (2, 4)):
        run = _Tuning(tunable_copy(base, "norm"), supports, [1], 64, 0.001, (0, 0), _Count(ignore))
        for stop in stops:
            run.advance(stop)
        runs.append(run.losses)
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapt": "prompt"}, "expected None, 'svf'"),
        ({"size": 8}, "at least 32"),
        ({"size": 10**6}, "at most 8192"),
        ({"seed": -1}, "seed is -1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"overlap": "a"}, "overlap is 'a'"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"batch": 0}, "1 or more"),
        ({"steps": -1}, "0 or more"),
        ({"model": "gone/else/where"}, "is not a run"),
    ],
)
def test_wrong_parameters(
    change: dict[str, object], message: str, scenes: dict[int, list[Sample]]
) -> None:
    sample = of(scenes)[0]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        FewShotSegmenter(**{"device": "cpu", **change}).fit(sample.image, sample.mask)


def test_wrong_supports(scenes: dict[int, list[Sample]]) -> None:
    image, mask = of(scenes)[0]
    for images, masks, classes, message in (
        ([], [], None, "found 0 image"),
        ([image, image], [mask], None, "2 image.s. and 1 mask"),
        (image, mask * 0, None, "mask of support 1 is empty"),
        (image, mask[:9], None, "must be one size"),
        (image, mask, ["a", "a"], "different names"),
        (image, mask, ["a", "b"], r"no support shows class 2 \(b\)"),
        (image, mask * 3, ["a", "b"], r"holds ids \[3\]"),
        (image.astype(float), mask, None, "expected uint8"),
        (image, mask.astype(float), None, "whole numbers or bools"),
        (image, "gone.png", None, "no image at gone.png"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            tiny().fit(images, masks, classes)
    speck = np.zeros((3000, 3000), np.uint8)
    speck[1505, 1505] = 1
    with pytest.raises(ValueError, match="too small: it vanishes at 128 pixels"):
        tiny().fit(np.zeros((3000, 3000, 3), np.uint8), speck)


def test_damaged_and_foreign_files(fitted: FewShotSegmenter, tmp_path: Path) -> None:
    path = fitted.save(tmp_path / "task.svf")
    whole = path.read_bytes()
    (tmp_path / "cut.svf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.svf").write_text("no zip")
    for name in ("cut.svf", "text.svf"):
        with pytest.raises(ValueError, match="is not a task of svfseg, or is damaged"):
            FewShotSegmenter.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no task at"):
        FewShotSegmenter.load(tmp_path / "gone.svf")
    other = tmp_path / "other.svf"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "task.json":
                data = data.replace(json.loads(data)["fingerprint"].encode(), b"0" * 16)
            new.writestr(name, data)
    with pytest.raises(ValueError, match="fitted on other weights"):
        FewShotSegmenter.load(other)


def test_a_failed_save_leaves_the_file_that_was_there(
    fitted: FewShotSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fitted.save(tmp_path / "task.svf")
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_of_the_hub(tmp_path: Path) -> None:
    """Out of the hub's own cache, as it lies there after a download, without a network."""
    repository = tmp_path / "hub/models--owner--name"
    snapshot = repository / "snapshots/0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(DEFAULT, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(snapshot.name)
    program = (
        "from svfseg import FewShotSegmenter; from svfseg.segmenter.hub import find_model\n"
        "FewShotSegmenter.from_pretrained('owner/name', device='cpu')\n"
        "print(find_model('owner/name'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(snapshot)


def test_arguments_as_notebooks_give_them(scenes: dict[int, list[Sample]], tmp_path: Path) -> None:
    samples = of(scenes)
    paths, masks = [], []
    for i, sample in enumerate(samples):
        paths.append(str(tmp_path / f"{i}.png"))
        masks.append(str(tmp_path / f"m{i}.png"))
        Image.fromarray(sample.image).save(paths[-1])
        Image.fromarray(sample.mask).save(masks[-1])
    segmenter = tiny().fit(np.array(paths[:2]), np.array(masks[:2]), "disc")
    assert segmenter.classes_ == ("disc",)
    assert len(segmenter.predict(np.array(paths))) == len(paths)
    assert len(segmenter.predict(Path(path) for path in paths)) == len(paths)  # type: ignore[call-overload]
    assert len(segmenter.predict(dict.fromkeys(paths).keys())) == len(paths)  # type: ignore[call-overload]
    assert segmenter.predict(paths[0]).mask.ndim == segmenter.predict(Path(paths[0])).mask.ndim == 2
    assert len(tiny().fit(iter(paths[:2]), iter(masks[:2])).classes_) == 1  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are no names of classes"):
        tiny().fit(paths[0], masks[0], [])
    for name, value in (("size", "320"), ("threshold", "high"), ("batch", "4")):
        with pytest.raises(ValueError, match=f"{name} is '{value}': expected a number"):
            tiny().set_params(**{name: value}).fit(paths[0], masks[0])
