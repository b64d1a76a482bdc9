"""Show what a run learned, as a page and as JSON: ``svfseg analyze``."""

import base64
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from PIL import Image

from svfseg._version import __version__
from svfseg.config import TrainConfig
from svfseg.data import Episode, Split, draw_test_list, novel_split, test_index
from svfseg.data.images import Array, overlay
from svfseg.device import resolve
from svfseg.errors import InputError
from svfseg.files import read_json_lines, write_json, write_text
from svfseg.lab.bootstrap import Interval, mean_interval
from svfseg.lab.runtime import environment
from svfseg.lab.spectra import (
    STAGES,
    Focus,
    LayerSpectrum,
    activation,
    compare_focus,
    layer_spectra,
    queries_of,
)
from svfseg.models import Backbone
from svfseg.tuning.checkpoint import read_metadata, restore_model, run_config, start_model

PICTURES = 6


def analyze(
    run: str | Path,
    out: str | Path,
    episodes: int = 200,
    seed: int = 321,
    checkpoint: str = "best",
    device: str = "auto",
    root: str | None = None,
) -> Path:
    """Write analysis.html and analysis.json about what a run changed in its backbone.

    Args:
        run: a run folder; its base weights must be at hand.
        out: folder to write into.
        episodes: test episodes whose queries are looked at.
        seed: seed of the test episodes.
        checkpoint: "best" or "last".
        device: see `svfseg.device.resolve`.
        root: folder of the data, where it moved.

    Returns:
        The page.

    Raises:
        MissingFileError: no run, checkpoint or data.
        InputError: the base weights were random, nothing was tuned, or matplotlib is missing.
    """
    _need_matplotlib()
    run, out = Path(run), Path(out)
    config = run_config(run)
    if config.model.backbone.weights == "none" and not config.model.base_learner:
        raise InputError(
            f"{run} began from random weights, which cannot be loaded again: analyze a run with "
            "model.backbone.weights imagenet or a file"
        )
    if root is not None:
        config = replace(config, data=replace(config.data, root=root))
    source = novel_split(test_index(config.data), config.data.fold)
    source = source.require(config.shot, config.data.on_small_class)
    drawn = draw_test_list(source, config.shot, seed, episodes)
    where = resolve(device)
    before = start_model(config.model).eval().to(where).backbone
    after = restore_model(run / checkpoint, config).eval().to(where).backbone
    spectra = layer_spectra(before, after)
    focus = compare_focus(before, after, source, drawn, config.data.size)
    curves = read_curves(run)
    content = {
        "run": run.name,
        "strategy": config.tuning.strategy,
        "fold": config.data.fold,
        "step": read_metadata(run / checkpoint)["step"],
        "episodes": episodes,
        "queries": len(focus[0]),
        "layers": [
            {
                "name": layer.name,
                "stage": layer.stage,
                "values": len(layer.before),
                "moved": layer.moved,
                "before": _numbers(layer.before),
                "after": _numbers(layer.after),
            }
            for layer in spectra
        ],
        "stages": stage_changes(spectra),
        "focus": focus_table(*focus),
        "curves": curves,
        "environment": environment(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "analysis.json", content)
    page = _page(content, config, spectra, focus, pictures(before, after, source, drawn, config))
    write_text(out / "analysis.html", page)
    return out / "analysis.html"


def _need_matplotlib() -> None:
    """Refuse before minutes of work, not after them."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("plots need the package matplotlib: pip install 'svfseg[lab]'")


def stage_changes(spectra: Sequence[LayerSpectrum]) -> list[dict[str, Any]]:
    """List layers, values, and how far they moved, for each stage that changed, most first.

    "start" holds the 5 % quantile, the median, the 95 % quantile and the largest of the values
    that training began with.
    """
    rows = []
    for stage in sorted({layer.stage for layer in spectra}):
        inside = [layer for layer in spectra if layer.stage == stage]
        change = torch.cat([layer.change for layer in inside]).abs()
        start = torch.cat([layer.before for layer in inside]).double()
        rows.append(
            {
                "stage": stage,
                "layers": len(inside),
                "values": len(change),
                "start": start.quantile(start.new_tensor([0.05, 0.5, 0.95, 1])).tolist(),
                "mean change": float(change.mean()),
                "largest change": float(change.max()),
                "moved": float(np.mean([layer.moved for layer in inside])),
            }
        )
    return sorted(rows, key=lambda row: -row["moved"])


def focus_table(before: Sequence[Focus], after: Sequence[Focus]) -> list[dict[str, Any]]:
    """Tabulate foreground over background activation per stage: before, after, paired change."""
    rows = []
    for i, stage in enumerate(STAGES):
        pairs = [(b.ratios[i], a.ratios[i]) for b, a in zip(before, after, strict=True)]
        if not pairs:
            continue
        columns: dict[str, Interval] = {
            "before": mean_interval([b for b, _ in pairs]),
            "after": mean_interval([a for _, a in pairs]),
            "change": mean_interval([a - b for b, a in pairs]),
        }
        rows.append({"stage": stage, **{name: list(value) for name, value in columns.items()}})
    return rows


def read_curves(run: Path) -> list[dict[str, Any]]:
    """Read steps, base-class and (where the run wrote it) novel-class mIoU of a run."""
    path = run / "metrics.jsonl"
    lines = read_json_lines(path) if path.is_file() else []
    return [
        {"step": line["step"], "base": line.get("miou"), "novel": line.get("novel_miou")}
        for line in lines
        if "miou" in line or "novel_miou" in line
    ]


def pictures(
    before: Backbone,
    after: Backbone,
    source: Split,
    episodes: Sequence[Episode],
    config: TrainConfig,
) -> list[dict[str, Any]]:
    """Draw queries with the activation of layer3 and layer4 before and after, one per class."""
    each = max(1, PICTURES // len(source.classes))
    chosen = [e for c in source.classes for e in [x for x in episodes if x.class_id == c][:each]]
    rows = []
    device = next(before.parameters()).device
    for image, mask, class_id in queries_of(source, chosen[:PICTURES], config.data.size):
        pixels = np.asarray(image[0].permute(1, 2, 0).clamp(0, 255).byte().numpy())
        inside = (mask != 255).numpy()
        rows_, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        window = (slice(0, rows_[-1] + 1), slice(0, columns[-1] + 1))
        row: dict[str, Any] = {
            "name": source.index.classes[class_id - 1],
            "truth": _uri(overlay(pixels, (mask == 1).numpy())[window]),
            "maps": [],
        }
        with torch.inference_mode():
            features = [backbone(image.to(device)) for backbone in (before, after)]
        for stage in (3, 4):
            maps = [activation(stages[stage]).cpu() for stages in features]
            for when, heat in zip(("before", "after"), maps, strict=True):
                picture = _uri(heated(pixels, heat)[window])
                row["maps"].append({"stage": STAGES[stage], "when": when, "picture": picture})
        rows.append(row)
    return rows


def heated(image: Array, heat: torch.Tensor) -> Array:
    """Colour an image by a map of activation, from its least to its greatest, dark to bright."""
    from matplotlib import colormaps

    size = (image.shape[0], image.shape[1])
    large = torch.nn.functional.interpolate(heat[None, None].float(), size, mode="bilinear")[0, 0]
    low, high = torch.quantile(large.flatten()[::7], torch.tensor([0.02, 0.98]))
    scaled = ((large - low) / (high - low).clamp_min(1e-9)).clamp(0, 1).numpy()
    colours = colormaps["inferno"](scaled)[..., :3] * 255
    grey = image.mean(axis=2, keepdims=True)
    return np.asarray(0.35 * grey + 0.65 * colours, np.uint8)


def _page(
    content: dict[str, Any],
    config: TrainConfig,
    spectra: Sequence[LayerSpectrum],
    focus: tuple[list[Focus], list[Focus]],
    rows: list[dict[str, Any]],
) -> str:
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("svfseg.lab"), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("analysis.html")
    return template.render(
        **content,
        backbone=config.model.backbone.name,
        head=config.model.head,
        version=__version__,
        rows=rows,
        spectrum_plot=_svg(_draw_spectra, spectra) if spectra else "",
        focus_plot=_svg(_draw_focus, content["focus"]) if focus[0] else "",
        curve_plot=_svg(_draw_curves, content["curves"]) if content["curves"] else "",
    )


def _svg(draw: Any, data: Any) -> str:
    """A drawing as inline SVG whose ink follows the page's."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(7.6, 3.0), layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure, data)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
            axes.grid(alpha=0.25, linewidth=0.5)
            axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    # black becomes the page's ink, so that a dark page shows it
    text = text[text.index("<svg") :].replace("stroke: #000000", "stroke: currentColor")
    return text.replace('<text style="', '<text style="fill: currentColor; ')


def _draw_spectra(figure: Any, spectra: Sequence[LayerSpectrum]) -> None:
    """Relative change against rank, a curve a stage: the mean over its layers, by share of rank."""
    axes = figure.subplots()
    grid = np.linspace(0, 1, 101)
    for stage in sorted({layer.stage for layer in spectra}):
        curves = []
        for layer in spectra:
            if layer.stage != stage or len(layer.before) < 2:
                continue
            order = torch.argsort(layer.before, descending=True)
            change = 100 * layer.change[order].numpy()
            curves.append(np.interp(grid, np.linspace(0, 1, len(change)), change))
        if curves:
            axes.plot(100 * grid, np.mean(curves, axis=0), label=f"layer{stage}", linewidth=1.4)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlabel("rank of the singular value, % (largest first)")
    axes.set_ylabel("relative change, %")
    axes.legend(frameon=False)


def _draw_focus(figure: Any, rows: Sequence[dict[str, Any]]) -> None:
    axes = figure.subplots()
    for shift, name in ((-0.12, "before"), (0.12, "after")):
        values = np.array([row[name] for row in rows])
        axes.errorbar(
            np.arange(len(rows)) + shift,
            values[:, 0],
            yerr=[values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]],
            fmt="o",
            capsize=3,
            label=name,
        )
    axes.axhline(1, color="black", linewidth=0.6)
    axes.set_xticks(range(len(rows)), [row["stage"] for row in rows])
    axes.set_ylabel("activation in the class / outside")
    axes.legend(frameon=False)


def _draw_curves(figure: Any, lines: Sequence[dict[str, Any]]) -> None:
    axes = figure.subplots()
    for name in ("base", "novel"):
        points = [(line["step"], 100 * line[name]) for line in lines if line[name] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"{name} classes")
    axes.set_xlabel("step")
    axes.set_ylabel("mIoU, %")
    axes.legend(frameon=False)


def _numbers(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def _uri(picture: Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
