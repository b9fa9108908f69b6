from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from thirtytwo import Classifier, models, train
from thirtytwo import recipe as recipes
from thirtytwo.errors import MissingExtra, ModelError, RecipeError
from thirtytwo.models import speed
from thirtytwo.models.speed import SpeedNet
from thirtytwo.settings import AnyModel, ClassicModel, CustomModel, SpeedModel, TimmModel, TransformerModel

EVERY = [
    pytest.param(kind(), id=kind.model_fields["name"].default)
    for kind in get_args(AnyModel)
    if kind not in (CustomModel, TimmModel)
]


@pytest.mark.parametrize("settings", EVERY)
@pytest.mark.parametrize(("classes", "size"), [(10, (32, 32)), (3, (16, 24))])
def test_every_model_maps_images_to_scores_and_learns_from_all_of_its_parameters(
    settings: AnyModel, classes: int, size: tuple[int, int]
) -> None:
    network = models.build(settings, classes, size)
    scores = network(torch.rand((4, 3, *size)))
    assert scores.shape == (4, classes)
    scores.square().mean().backward()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in trained)


@pytest.mark.parametrize("settings", EVERY)
def test_an_image_is_scored_the_same_alone_and_in_company(settings: AnyModel) -> None:
    network = models.build(settings, 10).eval()
    images = torch.rand((5, 3, 32, 32))
    with torch.no_grad():
        alone, together = network(images[2:3]), network(images)[2:3]
    assert (alone - together).norm() < 1e-4 * alone.norm()  # scores of fresh weights can be large


@pytest.mark.parametrize("settings", EVERY)
def test_same_random_seed_same_weights(settings: AnyModel) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(models.build(settings, 10).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_settings_decide_the_architecture() -> None:
    network = models.build(ClassicModel(stages=((8, 16), (24,)), hidden_units=20, dropout=0.5), 7, (16, 16))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(3, 8), (8, 16), (16, 24)]
    dense = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert [(d.in_features, d.out_features) for d in dense] == [(24 * 4 * 4, 20), (20, 7)]
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert len([m for m in network.modules() if isinstance(m, nn.MaxPool2d)]) == 2


def test_more_stages_than_the_image_can_be_halved_is_a_clear_error() -> None:
    with pytest.raises(RecipeError, match="expected at most 3"):
        models.build(ClassicModel(stages=((8,),) * 4), 10, (8, 8))


def test_a_callers_network_is_not_built_from_a_recipe() -> None:
    with pytest.raises(RecipeError, match="pass it"):
        models.build(CustomModel(module="mine.Net"), 10)


def test_summary_names_every_layer_with_output_and_parameters_and_changes_nothing() -> None:
    network = models.build(ClassicModel(), 10).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layers = models.summary(network)
    assert sum(layer.parameters for layer in layers) == models.parameters(network)
    assert layers[0].kind.startswith("Conv2d 3 →")
    assert layers[0].output[1:] == (32, 32)
    assert layers[-1].output == (10,)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_there_is_a_builder_for_every_kind_of_network() -> None:
    kinds = {kind.model_fields["name"].default for kind in get_args(AnyModel)}
    assert set(models.MODELS) == kinds - {"custom"}


def test_answers_of_the_whitened_layer_to_its_images_are_uncorrelated_and_of_variance_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "CHUNK", 40)  # so that there are several
    torch.manual_seed(0)
    coarse = torch.nn.functional.interpolate(torch.randn(200, 3, 8, 8), size=(32, 32), mode="bilinear")
    images = coarse + 0.3 * torch.randn(200, 3, 32, 32)  # neighbouring pixels resemble each other
    network = models.build(SpeedModel(), 10)
    models.initialise(SpeedModel(whitening_images=150), network, lambda number: images[:number])
    assert isinstance(network, SpeedNet)
    nn.init.zeros_(network.whitening.get_parameter("bias"))
    answers = network.whitening(images[:150]).movedim(1, -1).reshape(-1, 24)
    second_moments = (answers.T @ answers / len(answers))[:12, :12]
    assert torch.allclose(second_moments, torch.eye(12), atol=0.05)
    assert torch.allclose(answers[:, :12], -answers[:, 12:], atol=1e-4)


def test_a_fresh_convolution_of_the_speed_network_hands_its_input_on() -> None:
    network = models.build(SpeedModel(), 10)
    assert isinstance(network, SpeedNet)
    inputs = torch.rand(2, 64, 6, 6)
    handed_on = network.groups[1].get_submodule("convolutions.0")(inputs)[:, :64]
    assert torch.allclose(handed_on, inputs, atol=1e-6)


def test_the_depth_of_the_speed_network_is_convolutions_for_each_group_and_deep_ones_add_their_input() -> None:
    for depth in (1, 2, 3, 4):
        network = models.build(SpeedModel(widths=(8, 16), depth=depth), 10).eval()
        assert isinstance(network, SpeedNet)
        kernels = [module for module in network.groups.modules() if isinstance(module, nn.Conv2d)]
        assert len(kernels) == 2 * depth
        group = network.groups[0]
        with torch.no_grad():
            kernels[0].weight.fill_(0.01)  # so that what is added cannot be cancelled
            kernels[depth - 1].weight.zero_()
            inputs = torch.rand(2, 24, 8, 8)
            assert (group(inputs).abs().max() > 0) == (depth > 2)


def test_the_speed_network_takes_images_of_other_sizes() -> None:
    network = models.build(SpeedModel(), 10)
    assert all(network(torch.rand(2, 3, side, side)).shape == (2, 10) for side in (16, 20, 24, 32, 40))
    with pytest.raises(RecipeError, match="expected at most 2"):
        models.build(SpeedModel(), 10, (8, 8))


