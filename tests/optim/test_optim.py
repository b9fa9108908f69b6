from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thirtytwo import models, optim
from thirtytwo.models.speed import SpeedNet
from thirtytwo.optim import schedule, sgd
from thirtytwo.optim.optimizer import Optimizer
from thirtytwo.settings import (
    Adam,
    AnyModel,
    AnyOptimizer,
    ClassicModel,
    Constant,
    Cosine,
    Linear,
    Muon,
    OneCycle,
    Plateau,
    Sgd,
    SpeedModel,
    StepDecay,
    TransformerModel,
)

STATELESS = [
    Constant(warmup_epochs=2.0),
    StepDecay(every_epochs=3.0, factor=0.5),
    Cosine(warmup_epochs=1.0, final_factor=0.1),
    Linear(warmup_epochs=1.0, final_factor=0.1),
    OneCycle(),
]


@pytest.mark.parametrize("settings", [*STATELESS, Plateau()], ids=lambda s: s.name)
def test_every_schedule_stays_between_zero_and_the_peak_and_reaches_it(settings: Constant) -> None:
    rate = optim.build_schedule(settings, epochs=10, steps_per_epoch=7)
    factors = [rate(step, [1.0] * (step // 7)) for step in range(70)]
    assert all(0 < factor <= 1 + 1e-12 for factor in factors)
    assert max(factors) > 0.99


@pytest.mark.parametrize("settings", STATELESS, ids=lambda s: s.name)
def test_a_schedule_is_a_function_of_the_step(settings: Constant) -> None:
    one, other = (optim.build_schedule(settings, epochs=10, steps_per_epoch=7) for _ in range(2))
    forwards = [one(step, []) for step in range(70)]
    backwards = [other(step, []) for step in reversed(range(70))]
    assert forwards == backwards[::-1]


def test_warmup_rises_linearly_and_then_stays() -> None:
    assert [schedule.warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert schedule.warmup(0, 0) == 1.0


def test_staircase_multiplies_once_per_interval() -> None:
    factors = [schedule.staircase(step, every_steps=2.5, factor=0.1) for step in range(6)]
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])


def test_cosine_is_half_way_at_half_time_and_ends_at_its_final_factor() -> None:
    assert schedule.cosine(0, 101) == 1.0
    assert schedule.cosine(50, 101, final_factor=0.2) == pytest.approx(0.6)
    assert schedule.cosine(100, 101, final_factor=0.2) == pytest.approx(0.2)


def test_a_line_falls_by_the_same_amount_each_step_and_would_end_with_the_step_after_the_last() -> None:
    assert [schedule.linear(step, 4) for step in range(5)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert schedule.linear(2, 10, warmup_steps=2, final_factor=0.2) == 1.0
    assert schedule.linear(10, 10, warmup_steps=2, final_factor=0.2) == pytest.approx(0.2)


@pytest.mark.parametrize("kind", [Cosine, Linear])
def test_the_final_rate_lasts_for_the_final_epochs(kind: type[Cosine | Linear]) -> None:
    settings = kind(warmup_epochs=1.0, final_factor=0.2, final_epochs=3.0)
    rate = optim.build_schedule(settings, epochs=8, steps_per_epoch=10)
    shorter = optim.build_schedule(kind(warmup_epochs=1.0, final_factor=0.2), epochs=5, steps_per_epoch=10)
    assert [rate(step, []) for step in range(50)] == [shorter(step, []) for step in range(50)]
    assert [rate(step, []) for step in range(50, 80)] == pytest.approx([0.2] * 30)


def test_one_cycle_starts_low_peaks_and_ends_lowest() -> None:
    def factor(step: int) -> float:
        return schedule.one_cycle(step, 101, warmup_fraction=0.3, initial_factor=0.04, final_factor=0.001)

    assert factor(0) == pytest.approx(0.04)
    assert factor(30) == pytest.approx(1.0)
    assert factor(100) == pytest.approx(0.001)
    rising, falling = [factor(s) for s in range(31)], [factor(s) for s in range(30, 101)]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


def test_one_cycle_agrees_with_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=50, pct_start=0.3, div_factor=25, final_div_factor=40, cycle_momentum=False
    )
    expected = []
    for _ in range(50):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    # torch peaks at step 0.3 × 50 − 1, we at 0.3 × 49: the same curve with the peak moved by less than a step.
    warmup_fraction = (0.3 * 50 - 1) / 49
    ours = [
        schedule.one_cycle(s, 50, warmup_fraction=warmup_fraction, initial_factor=0.04, final_factor=0.001)
        for s in range(50)
    ]
    assert ours == pytest.approx(expected, abs=1e-9)


def test_plateau_reduces_after_patience_epochs_without_a_new_best() -> None:
    def factor(losses: Sequence[float]) -> float:
        return schedule.plateau(losses, patience=2, factor=0.5, minimum_factor=0.2)

    assert factor([]) == 1.0
    assert factor([3, 2, 1]) == 1.0
    assert factor([1, 2]) == 1.0
    assert factor([1, 2, 2]) == 0.5
    assert factor([1, 2, 2, 2]) == 0.5
    assert factor([1, 2, 2, 2, 2]) == 0.25
    assert factor([1, 2, 2, 0.5, 2]) == 0.5
    assert factor([1] + [2] * 50) == 0.2


@given(st.lists(st.floats(0.1, 10), max_size=40))
def test_plateau_never_raises_the_rate_again(losses: list[float]) -> None:
    factors = [
        schedule.plateau(losses[:n], patience=2, factor=0.5, minimum_factor=0.01) for n in range(len(losses) + 1)
    ]
    assert factors == sorted(factors, reverse=True)


OPTIMISERS = [Adam(weight_decay=0.1), Sgd(weight_decay=0.1), Muon(decay=0.1)]
NETWORKS = [ClassicModel(stages=((4,), (8,)), hidden_units=8), SpeedModel(widths=(8, 8))]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda settings: settings.name)
@pytest.mark.parametrize("settings", OPTIMISERS, ids=lambda settings: settings.name)
def test_every_trainable_parameter_is_updated_once(settings: AnyOptimizer, network: AnyModel) -> None:
    built = models.build(network, 10)
    before = {name: parameter.detach().clone() for name, parameter in built.named_parameters()}
    optimizers = optim.build(settings, built)
    numbers = [id(parameter) for one in optimizers for group in one.param_groups for parameter in group["params"]]
    trainable = {id(parameter) for parameter in built.parameters() if parameter.requires_grad}
    assert sorted(numbers) == sorted(trainable)
    optim.set_rates(optimizers, 1.0, 0.0)
    built(torch.rand(4, 3, 32, 32)).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    for name, parameter in built.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


@pytest.mark.parametrize("settings", OPTIMISERS[:2], ids=["adam", "sgd"])
def test_weight_decay_spares_norms_and_biases(settings: Adam | Sgd) -> None:
    network = models.build(ClassicModel(), 10)
    (optimizer,) = optim.build(settings, network)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1), name


