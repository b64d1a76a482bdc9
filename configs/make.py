"""Write the studies of configs/paper and the ablations of configs/reduced.

    python configs/make.py

Expected numbers are the paper's (mean mIoU over four folds), chosen there on the test folds and
on a backbone that was probably trained on base classes. Hours are counted, not measured: the
convolutions' operations at a sustained 10 Tflop/s, forward once for a frozen backbone, three
times where the gradient passes through.
"""

from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
PAPER, REDUCED = HERE / "paper", HERE / "reduced"
RATE = 10e12

BACKBONES = {
    "resnet50": {"name": "resnet50_deep", "weights": "resnet50_v2.pth", "output_stride": 8},
    "vgg16": {"name": "vgg16_bn", "output_stride": 16},
}
# multiply-accumulates of the backbone's convolutions for one image, by side
MACS = {("resnet50", 473): 93.60e9, ("resnet50", 641): 170.7e9, ("vgg16", 473): 69.54e9,
        ("vgg16", 641): 127.7e9}  # fmt: skip
DATA: dict[str, dict[str, Any]] = {
    "pascal5i": {
        "data": {"name": "pascal5i", "root": "VOC2012", "train_lists": ["trainaug"], "size": 473},
        "steps": 94_900,  # 200 epochs, the mean over the folds
        "needs": "VOC2012 with the SBD-augmented masks",
    },
    "coco20i": {
        "data": {"name": "coco20i", "root": "coco", "train_lists": ["train2014"],
                 "test_list": "val2014", "size": 641, "scale_range": [0.8, 1.25]},
        "steps": 136_950,  # 50 epochs of fold 0
        "needs": "COCO 2014: annotations/, train2014/, val2014/",
    },
}  # fmt: skip
HEAD_RATES = {"baseline": 0.015, "pfenet": 0.025, "bam": 0.05}
# (data, backbone, head, shot) -> mean mIoU of the frozen backbone, and with SVF
EXPECTED = {
    ("pascal5i", "vgg16", "baseline", 1): (60.15, 62.89),
    ("pascal5i", "vgg16", "baseline", 5): (65.44, 68.34),
    ("pascal5i", "vgg16", "pfenet", 1): (63.35, 64.33),
    ("pascal5i", "vgg16", "pfenet", 5): (69.36, 69.80),
    ("pascal5i", "vgg16", "bam", 1): (64.41, 64.87),
    ("pascal5i", "vgg16", "bam", 5): (68.76, 69.11),
    ("pascal5i", "resnet50", "baseline", 1): (65.07, 67.14),
    ("pascal5i", "resnet50", "baseline", 5): (69.41, 71.42),
    ("pascal5i", "resnet50", "pfenet", 1): (66.35, 68.15),
    ("pascal5i", "resnet50", "pfenet", 5): (71.20, 71.82),
    ("pascal5i", "resnet50", "bam", 1): (67.81, 68.95),
    ("pascal5i", "resnet50", "bam", 5): (70.91, 72.28),
    ("coco20i", "vgg16", "baseline", 1): (37.43, 38.26),
    ("coco20i", "vgg16", "baseline", 5): (45.81, 47.16),
    ("coco20i", "vgg16", "pfenet", 1): (41.97, 42.24),
    ("coco20i", "vgg16", "pfenet", 5): (48.36, 49.49),
    ("coco20i", "vgg16", "bam", 1): (43.50, 43.76),
    ("coco20i", "vgg16", "bam", 5): (49.34, 49.07),
    ("coco20i", "resnet50", "baseline", 1): (41.84, 43.72),
    ("coco20i", "resnet50", "baseline", 5): (51.93, 52.89),
    ("coco20i", "resnet50", "pfenet", 1): (46.05, 48.02),
    ("coco20i", "resnet50", "pfenet", 5): (54.17, 54.38),
    ("coco20i", "resnet50", "bam", 1): (46.23, 48.47),
    ("coco20i", "resnet50", "bam", 5): (51.16, 53.87),
}
ARMS = {
    "frozen": {"tuning.strategy": "frozen"},
    "svf": {"tuning.strategy": "svf"},
}
ABLATIONS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "stages": (
        "Which stages' singular values train",
        {"frozen": ARMS["frozen"], **{
            f"svf {''.join(map(str, s))}": {"tuning.strategy": "svf", "tuning.stages": s}
            for s in ([1], [2], [3], [4], [3, 4], [2, 3, 4], [1, 2, 3, 4])
        }},
    ),
    "subspaces": (
        "Which factors train: S, U, V and their combinations",
        {"frozen": ARMS["frozen"], **{
            f"svf {letters}": {"tuning.strategy": "svf", "tuning.factors": letters}
            for letters in ("S", "U", "V", "SU", "SV", "UV", "SUV")
        }},
    ),
    "norm": (
        "Normalisation frozen or not, beside singular values and alone",
        {
            "frozen": ARMS["frozen"],
            "svf": ARMS["svf"],
            "svf+norm": {"tuning.strategy": "svf+norm"},
            "svf+norm, statistics": {"tuning.strategy": "svf+norm", "tuning.statistics": True},
            "norm": {"tuning.strategy": "norm"},
            "norm, statistics": {"tuning.strategy": "norm", "tuning.statistics": True},
        },
    ),
    "decay": (
        "Weight decay of the singular values: none, to zero, to where they started",
        {"frozen": ARMS["frozen"], "none": ARMS["svf"], **{
            f"to {goal} {decay:g}": {"tuning.strategy": "svf", "tuning.decay_to": goal,
                                     "tuning.weight_decay": decay}
            for goal in ("zero", "start") for decay in (1e-4, 1e-2)
        }},
    ),
    "schedule": (
        "The constant rate that the published code really used, against true schedules",
        {
            f"{name}, {schedule}": {**arm, "optim.schedule": schedule}
            for name, arm in ARMS.items() for schedule in ("cosine", "constant", "poly")
        },
    ),
    "rate": (
        "The rate of the singular values, trained directly and relative to their size",
        {"frozen": ARMS["frozen"], **{
            f"{scale} {rate:g}": {"tuning.strategy": "svf", "tuning.parametrization": scale,
                                  "tuning.lr": rate}
            for scale in ("direct", "relative") for rate in (0.001, 0.01, 0.1, 1)
        }},
    ),
    "removal": (
        "Training images with novel classes dropped, or kept with these as background",
        {
            f"{name}, {images}": {**arm, "data.train_images": images}
            for name, arm in ARMS.items() for images in ("base-only", "all")
        },
    ),
    "strategies": (
        "Every way to tune the backbone",
        {
            "frozen": ARMS["frozen"],
            "full": {"tuning.strategy": "full"},
            "layer 4": {"tuning.strategy": "layers", "tuning.stages": [4]},
            "layers 3 and 4": {"tuning.strategy": "layers", "tuning.stages": [3, 4]},
            "conv 3x3": {"tuning.strategy": "conv", "tuning.kernels": "spatial"},
            "conv 1x1": {"tuning.strategy": "conv", "tuning.kernels": "pointwise"},
            "norm": {"tuning.strategy": "norm"},
            "bias": {"tuning.strategy": "bias"},
            "adapter": {"tuning.strategy": "adapter", "tuning.rank": 64},
            "lora": {"tuning.strategy": "lora"},
            "ssf": {"tuning.strategy": "ssf"},
            "svf": ARMS["svf"],
            "svf+norm": {"tuning.strategy": "svf+norm"},
        },
    ),
}  # fmt: skip


