from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from thirtytwo import models
from thirtytwo.errors import RecipeError
from thirtytwo.models import winograd
from thirtytwo.models.resnet import StochasticDepth, _Projection
from thirtytwo.settings import AnyModel, ConvMixerModel, PyramidNetModel, ResNetModel, TransformerModel

WIDE: dict[str, Any] = {"stem": 16, "widths": (160, 320, 640), "blocks": (4, 4, 4), "preactivation": True}

RESNEXT: dict[str, Any] = {"widths": (256, 512, 1024), "blocks": (3, 3, 3), "bottleneck": 2.0, "cardinality": 8}

PUBLISHED = [
    # kuangliu/pytorch-cifar's ResNet-18 has 11,173,962 and its ResNet-50 23,520,842; WRN-28-10 36.5 M and WRN-16-4
    # 2.7 M (Zagoruyko & Komodakis, tables 4 and 5); ResNeXt-29, 8 × 64d 34.4 M (Xie et al., table 7); CCT-7/3x1 3.76 M
    # (Hassani et al., table 1). PyramidNets are said to have 1.7, 3.8, 28.3, 27.0 and 26.0 M (Han et al., table 4);
    # those of osmr/imgclsmob, whose widths are rounded as in their authors' code, have exactly as many as here.
    pytest.param(ResNetModel(), 11_173_962, 0, id="ResNet-18"),
    pytest.param(ResNetModel(**WIDE), 36_500_000, 0.01, id="WRN-28-10"),
    pytest.param(
        ResNetModel(**{**WIDE, "widths": (64, 128, 256), "blocks": (2, 2, 2)}), 2_700_000, 0.03, id="WRN-16-4"
    ),
    pytest.param(
        ResNetModel(widths=(256, 512, 1024, 2048), blocks=(3, 4, 6, 3), bottleneck=0.25), 23_520_842, 0, id="ResNet-50"
    ),
    pytest.param(ResNetModel(**RESNEXT), 34_400_000, 0.002, id="ResNeXt-29"),
    pytest.param(PyramidNetModel(widening=48), 1_772_706, 0, id="PyramidNet-110, 48"),
    pytest.param(PyramidNetModel(), 3_904_446, 0, id="PyramidNet-110, 84"),
    pytest.param(PyramidNetModel(widening=270), 28_485_477, 0, id="PyramidNet-110, 270"),
    pytest.param(PyramidNetModel(widening=270, bottleneck=True), 27_216_021, 0, id="PyramidNet-164, 270"),
    pytest.param(
        PyramidNetModel(widening=200, blocks=(30, 30, 30), bottleneck=True), 26_210_842, 0, id="PyramidNet-272, 200"
    ),
    pytest.param(TransformerModel(), 3_760_000, 0.02, id="CCT-7/3x1"),
]


@pytest.mark.parametrize(("settings", "parameters", "tolerance"), PUBLISHED)
def test_networks_are_as_large_as_published(settings: AnyModel, parameters: int, tolerance: float) -> None:
    with torch.device("meta"):
        network = models.build(settings, 10)
    assert models.parameters(network) == pytest.approx(parameters, rel=tolerance)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ResNetModel(widths=(8, 8)), "model.widths names 2 stages, model.blocks 4"),
        (ResNetModel(widths=(8,) * 6, blocks=(1,) * 6), "expected at most 4"),
        (
            ResNetModel(widths=(8, 8), blocks=(1, 1), stem=8, cardinality=3),
            "8 channels cannot be divided into 3 groups",
        ),
        (ResNetModel(widths=(8,), blocks=(1,), bottleneck=0.5, cardinality=8), "4 channels cannot be divided into 8"),
        (PyramidNetModel(blocks=(1,) * 5), "expected at most 4"),
        (ConvMixerModel(patch=9), "model.patch: found 9; expected at most 8"),
        (TransformerModel(width=30), "4 do not divide a width of 30"),
    ],
)
def test_what_does_not_fit_is_a_clear_error(settings: AnyModel, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        models.build(settings, 10, (8, 8))


def test_stochastic_depth_leaves_out_that_share_and_keeps_the_mean() -> None:
    layer, ones = StochasticDepth(0.25), torch.ones(8000, 3, 2, 2)
    torch.manual_seed(0)
    found = layer(ones)
    assert torch.equal(found, found[:, :1, :1, :1].expand_as(found))  # an image as a whole
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.03)
    assert torch.equal(layer.eval()(ones), ones)


def test_later_blocks_are_left_out_more_often() -> None:
    network = models.build(ResNetModel(widths=(4, 4), blocks=(2, 2), stem=4, stochastic_depth=0.4), 3)
    shares = [part.probability for part in network.modules() if isinstance(part, StochasticDepth)]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_a_preactivated_network_hands_on_what_it_adds_unchanged() -> None:
    network = models.build(ResNetModel(stem=8, widths=(8,), blocks=(2,), preactivation=True), 3).eval()
    for block in network.blocks:  # type: ignore[union-attr]
        nn.init.zeros_(block.convolutions[-1].weight)
    images = torch.rand(2, 3, 8, 8)
    stem = network.stem(images)  # type: ignore[operator]
    assert torch.equal(network.blocks(stem), stem)  # type: ignore[operator]