def test_where_a_token_is_is_no_weight() -> None:
    network = models.build(TransformerModel(width=8, depth=1, heads=2), 3, (8, 8))
    (adam,) = optim.build(Adam(weight_decay=0.1), network)
    (free,) = (group["params"] for group in adam.param_groups if not group["weight_decay"])
    assert any(parameter is network.positions for parameter in free)
    *_, kernels = optim.groups(optim.build(Muon(), network))
    assert {parameter.ndim for parameter in kernels["params"]} == {4}  # convolutions only


class Tokens(nn.Module):
    """Parameters as the transformers of timm have them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.along = nn.Conv1d(8, 8, 3)
        self.cls_token, self.pos_embed = nn.Parameter(torch.rand(1, 1, 8)), nn.Parameter(torch.rand(1, 5, 8))
        self.relative_position_bias_table = nn.Parameter(torch.rand(9, 2))
        self.head = nn.Linear(8, 2)

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "pos_embed", "relative_position_bias_table"}


SPARED = {"cls_token", "pos_embed", "relative_position_bias_table"}


@pytest.mark.parametrize("settings", OPTIMISERS, ids=lambda settings: settings.name)
@pytest.mark.parametrize("inside", [False, True], ids=["itself", "a part of another"])
def test_what_a_network_names_is_not_decayed(settings: AnyOptimizer, inside: bool) -> None:
    network = nn.Sequential(nn.Identity(), Tokens()) if inside else Tokens()
    groups = optim.groups(optim.build(settings, network))
    decays = {id(p): group.get("weight_decay") for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        last = name.removeprefix("1.")
        is_weight = parameter.ndim > 1
        if isinstance(settings, Muon):  # its kernels keep their norm, everything else is decayed, biases too
            is_weight = parameter.ndim != 4
        assert bool(decays[id(parameter)]) == (is_weight and last not in SPARED), name


def test_only_kernels_of_two_dimensional_convolutions_are_muons() -> None:
    network = Tokens()
    *others, kernels = optim.groups(optim.build(Muon(), network))
    (kernel,) = kernels["params"]
    assert kernel is network.patches.weight
    rates = {id(p): group["peak"] for group in others for p in group["params"]}
    assert {rates[id(p)] for p in (network.head.weight, network.along.weight)} == {Muon().dense_learning_rate}
    assert {rates[id(network.get_parameter(name))] for name in SPARED} == {Muon().bias_learning_rate}


def test_decay_beside_muon_is_a_share_per_step_at_the_peak_rate() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone(), module.bias.detach().clone()
    optimizers = optim.build(Muon(decay=0.01, sgd_momentum=0.0), module)
    optim.set_rates(optimizers, 1.0, 0.0)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    assert torch.allclose(module.weight, 0.99 * before[0])
    assert torch.allclose(module.bias, 0.99 * before[1])


def test_rates_follow_the_schedule_and_the_whitening_bias_its_own_line() -> None:
    optimizers = optim.build(Muon(whitening_fraction=0.5), models.build(SpeedModel(widths=(8, 8)), 10))
    rates = {}
    for done in (0.0, 0.25, 0.5, 0.75):
        optim.set_rates(optimizers, 0.5, done)
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        rates[done] = [group["lr"] / group["peak"] for group in groups]
    assert rates == {0.0: [0.5, 0.5, 1.0, 0.5], 0.25: [0.5] * 4, 0.5: [0.5, 0.5, 0.0, 0.5], 0.75: [0.5, 0.5, 0.0, 0.5]}


def test_a_group_that_has_ended_costs_no_gradient() -> None:
    network = models.build(SpeedModel(widths=(8, 8)), 10)
    assert isinstance(network, SpeedNet)
    optimizers = optim.build(Muon(whitening_fraction=0.5), network)
    costs, bias = [], network.whitening.bias
    assert bias is not None
    for done in (0.49, 0.5, 0.2):  # and back, as after a checkpoint from before
        optim.set_rates(optimizers, 0.5, done)
        network.zero_grad()
        network(torch.rand(4, 3, 32, 32)).sum().backward()
        assert (bias.grad is None) == (done >= 0.5)
        costs.append(models.flops_per_image(network))
    assert costs[1] < costs[0] == costs[2]


@pytest.mark.parametrize("settings", OPTIMISERS, ids=lambda settings: settings.name)
def test_an_optimiser_restored_goes_on_to_the_same_bits(settings: AnyOptimizer) -> None:
    def gradients(step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))

    def update(optimizers: optim.Optimizers, steps: range) -> None:
        for step in steps:
            gradients(step)
            optim.set_rates(optimizers, 0.5, 0.0)
            for optimizer in optimizers:
                optimizer.step()

    network = models.build(SpeedModel(widths=(8, 8)), 10)
    optimizers = optim.build(settings, network)
    update(optimizers, range(3))
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    remembered = {name: tensor.clone() for name, tensor in optim.state_tensors(optimizers).items()}
    update(optimizers, range(3, 6))
    expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network = models.build(SpeedModel(widths=(8, 8)), 10)
    network.load_state_dict(weights)
    again = optim.build(settings, network)
    update(again, range(7, 8))  # what it remembers of this is to be forgotten
    network.load_state_dict(weights)
    optim.restore_state(again, remembered)
    update(again, range(3, 6))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


THEIRS = {
    "adam": (Adam(learning_rate=0.01, weight_decay=0.1), torch.optim.AdamW, {}),
    "sgd": (Sgd(learning_rate=0.01, momentum=0.9, nesterov=True), torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "heavy ball": (Sgd(learning_rate=0.01, momentum=0.9, nesterov=False), torch.optim.SGD, {"momentum": 0.9}),
    "no momentum": (Sgd(learning_rate=0.01, momentum=0.0, nesterov=False), torch.optim.SGD, {}),
}


@pytest.mark.parametrize(("settings", "theirs", "more"), THEIRS.values(), ids=list(THEIRS))
def test_the_same_bits_as_torchs(settings: Adam | Sgd, theirs: Any, more: dict[str, Any]) -> None:
    """And it goes on from what theirs remembers, as checkpoints of earlier versions hold it."""
    networks = []
    for _ in range(3):
        torch.manual_seed(0)
        networks.append(nn.Conv2d(3, 16, 3, bias=False).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    one, other, later = networks
    decay = {"weight_decay": settings.weight_decay}
    reference = theirs(one.parameters(), lr=settings.learning_rate, fused=True, **decay, **more)
    ours, resumed = (optim.build(settings, network) for network in (other, later))
    torch.set_default_dtype(torch.float64)  # which the caller may like
    try:
        for step in range(10):
            if step == 5:
                later.load_state_dict(other.state_dict())
                named = {name: value for name, value in reference.state[one.weight].items() if value is not None}
                optim.restore_state(resumed, {f"0.{name}": value.clone() for name, value in named.items()})
            for network in networks:
                generator = torch.Generator().manual_seed(step)
                drawn = torch.randn(one.weight.shape, generator=generator, dtype=torch.float32)
                network.weight.grad = torch.empty_like(network.weight).copy_(drawn)
            reference.step()
            ours[0].step()
            if step >= 5:
                resumed[0].step()
            assert torch.equal(other.weight, one.weight)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(later.weight, one.weight)


def test_adam_follows_its_paper() -> None:
    """Kingma & Ba 2015, algorithm 1, in float64."""
    settings = Adam(learning_rate=0.01, beta1=0.8, beta2=0.95, epsilon=1e-6)
    module = nn.Linear(3, 2, bias=False)
    optimizers = optim.build(settings, module)
    optim.set_rates(optimizers, 1.0, 0.0)
    weights = module.weight.detach().double().clone()
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 20):
        gradient = torch.randn(weights.shape, generator=generator)
        module.weight.grad = gradient.clone()
        optimizers[0].step()
        first = 0.8 * first + 0.2 * gradient.double()
        second = 0.95 * second + 0.05 * gradient.double() ** 2
        corrected = (second / (1 - 0.95**step)).sqrt() + 1e-6
        weights -= 0.01 * first / (1 - 0.8**step) / corrected
    assert torch.allclose(module.weight.detach().double(), weights, atol=1e-6)


def test_sgd_follows_sutskever() -> None:
    """Nesterov's momentum as Sutskever et al. (2013) write it, in torch's form, in float64."""
    module = nn.Linear(3, 2, bias=False)
    optimizers = optim.build(Sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.02), module)
    optim.set_rates(optimizers, 0.5, 0.0)
    weights = module.weight.detach().double().clone()
    momentum = torch.zeros_like(weights)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        gradient = torch.randn(weights.shape, generator=generator)
        module.weight.grad = gradient.clone()
        optimizers[0].step()
        full = gradient.double() + 0.02 * weights
        momentum = 0.9 * momentum + full
        weights -= 0.05 * (full + 0.9 * momentum)
    assert torch.allclose(module.weight.detach().double(), weights, atol=1e-6)


def test_constant_schedule_is_constant() -> None:
    rate = optim.build_schedule(Constant(), epochs=3, steps_per_epoch=5)
    assert {rate(step, []) for step in range(15)} == {1.0}
    assert not math.isnan(rate(10**9, []))


def test_what_a_checkpoint_knows_no_momentum_of_begins_with_none() -> None:
    def made() -> tuple[list[torch.Tensor], Optimizer]:
        torch.manual_seed(0)
        parameters = [torch.randn(3, requires_grad=True) for _ in range(2)]
        return parameters, sgd.Sgd(
            [{"params": parameters, "peak": 0.1, "weight_decay": 0}], momentum=0.9, nesterov=False
        )

    (used, unused), optimizer = made()
    used.grad = torch.ones(3)
    optimizer.step()
    stored = optim.state_tensors((optimizer,))
    assert list(stored) == ["0.momentum_buffer"]
    (used, unused), optimizer = made()
    optim.restore_state((optimizer,), stored)
    before = unused.detach().clone()
    used.grad, unused.grad = torch.ones(3), torch.ones(3)
    optimizer.step()
    assert torch.allclose(unused, before - 0.1)
