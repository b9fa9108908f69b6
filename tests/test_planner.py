from __future__ import annotations

from pathlib import Path

import pytest
import torch

from thirtytwo import models, planner
from thirtytwo import recipe as recipes
from thirtytwo.data.images import Images
from thirtytwo.data.source import Source
from thirtytwo.train import train


def entry(n: int, commit: str, data: str = "cifar10", kind: str = "training") -> dict[str, object]:
    settings = recipes.load("classic").for_images(50_000).digest
    facts = {"recipe": "classic", "settings": settings, "data": data, "device": "cpu"}
    return {"kind": kind, "n": n, "commit": commit, **facts}


def test_the_newest_of_several_runs_of_a_commit_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer, single = entry(3, "a"), entry(3, "b"), entry(1, "c")
    changed, other, race = entry(3, "d+"), entry(3, "e", "shapes"), entry(3, "f", kind="race")
    without_data = {"kind": "inference", "recipe": "classic", "n": 9, "device": "cpu"}
    monkeypatch.setattr(planner, "measured", lambda: (older, newer, single, changed, other, race, without_data))
    assert planner.newest("training", "classic") is newer
    monkeypatch.setattr(planner, "measured", lambda: (single, changed, other))
    assert planner.newest("training", "classic") is changed
    monkeypatch.setattr(planner, "measured", lambda: (other, race))
    assert planner.newest("training", "classic") is None


def test_what_was_measured_with_other_settings_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    other = entry(3, "a") | {"settings": recipes.load("classic", ["epochs=3"]).for_images(50_000).digest}
    monkeypatch.setattr(planner, "measured", lambda: (other,))
    assert planner.newest("training", "classic") is None


def test_how_far_pairs_are_to_be_trusted_is_what_the_newest_audit_of_these_data_was_judged_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older, newer = (
        {**entry(460, "a", kind="audit"), "judged": {"compared": {"precision": one}, "nearest": {"precision": other}}}
        for one, other in ((0.2, 0.3), (0.9, 0.8))
    )
    monkeypatch.setattr(planner, "measured", lambda: (older, newer, entry(3, "b"), {"kind": "ruler", "n": 1}))
    assert planner.precision_of_pairs("cifar10") == (0.8, 0.9)
    assert planner.precision_of_pairs("cifar10-5000") is None


def test_a_forecast_counts_what_is_left_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.load("classic", ["epochs=4", "model.stages=[[8]]", "batch_size=16", "image_scales=[0.5, 1]"])
    torch.manual_seed(0)
    network = models.build(recipe.model, 10).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = torch.random.get_rng_state()
    assert planner.seconds(recipe, network, 100, 50, (32, 32), half=False, begun=0) > 0
    assert planner.seconds(recipe, network, 2, 0, (32, 32), half=True, begun=0) > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.random.get_rng_state(), drawn)
    monkeypatch.setattr(planner, "_seconds_per_image", lambda *_: (3.0, 1.0))
    found = [planner.seconds(recipe, network, 100, 50, (32, 32), half=False, begun=begun) for begun in range(5)]
    # Half of the epochs with a quarter of the pixels; after each, a look at the validation images.
    assert found == pytest.approx([3 * 250 + 200, 3 * 225 + 150, 3 * 200 + 100, 3 * 100 + 50, 0])
    several = recipe.replace("views.mirror=true", "views.translate_pixels=1", "views.below_probability=0.8")
    assert planner.seconds(several, network, 100, 50, (32, 32), half=False, begun=3) == pytest.approx(
        3 * 100 + 50 * 3.5
    )
    sharp = recipe.replace("loss.sharpness_radius=0.1", "validate_every=4")
    assert planner.seconds(sharp, network, 100, 50, (32, 32), half=False, begun=0) == pytest.approx(2 * 3 * 250 + 50)


def test_results_are_found_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    processor, card = entry(3, "a") | {"device": "cpu"}, entry(3, "b") | {"device": "cuda"}
    monkeypatch.setattr(planner, "measured", lambda: (card, processor))
    assert planner.newest("training", "classic", "cuda") is card
    assert planner.newest("training", "classic", "cpu") is planner.newest("training", "classic") is processor


