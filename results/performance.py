"""Tables of docs/performance.md from the rows in results/performance, each made by one command.

python results/performance.py        prints the tables
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "performance"
# file -> the command that wrote it
COMMANDS = {
    "step": "svfseg bench step resnet50 resnet50_deep",
    "step_avx2": "svfseg bench step resnet50 resnet50_deep",
    "bf16": "svfseg bench step resnet50 --precision bf16 --repeats 7",
    "contiguous": "svfseg bench step resnet50 --layout contiguous --repeats 7",
    "others": (
        "svfseg bench step vgg16_bn tf_efficientnet_lite0 vit_small_patch16_224 --repeats 7"
    ),
    "factor": "svfseg bench factor",
    "eval": "svfseg bench eval VOC2012 --uncached 60",
    "bound": "svfseg bench eval VOC2012 --episodes 40 --uncached 40 --small 0",
    "predict": "svfseg bench predict",
    "data": "svfseg bench data configs/pascal5i_reduced/svf.yaml --root VOC2012",
    "demo": "svfseg bench data",
}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a benchmark, without its environment."""
    lines = (HERE / f"{name}.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "environment" not in row]


def environment(name: str) -> dict[str, Any]:
    """Machine and versions of a benchmark."""
    found: dict[str, Any] = json.loads((HERE / f"{name}.jsonl").read_text().splitlines()[-1])
    return dict(found["environment"])


def step_table(*names: str) -> str:
    """Time, memory and operations of each arm, with the seconds that bound it."""
    body = [
        "| network | arm | s (min to max) | kept MB | resident MB | G operations "
        "| bounds s: operations, bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        for row in rows(name):
            if "/" in row["arm"]:
                continue
            body.append(
                f"| {_network(row)} | {row['arm']} "
                f"| {row['seconds']:.3f} ({row['min']:.3f} to {row['max']:.3f}) "
                f"| {row['saved bytes'] / 1e6:.1f} | {row['resident bytes'] / 1e6:.1f} "
                f"| {row['operations'] / 1e9:.1f} "
                f"| {row['operations bound']:.3f}, {row['bytes bound']:.3f} |"
            )
    return "\n".join(body)


def ratio_table(*names: str) -> str:
    """Ours against each arm, with the bars where there are some."""
    body = [
        "| network | ours / | time | kept bytes | operations | resident bytes |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        for row in rows(name):
            if not row["arm"].startswith("ours / "):
                continue
            figures = ("seconds", "saved bytes", "operations", "resident bytes")
            cells = [_with_bar(row, figure) for figure in figures]
            body.append(f"| {_network(row)} | {row['arm'][7:]} | {' | '.join(cells)} |")
    return "\n".join(body)


def merged_table(*names: str) -> str:
    """Merged inference against the untouched network."""
    body = ["| network | time | resident bytes |", "|---|---|---|"]
    for name in names:
        for row in rows(name):
            if row["arm"].startswith("merged"):
                time, size = row["seconds"], row["resident bytes"]
                body.append(f"| {_network(row)} | {time:.3f} | {size:.2f} |")
    return "\n".join(body)


def factor_table() -> str:
    """Seconds of factoring."""
    body = ["| ResNet-50, all layers | s (min to max) |", "|---|---|"]
    for row in rows("factor"):
        spread = f" ({row['min']:.2f} to {row['max']:.2f})" if "min" in row else ""
        body.append(f"| {row['arm']} | {_with_bar(row, 'seconds')}{spread} |")
    return "\n".join(body)


def eval_table(name: str, *arms: str) -> str:
    """Episodes a second, of some arms."""
    body = [
        "| shots | arm | episodes | episodes/s | times uncached | ceiling |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows(name):
        if row["arm"] not in arms:
            continue
        speed = f"{row['episodes per second']:.2f}" if "episodes per second" in row else ""
        times = _with_bar(row, "speed") if "speed" in row else ""
        ceiling = f"{row['ceiling']:.2f}" if "ceiling" in row else ""
        body.append(
            f"| {row['shot']} | {row['arm']} | {row.get('episodes', '')} | {speed} | {times} "
            f"| {ceiling} |"
        )
    return "\n".join(body)


def identity_table() -> str:
    """Whether the memory changes a score, and how far the head's forward is."""
    body = [
        "| shots | metrics with and without memory | pixels of difference to `forward` |",
        "|---|---|---|",
    ]
    for row in rows("bound"):
        if row["arm"] == "shared / uncached":
            same = "identical" if row["metrics identical at both bounds"] else "differ"
            off = f"{row['pixels of difference to forward']:,} of {row['pixels']:,}"
            body.append(f"| {row['shot']} | {same} | {off} |")
    return "\n".join(body)


def predict_table() -> str:
    """A further query."""
    body = [
        "| backbone | arm | s (min to max) | G operations | bounds s: operations, bytes |",
        "|---|---|---|---|---|",
    ]
    for row in rows("predict"):
        if "/" in row["arm"]:
            body.append(
                f"| {row['backbone']} | {row['arm']} | {_with_bar(row, 'seconds')} "
                f"| {row['operations']:.2f} | |"
            )
            continue
        body.append(
            f"| {row['backbone']} | {row['arm']} "
            f"| {row['seconds']:.3f} ({row['min']:.3f} to {row['max']:.3f}) "
            f"| {row['operations'] / 1e9:.1f} "
            f"| {row['operations bound']:.3f}, {row['bytes bound']:.3f} |"
        )
    return "\n".join(body)


def data_table() -> str:
    """Loading against training."""
    body = [
        "| data | side | images/s and worker | images/s in training | s a step | waiting |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("data", "demo"):
        for row in rows(name):
            body.append(
                f"| {row['data']} | {row['side']} | {row['images per second and worker']:.1f} "
                f"| {row['images per second in training']:.1f} | {row['seconds']:.2f} "
                f"| {100 * row['waiting']:.1f} % (bar {100 * row['bars']['waiting']:.0f} %) |"
            )
    return "\n".join(body)


def tables() -> dict[str, str]:
    """Every table of the document by name."""
    return {
        "ratios": ratio_table("step"),
        "arms": step_table("step"),
        "ratios, second machine": ratio_table("step_avx2"),
        "arms, second machine": step_table("step_avx2"),
        "merged": merged_table("step", "others"),
        "other networks": ratio_table("others"),
        "other settings": ratio_table("bf16", "contiguous"),
        "factoring": factor_table(),
        "evaluation": eval_table("eval", "uncached", "shared", "shared / uncached"),
        "bound": eval_table("bound", "uncached", "shared, 0 MiB", "small bound / uncached"),
        "identity": identity_table(),
        "prediction": predict_table(),
        "data": data_table(),
    }


def _network(row: dict[str, Any]) -> str:
    extra = "" if row["precision"] == "float32" else f", {row['precision']}"
    extra += "" if row["layout"] == "channels_last" else f", {row['layout']}"
    return f"{row['network']}, {row['batch']} x {row['side']} px{extra}"


def _with_bar(row: dict[str, Any], figure: str) -> str:
    bar = row.get("bars", {}).get(figure)
    return f"{row[figure]:.2f}" + ("" if bar is None else f" (bar {bar:.2f})")


if __name__ == "__main__":
    for title, text in tables().items():
        print(f"{title}\n\n{text}\n")
