from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thirtytwo import models, optim
from thirtytwo.optim import schedule
from thirtytwo.settings import Adam, ClassicModel, Constant, Cosine, OneCycle, Plateau, Sgd, StepDecay

STATELESS = [
    Constant(warmup_epochs=2.0),
    StepDecay(every_epochs=3.0, factor=0.5),
    Cosine(warmup_epochs=1.0, final_factor=0.1),
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


@pytest.mark.parametrize("settings", [Adam(weight_decay=0.1), Sgd(weight_decay=0.1)], ids=["adam", "sgd"])
def test_weight_decay_spares_norms_and_biases(settings: Adam | Sgd) -> None:
    network = models.build(ClassicModel(), 10)
    optimizer = optim.build(settings, network)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1), name
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))


def test_adam_follows_its_paper() -> None:
    """Kingma & Ba 2015, algorithm 1, in float64."""
    settings = Adam(learning_rate=0.01, beta1=0.8, beta2=0.95, epsilon=1e-6)
    module = nn.Linear(3, 2, bias=False)
    optimizer = optim.build(settings, module)
    weights = module.weight.detach().double().clone()
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 20):
        gradient = torch.randn(weights.shape, generator=generator)
        module.weight.grad = gradient.clone()
        optimizer.step()
        first = 0.8 * first + 0.2 * gradient.double()
        second = 0.95 * second + 0.05 * gradient.double() ** 2
        corrected = (second / (1 - 0.95**step)).sqrt() + 1e-6
        weights -= 0.01 * first / (1 - 0.8**step) / corrected
    assert torch.allclose(module.weight.detach().double(), weights, atol=1e-6)


def test_constant_schedule_is_constant() -> None:
    rate = optim.build_schedule(Constant(), epochs=3, steps_per_epoch=5)
    assert {rate(step, []) for step in range(15)} == {1.0}
    assert not math.isnan(rate(10**9, []))