@pytest.mark.parametrize("preactivation", [False, True])
def test_a_bottleneck_has_three_convolutions_of_which_the_middle_one_is_grouped_and_halves(preactivation: bool) -> None:
    settings = ResNetModel(
        stem=8, widths=(8, 16), blocks=(1, 1), bottleneck=0.5, cardinality=2, preactivation=preactivation
    )
    network = models.build(settings, 3)
    convolutions = list(network.blocks[1].convolutions)  # type: ignore[index, union-attr]
    shapes = [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.groups) for c in convolutions]
    assert shapes == [(8, 8, 1, 1, 1), (8, 8, 3, 2, 2), (8, 16, 1, 1, 1)]
    assert network(torch.rand(2, 3, 9, 12)).shape == (2, 3)


@pytest.mark.parametrize("inputs", [3, 7, 12, 16])
@pytest.mark.parametrize("size", [(8, 8), (9, 6)])
def test_a_projection_that_halves_is_the_convolution_that_it_is_named_after(inputs: int, size: tuple[int, int]) -> None:
    layer = _Projection(inputs, 5, 2).double()
    images = torch.randn(2, inputs, *size, dtype=torch.float64, requires_grad=True)
    expected = torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], images)[:, :, ::2, ::2]
    assert torch.allclose(layer(images), expected)
    one, other = (
        torch.autograd.grad(scores.square().sum(), (images, layer.weight)) for scores in (layer(images), expected)
    )
    assert all(map(torch.allclose, one, other))


@pytest.mark.parametrize("bottleneck", [0.0, 0.5])
@pytest.mark.parametrize("preactivation", [False, True])
def test_dropout_comes_before_the_last_convolution_of_a_block(preactivation: bool, bottleneck: float) -> None:
    settings = ResNetModel(
        stem=4, widths=(4,), blocks=(1,), bottleneck=bottleneck, dropout=0.5, preactivation=preactivation
    )
    network = models.build(settings, 3)
    order: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Dropout):
            module.register_forward_hook(lambda module, *_: order.append(module))
    network(torch.rand(2, 3, 8, 8))
    assert isinstance(order[-2], nn.Dropout)
    assert sum(isinstance(module, nn.Dropout) for module in order) == 1


SMALL: dict[str, Any] = {"stem": 8, "widths": (16, 24), "blocks": (2, 1)}


@pytest.mark.skipif(winograd.problem() is not None, reason=f"no kernels here: {winograd.problem()}")
@pytest.mark.parametrize(
    "shape",
    [
        {"preactivation": True},
        {"preactivation": False},
        {"preactivation": True, "dropout": 0.2, "stochastic_depth": 0.5},
        {"preactivation": False, "dropout": 0.2, "stochastic_depth": 0.5},
        {"preactivation": False, "bottleneck": 0.5},
        {"preactivation": False, "bottleneck": 2.0, "cardinality": 4},
    ],
    ids=lambda shape: ",".join(map(str, shape)),
)
def test_compiled_kernels_train_the_same_network(shape: dict[str, Any]) -> None:
    images, labels = torch.randn(16, 3, 12, 12), torch.arange(16) % 10
    networks, found = [], []
    for kernels in ("torch", "compiled"):
        torch.manual_seed(0)
        network = models.build(ResNetModel(kernels=kernels, **SMALL, **shape), 10)
        with torch.no_grad():  # gains and biases that are not all alike
            for layer in network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.weight.add_(0.3 * torch.randn(layer.weight.shape))
                    layer.bias.add_(0.3 * torch.randn(layer.bias.shape))
        torch.manual_seed(1)  # what dropout and depth leave out
        nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        networks.append(network)
        found.append(
            {name: parameter.grad for name, parameter in network.named_parameters()} | dict(network.named_buffers())
        )
    for name, one in found[0].items():
        other = found[1][name]
        assert one is not None
        assert other is not None
        # Where an activation is all but 0, rounding decides whether ReLU lets its gradient pass.
        assert (one - other).float().norm() <= (1e-4 if "running" in name else 0.1) * one.float().norm() + 1e-6, name
    is_ours = any(not torch.equal(one, found[1][name]) for name, one in found[0].items() if one is not None)  # type: ignore[arg-type]
    assert is_ours
    networks[1].load_state_dict(networks[0].state_dict())
    one, other = (network.eval()(images) for network in networks)
    assert torch.equal(one, other)  # both answer with torch's operations


def test_what_has_torchs_kernels_says_why() -> None:
    cpu = torch.device("cpu")
    said = models.kernels(ResNetModel(kernels="compiled", cardinality=2), cpu, "float32")
    assert said == "torch (no compiled ones for convolutions in 2 groups)"
    said = models.kernels(ResNetModel(kernels="compiled", widths=(4, 12), blocks=(1, 1)), cpu, "float32")
    assert said == "torch (no compiled ones for channels that are no multiples of 8)"
    said = models.kernels(ResNetModel(kernels="compiled"), torch.device("cuda"), "bfloat16")
    assert said == "torch (compiled ones for such networks are for CPUs)"
    assert models.kernels(ResNetModel(), cpu, "float32") == "torch"
