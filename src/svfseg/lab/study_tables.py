"""Write the tables of a study: mean, deviation, paired difference to the reference arm."""

import json
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from svfseg.lab.bootstrap import Records, difference

Row = Mapping[str, Any]
COLUMNS = ("arm", "runs", "trained", "task KB", "Gop a step", "kept MB", "rates", "mIoU", "FB-IoU",
           "difference", "95 % interval")  # fmt: skip


def summary(
    rows: Sequence[tuple[str, Row, Row]], records: Mapping[tuple[str, str], Records], reference: str
) -> str:
    """Write the tables of a study in Markdown.

    Args:
        rows: (arm, point of the grid, row of results.csv).
        records: (arm, point as JSON) -> what its episodes gave.
        reference: the arm that differences are taken to.
    """
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for arm in dict.fromkeys(arm for arm, _, _ in rows):
        matching = [(point, row) for a, point, row in rows if a == arm and "miou" in row]
        if not matching:
            continue
        pairs = [
            (records[arm, json.dumps(point)], records[reference, json.dumps(point)])
            for point, _ in matching
            if arm != reference and (reference, json.dumps(point)) in records
        ]
        first = matching[0][1]
        cells = [
            arm,
            str(len(matching)),
            f"{first['trained']:,}",
            f"{first['task bytes'] / 1e3:,.1f}",
            f"{first['step operations'] / 1e9:.2f}",
            f"{first['kept bytes'] / 1e6:.1f}",
            ", ".join(f"{first[k]:g}" for k in ("optim.lr", "tuning.lr") if k in first),
            spread([row["miou"] for _, row in matching]),
            spread([row["fb_iou"] for _, row in matching]),
        ]
        if pairs:
            gap = difference(pairs)
            cells += [f"{100 * gap.value:+.2f}", f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}"]
        else:
            cells += ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    on_test = dict.fromkeys(arm for arm, _, row in rows if row.get("selected_on") == "test")
    if on_test:
        lines += [
            "",
            f"Checkpoints of {', '.join(on_test)} were selected on the test fold itself "
            "(selection.monitor), as published code does: a new class scores less.",
        ]
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation in percent."""
    deviation = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{deviation}"