def test_where_timm_cannot_be_imported_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        MissingExtra, match=r"pip install -c constraints\.txt -e '\.\[timm\]' .*whl/cpu for the one for CPUs"
    ):
        models.build(TimmModel(), 10)


class Assertive(nn.Module):
    """As vision transformers of timm: numbers are computed while it is built, and it asserts its images' size."""

    def __init__(self, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        rates = [number.item() for number in torch.linspace(0, 0.1, 3)]
        self.size, self.drop, self.head = size, nn.Dropout(rates[-1]), nn.Linear(3 * size[0] * size[1], classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch._assert(images.shape[2:] == self.size, "Input height doesn't match model.")  # type: ignore[no-untyped-call]
        scores: torch.Tensor = self.head(self.drop(images.flatten(1)))
        return scores


def test_a_network_that_computes_while_it_is_built_is_loaded_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(models.MODELS, "timm", lambda _, classes, size: Assertive(classes, size))
    recipe = recipes.load("classic", ["model.name=timm", "epochs=1"])
    trained = train(recipe, "shapes:training=40,test=20", out=tmp_path / "run").finish()
    assert Classifier.load(tmp_path / "run").fingerprint == trained.fingerprint
    monkeypatch.setitem(models.MODELS, "timm", lambda _, classes, size: Assertive(classes, (size[0] - 1, size[1])))
    with pytest.raises(ModelError, match="weights do not fit"):
        Classifier.load(tmp_path / "run")


def test_a_network_that_asserts_its_size_is_told_of_scaled_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.MODELS, "timm", lambda _, classes, size: Assertive(classes, size))
    recipe = recipes.load("classic", ["model.name=timm", "epochs=2", "image_scales=[0.5, 1.0]"])
    with pytest.raises(RecipeError, match=r"image_scales: .*Input height doesn't match model"):
        train(recipe, "shapes:training=40,test=20")


@pytest.mark.parametrize("model", ["resnet10t", "vit_tiny_patch16_224"])
def test_networks_of_timm_train_and_are_loaded_again(model: str, tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="needs timm and a torchvision that fits torch", exc_type=ImportError)
    recipe = recipes.load("classic", ["model.name=timm", f"model.model={model}", "epochs=1", "batch_size=20"])
    trained = train(recipe, "shapes:training=40,test=20", out=tmp_path / "run").finish()
    assert Classifier.load(tmp_path / "run").fingerprint == trained.fingerprint


def test_averages_of_batch_normalisation_are_renewed_as_plain_means_over_batches() -> None:
    first, second = nn.BatchNorm2d(3, momentum=0.3), nn.BatchNorm2d(3, momentum=None)
    network = nn.Sequential(nn.Conv2d(3, 3, 1), first, second)
    network(torch.rand(4, 3, 5, 5))  # what was seen before does not count
    second.eval()
    kept = second.running_mean.clone() if second.running_mean is not None else None
    batches = [torch.randn(6, 3, 5, 5) * number for number in (1, 2, 3)]
    models.renew_averages(network, batches)
    seen = [network[0](batch) for batch in batches]
    assert first.running_mean is not None
    assert first.running_var is not None
    assert torch.allclose(first.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0), atol=1e-6)
    assert torch.allclose(first.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0), atol=1e-5)
    assert (first.momentum, second.momentum) == (0.3, None)
    assert kept is not None
    assert second.running_mean is not None
    assert torch.equal(second.running_mean, kept)  # it is in evaluation mode


@pytest.mark.parametrize(
    "settings", [*EVERY, pytest.param(TransformerModel(attention_dropout=0.0), id="attention without dropout")]
)
def test_operations_are_counted_where_nothing_is_computed(settings: AnyModel) -> None:
    with torch.device("meta"):
        nothing = models.build(settings, 10)
    forward, both = (models.flops_per_image(nothing, backward=backward) for backward in (False, True))
    assert 2 * forward < both < 3.01 * forward
    assert both == models.flops_per_image(models.build(settings, 10))


def test_operations_are_counted_whatever_the_caller_does() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(10))
    network(torch.rand(1, 3, 8, 8))
    forward, both = (models.flops_per_image(network, (8, 8), backward=backward) for backward in (False, True))
    with torch.inference_mode():
        assert models.flops_per_image(network, (8, 8), backward=False) == forward > 0
    compiled = torch.compile(network, backend="eager")
    assert isinstance(compiled, nn.Module)
    assert models.flops_per_image(compiled, (8, 8)) == both


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_convolution_costs_three_times_forward_unless_it_is_the_first(groups: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 16, 3, stride=2, groups=groups, padding=1))
    first, second = 2 * 3 * 8 * 36, 2 * 9 * 8 // groups * 16 * 9
    assert models.flops_per_image(network, (6, 6), backward=False) == first + second
    assert models.flops_per_image(network, (6, 6)) == 2 * first + 3 * second


def test_a_transposed_convolution_costs_as_much_as_the_one_that_it_turns_round() -> None:
    one = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 2, stride=2))
    other = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ConvTranspose2d(16, 8, 2, stride=2))
    larger, smaller = models.flops_per_image(one, (6, 6)), models.flops_per_image(other, (3, 3))
    assert larger - 2 * 2 * 3 * 8 * 36 == smaller - 2 * 2 * 3 * 16 * 9 == 3 * 2 * 4 * 8 * 16 * 9