def test_only_an_unchanged_recipe_on_the_same_data_promises_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "measured", lambda: (entry(3, "a"),))
    recipe = recipes.load("classic")
    assert planner.expected(recipe, "cifar10", 50_000, "cpu") is not None
    assert planner.expected(recipe.for_images(50_000), "cifar10", 50_000, "cpu") is not None
    assert planner.expected(recipe, "shapes", 5000, "cpu") is None
    assert planner.expected(recipe.replace("epochs=3"), "cifar10", 50_000, "cpu") is None
    assert planner.expected(recipe.replace("name=mine"), "cifar10", 50_000, "cpu") is None
    assert planner.expected(recipes.load("airbench94"), "cifar10", 50_000, "cpu") is None


def test_what_was_measured_on_the_same_kind_of_device_is_expected_first(monkeypatch: pytest.MonkeyPatch) -> None:
    processor, card = entry(3, "a") | {"device": "cpu"}, entry(3, "b") | {"device": "cuda"}
    monkeypatch.setattr(planner, "measured", lambda: (processor, card))
    recipe = recipes.load("classic")
    assert planner.expected(recipe, "cifar10", 50_000, "cpu") is processor
    assert planner.expected(recipe, "cifar10", 50_000, "cuda") is card
    monkeypatch.setattr(planner, "measured", lambda: (card,))
    assert planner.expected(recipe, "cifar10", 50_000, "cpu") is card


def test_what_was_measured_in_the_same_precision_is_expected_first(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, slow = entry(1, "a") | {"precision": "bfloat16"}, entry(3, "b") | {"precision": "float32"}
    monkeypatch.setattr(planner, "measured", lambda: (quick, slow))
    recipe = recipes.load("classic")
    assert planner.expected(recipe, "cifar10", 50_000, "cpu", "bfloat16") is quick
    assert planner.expected(recipe, "cifar10", 50_000, "cpu", "float32") is slow
    assert planner.expected(recipe, "cifar10", 50_000, "cpu", "half") is slow


def test_what_was_measured_of_what_a_gpu_does_otherwise_is_found_for_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = recipes.load("classic", ['on_gpu=["batch_size=1000"]'])
    entries = tuple(
        entry(3, "a") | {"device": device, "settings": shipped.for_device(device).for_images(50_000).digest}
        for device in ("cpu", "cuda")
    )
    monkeypatch.setattr(planner, "measured", lambda: entries)
    monkeypatch.setattr(recipes, "load", lambda name: shipped)
    assert planner.every("training", "classic") == list(entries)
    for device, found in zip(("cpu", "cuda"), entries, strict=True):
        assert planner.expected(shipped.for_device(device), "cifar10", 50_000, device) is found
    monkeypatch.setattr(planner, "measured", lambda: (entries[0] | {"device": "cuda"},))
    assert planner.every("training", "classic") == []


def test_everything_measured_says_what_it_is() -> None:
    for found in planner.measured():
        assert found["n"] >= 1
        if found["kind"] not in ("improvement", "difference", "tuning"):  # of any recipe, or of several
            assert found["recipe"] in recipes.names()
        assert len(str(found["commit"]).removesuffix("+")) == 40


WORK = {
    "fast94": ["model.widths=[8, 8]", "model.kernels=torch", "model.whitening_images=50", "batch_size=30", "epochs=4"],
    "selected, scaled and early": [
        "model.widths=[8, 8]", "model.kernels=torch", "model.whitening_images=50", "batch_size=20", "epochs=4",
        "selection.drop=0.4", "image_scales=[0.75, 1.0]", "optimizer.whitening_fraction=0.3", "drop_last=true",
    ],
    "sharpness-aware": [
        "model.name=resnet", "model.widths=[4]", "model.blocks=[1]", "model.stem=4", "optimizer.name=sgd", "epochs=2",
        "batch_size=50", "loss.sharpness_radius=0.1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("variant", WORK)
def test_the_work_of_a_training_is_known_before_it(
    variant: str, small_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipes.load("fast94", [*WORK[variant], "validation=0.1"])
    reader = Source(spec="made", name="made", location="memory", notice="", reader=lambda split: small_images)
    training = train(recipe, reader)
    facts = len(small_images), len(small_images.classes), small_images.size
    work = planner.work(recipe, *facts)
    asked = [parameter.requires_grad for parameter in training.network.parameters()]
    assert planner.work(recipe, *facts, training.network) == work
    assert [parameter.requires_grad for parameter in training.network.parameters()] == asked
    training.finish()
    assert training.run.result["flops"] == pytest.approx(work.flops, rel=0.03)
    assert training.run.result["parameters"] == work.parameters