def main() -> None:
    PAPER.mkdir(exist_ok=True)
    for key, expected in EXPECTED.items():
        write(PAPER / f"{'_'.join(map(str, key))}shot.yaml", *paper(*key, expected))
    for data in DATA:
        for backbone in BACKBONES:
            write(PAPER / f"{data}_{backbone}_pspnet.yaml", *base_learner(data, backbone))
    for name, (title, arms) in ABLATIONS.items():
        write(PAPER / f"ablation_{name}.yaml", *ablation(name, title, arms))
        if name != "strategies":  # its own file, with a search
            write(REDUCED / f"ablation_{name}.yaml", *reduced(name, title, arms))


def settings(data: str, backbone: str, head: str, shot: int) -> dict[str, Any]:
    """The paper's setting; what differs from its code is right here: one schedule for all."""
    plan = DATA[data]
    rate = HEAD_RATES[head]
    own = {"dilation": "stepwise"} if head == "baseline" and backbone == "resnet50" else {}
    model: dict[str, Any] = {"head": head, "backbone": {**BACKBONES[backbone], **own}}
    if head == "pfenet" and data == "pascal5i":
        model["bins"] = [60, 30, 15, 8]
    if head == "bam":
        model |= {
            "base_learner": f"studies/{data}_{backbone}_pspnet/runs/pspnet_fold={{data.fold}}",
            "base_classes": 15 if data == "pascal5i" else 60,
            "weighted_shots": shot,
        }
    return {
        "data": plan["data"],
        "model": model,
        "tuning": {"lr": rate / 10},
        "optim": {"lr": rate, "schedule": "cosine", "steps": plan["steps"], "batch": 8},
        "selection": {"every": plan["steps"] // 40, "episodes": 1000},
        "shot": shot,
    }


def paper(
    data: str, backbone: str, head: str, shot: int, expected: tuple[float, float]
) -> tuple[list[str], dict[str, Any]]:
    plan = DATA[data]
    hours = [
        2 * MACS[backbone, plan["data"]["size"]] * (1 + shot) * 8 * plan["steps"] * factor
        / RATE / 3600
        for factor in (1, 3)
    ]  # fmt: skip
    name = f"{data}_{backbone}_{head}_{shot}shot"
    lines = [
        f"{head} on {backbone}, {data}, {shot}-shot: a frozen backbone against SVF, four folds.",
        f"Expected (published, mean mIoU): frozen {expected[0]:.2f}, svf {expected[1]:.2f}.",
        f"Hours by count at 10 Tflop/s: about {hours[0]:.0f} a frozen run, {hours[1]:.0f} a tuned "
        "one; four of each. Not run here.",
        f"Needs {plan['needs']}" + (", PSPNet's resnet50_v2.pth" if backbone == "resnet50" else "")
        + (f", and the base learners of {data}_{backbone}_pspnet.yaml." if head == "bam" else "."),
        f"  torchrun --nproc-per-node 4 -m svfseg study configs/paper/{name}.yaml "
        f"--out studies/{name}",
    ]  # fmt: skip
    content = {
        "train": settings(data, backbone, head, shot),
        "eval": {"episodes": 1000, "seeds": [510, 365, 382, 322, 988]},
        "arms": ARMS,
        "grid": {"data.fold": [0, 1, 2, 3]},
        "reference": "frozen",
    }
    return lines, content


def base_learner(data: str, backbone: str) -> tuple[list[str], dict[str, Any]]:
    plan = DATA[data]
    steps = 35_000 if data == "pascal5i" else 36_500
    macs = MACS[backbone, 473] * (417 / 473) ** 2
    hours = 2 * macs * 12 * steps * 3 / RATE / 3600
    name = f"{data}_{backbone}_pspnet"
    lines = [
        f"BAM's base learner: PSPNet on {backbone}, the base classes of {data}, four folds.",
        "Expected: no number is published for it alone.",
        f"Hours by count at 10 Tflop/s: about {hours:.0f} a run, four runs. Not run here.",
        f"Needs {plan['needs']}. In one process: normalisation trains, over a whole batch.",
        f"  svfseg study configs/paper/{name}.yaml --out studies/{name}",
    ]
    content = {
        "train": {
            "data": {**plan["data"], "size": 417, "scale_range": [0.5, 2.0]},
            "model": {
                "head": "pspnet",
                "base_classes": 15 if data == "pascal5i" else 60,
                "backbone": {**BACKBONES[backbone], "norm": "train"},
            },
            "tuning": {"strategy": "full", "lr": 0.00025, "weight_decay": 0.0001},
            "optim": {"lr": 0.0025, "schedule": "poly", "steps": steps, "batch": 12},
            "selection": {"every": steps // 20},
        },
        "arms": {"pspnet": {}},
        "grid": {"data.fold": [0, 1, 2, 3]},
    }
    return lines, content


def ablation(
    name: str, title: str, arms: dict[str, dict[str, Any]]
) -> tuple[list[str], dict[str, Any]]:
    plan = DATA["pascal5i"]
    hours = 2 * MACS["resnet50", 473] * 2 * 8 * plan["steps"] * 3 / RATE / 3600
    lines = [
        f"{title}: baseline on resnet50, pascal5i fold 0, 1-shot.",
        "Expected: the paper shows this as curves or not at all; frozen 65.60, svf 67.42 on fold "
        "0.",
        f"Hours by count at 10 Tflop/s: about {hours:.0f} a tuned run, {2 * len(arms)} runs. "
        "Not run here.",
        f"  torchrun --nproc-per-node 4 -m svfseg study configs/paper/ablation_{name}.yaml "
        f"--out studies/ablation_{name}",
    ]
    content = {
        "train": settings("pascal5i", "resnet50", "baseline", 1),
        "eval": {"episodes": 1000},
        "arms": arms,
        "grid": {"seed": [321, 510]},
        "reference": next(iter(arms)),
    }
    return lines, content


def reduced(
    name: str, title: str, arms: dict[str, dict[str, Any]]
) -> tuple[list[str], dict[str, Any]]:
    base = yaml.safe_load((REDUCED / "strategies.yaml").read_text())
    kept = HERE.parent / "results" / f"ablation_{name}_reduced.csv"
    came = f"Rows: results/{kept.name}" if kept.is_file() else "Not run here yet"
    lines = [
        f"{title}, on the reduced Pascal-5i fold 0 (see strategies.yaml).",
        f"About {2 * len(arms) * 2.5:.0f} minutes on two cores. {came}.",
        f"  svfseg study configs/reduced/ablation_{name}.yaml --root VOC2012 "
        f"--out studies/ablation_{name}",
    ]
    train = base["train"] | {"tuning": {"lr": 0.01}}
    train["optim"] = {**train["optim"], "lr": 0.05}
    content = {
        "train": train,
        "eval": base["eval"],
        "arms": arms,
        "grid": {"seed": [321, 510]},
        "reference": next(iter(arms)),
    }
    return lines, content


class Plain(yaml.SafeDumper):
    """Without anchors: a reader of YAML is no compiler."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(path: Path, lines: list[str], content: dict[str, Any]) -> None:
    text = yaml.dump(content, Dumper=Plain, sort_keys=False, width=100, default_flow_style=None)
    path.write_text("".join(f"# {line}\n" for line in lines) + text)


if __name__ == "__main__":
    main()
