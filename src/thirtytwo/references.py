"""Trained models that a recipe names: a teacher, whose answers a network imitates, and a start, whose weights it takes.

A teacher's probabilities say more of an image than the label does: what else it might be, and how sure one can be
(Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531). A teacher, often several that
answer together, is asked in every step about the very images that the network is shown (`step`). Weights that have
learned from many images are a better beginning than random ones, for other classes, too (Yosinski et al. 2014, "How
transferable are features in deep neural networks?", arXiv 1411.1792).

Here these models are read, and whether they may be used is asked before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from thirtytwo import models
from thirtytwo.classifier import PRETRAINED, Classifier, Ensemble, class_difference, file_of, unseen_share
from thirtytwo.data import Images
from thirtytwo.errors import InputError, ModelError, RecipeError
from thirtytwo.recipe import Recipe
from thirtytwo.settings import CustomModel, Reference

Role = Literal["teacher", "start"]
"""What a model is named for: the section of the recipe."""

ROLES: tuple[Role, ...] = ("teacher", "start")


def _settings(recipe: Recipe, role: Role) -> Reference:
    return recipe.teacher if role == "teacher" else recipe.start


def load(
    recipe: Recipe,
    device: torch.device,
    places: Mapping[Role, str | Path | None] | None = None,
) -> dict[Role, Classifier]:
    """The models that a recipe names.

    Args:
        recipe: any.
        device: where they shall answer.
        places: where they are now, if they have moved.

    Raises:
        ModelError: one cannot be read, or is another one than the recipe says.
        RecipeError: there is a place for one that the recipe does not name.
    """
    found: dict[Role, Classifier] = {}
    for role in ROLES:
        place, settings = (places or {}).get(role), _settings(recipe, role)
        if place is not None and not settings.model:
            raise RecipeError(
                f"{role} {place}: recipe {recipe.name} names no {role}; expected one that does, since this says only "
                f"where it is; set {role}.model in the recipe"
            )
        if settings.model:
            found[role] = _read(settings, role, device, place or settings.model)
    return found


def _read(settings: Reference, role: Role, device: torch.device, place: str | Path) -> Classifier:
    try:
        found = Classifier.load(place, device=device)
    except InputError as error:
        raise ModelError(f"{role}.model: {error}") from None
    if settings.fingerprint and settings.fingerprint != found.fingerprint:
        raise ModelError(
            f"{role}.model: {place} has the fingerprint {found.fingerprint[:12]}, expected "
            f"{settings.fingerprint[:12]}, which the recipe names; put that model back, or train anew with "
            f"--set {role}.fingerprint= to take this one"
        )
    return found


def content(recipe: Recipe) -> dict[Role, bytes]:
    """The files of the models that a recipe names, to be sent to a machine that does not see them.

    Raises:
        ModelError: one cannot be read.
    """
    found: dict[Role, bytes] = {}
    for role in ROLES:
        model = _settings(recipe, role).model
        if model in ("", PRETRAINED):  # which lies in the package, there as well
            continue
        try:
            found[role] = file_of(model).read_bytes()
        except InputError as error:
            raise ModelError(f"{role}.model: {error}") from None
        except OSError as error:
            raise ModelError(
                f"{role}.model: {model}: cannot be read ({error.strerror}); expected a trained model; check the path"
            ) from None
    return found


def places(recipe: Recipe, here: Mapping[Role, Path] | None = None) -> dict[Role, str | Path]:
    """Where the models that a recipe names are: on this machine, if they were sent to it, or where the recipe says."""
    named = {role: _settings(recipe, role).model for role in ROLES}
    return {role: (here or {}).get(role, model) for role, model in named.items() if model}


def named(recipe: Recipe, loaded: Mapping[Role, Classifier]) -> Recipe:
    """The recipe with all that it takes to find its models again, and to know that they are the same.

    Args:
        recipe: any.
        loaded: what `load` has returned for it.
    """
    known: dict[str, Reference] = {}
    for role, found in loaded.items():
        settings = _settings(recipe, role)
        place = settings.model if settings.model == PRETRAINED else str(Path(settings.model).resolve())
        fingerprint = settings.fingerprint or found.fingerprint  # are equal, see `load`
        known[role] = settings.model_copy(update={"model": place, "fingerprint": fingerprint})
    return recipe.model_copy(update=known) if known else recipe


def identified(recipe: Recipe) -> Recipe:
    """See `named`; the models are read for it.

    Raises:
        ModelError: one cannot be read, or is another one than the recipe says.
    """
    return named(recipe, load(recipe, torch.device("cpu")))


def told(recipe: Recipe, loaded: Mapping[Role, Classifier]) -> dict[str, dict[str, str | None]]:
    """What facts of a training say of the models that its recipe, see `named`, names: nothing where there are none."""
    return {
        role: {
            "model": _settings(recipe, role).model,
            "fingerprint": _settings(recipe, role).fingerprint,
            "recipe": found.facts.get("recipe"),
        }
        for role, found in loaded.items()
    }


# Whether they may be used --------------------------------------------------------------------------------------------


def check(loaded: Mapping[Role, Classifier], recipe: Recipe, images: Images) -> None:
    """That models fit, and give away nothing that the network is judged by.

    A model that has seen validation images knows their labels by heart, and a network that it teaches, or that begins
    with its weights, would be judged too well. So it must have held out the same images, or have been trained on
    others; how it was made has been chosen by them at most, as by everybody else. Without validation images there is
    nothing to give away.

    Args:
        loaded: the models that the recipe names.
        recipe: as resolved for the images.
        images: the training images, validation part included.

    Raises:
        ModelError: one tells apart other classes and teaches, takes images of another size, is another network than
            the one that begins with it, or may have seen validation images.
    """
    if (teacher := loaded.get("teacher")) is not None:
        _check_teacher(teacher, recipe, images)
    if (start := loaded.get("start")) is not None:
        _check_start(start, recipe, images)


def _remedy(recipe: Recipe) -> str:
    return "train without validation images: --set validation=0" + (
        " --set early_stopping.patience=0" if recipe.early_stopping.patience else ""
    )


def _check_teacher(teacher: Classifier, recipe: Recipe, images: Images) -> None:
    name = recipe.teacher.model
    if difference := class_difference(images.classes, teacher.classes):
        raise ModelError(
            f"teacher.model: {name} does not know these classes: {images.name} {difference}; expected the same ones in "
            "the same order; choose a teacher that was trained for them"
        )
    _check_size("teacher", name, teacher, images)
    if not recipe.validation:
        return
    try:
        share = unseen_share([teacher], [name], images.fingerprint)
    except ModelError as error:
        raise ModelError(
            f"teacher.model: through it, the network would know the images that it is judged by. {error}; or "
            f"{_remedy(recipe)}"
        ) from None
    if share != recipe.validation:
        raise _other_share("teacher", name, share, recipe)


def _check_start(start: Classifier, recipe: Recipe, images: Images) -> None:
    name = recipe.start.model
    if isinstance(recipe.model, CustomModel):
        raise ModelError(
            f"start.model: {name}, but the network is your own ({recipe.model.module}); expected a recipe's network; "
            "leave start.model out, and load weights into your network before you pass it"
        )
    if isinstance(start, Ensemble):
        raise ModelError(
            f"start.model: {name} is an ensemble; expected a single network, whose weights can be taken over; choose "
            "one of its members, or let it teach: teacher.model"
        )
    _check_size("start", name, start, images)
    if start.pixels != recipe.pixels:
        raise ModelError(
            f"start.model: {name} takes pixels with the mean {list(start.pixels.mean)} and the standard deviation "
            f"{list(start.pixels.standard_deviation)}, recipe {recipe.name} has {list(recipe.pixels.mean)} and "
            f"{list(recipe.pixels.standard_deviation)}; expected the same, which its weights were made for; set "
            "pixels.mean and pixels.standard_deviation to its values"
        )
    beginning(start, recipe, images.classes)  # whether its weights fit
    if not recipe.validation:
        return
    _, held_out = images.split(recipe.validation)
    if start.facts.get("fingerprint") == images.fingerprint:
        share = float(start.facts.get("validation_fraction", 0.0))
        if share != recipe.validation:
            raise _other_share("start", name, share, recipe)
        return
    if (seen := start.seen) is not None:
        found, asked = seen.look_up(images.take(held_out).digests)
        known = f"{found:,} of {asked:,} of these that were looked up" if found else ""
    else:
        # Its file does not tell; a part of a data set is called after the whole.
        whole = str(start.facts.get("data", start.facts.get("spec"))).partition("-")[0]
        known = f"many of these, since it was trained on {whole}, too" if whole == images.name.partition("-")[0] else ""
    if known:
        raise ModelError(
            f"start.model: with its weights, the network would know validation images: {name} has been trained with "
            f"{known}; expected weights that have never seen them; choose a model that was trained on other pictures, "
            f"or {_remedy(recipe)}"
        )


def _check_size(role: Role, name: str, model: Classifier, images: Images) -> None:
    if model.size != images.size:
        found, expected = (f"{height} × {width}" for height, width in (model.size, images.size))
        raise ModelError(
            f"{role}.model: {name} takes images of {found} pixels; expected {expected}, as {images.name} has; choose "
            f"a {role} that was trained on such"
        )


def _other_share(role: Role, name: str, share: float, recipe: Recipe) -> ModelError:
    same = f"set validation={share:g}, or " if share else ""
    return ModelError(
        f"{role}.model: {name} held out {share:.0%} of the training images, expected {recipe.validation:.0%}, as "
        f"this training does; otherwise the network would know, through its {role}, images that it is judged by; "
        f"{same}{_remedy(recipe)}"
    )


# What is taken over --------------------------------------------------------------------------------------------------


def beginning(start: Classifier, recipe: Recipe, classes: tuple[str, ...]) -> dict[str, Tensor]:
    """The weights, and whatever else a network's state is, that a training begins with, by name.

    What belongs to single classes, such as rows of the last layer, goes to the classes of the same names if all of them
    are known; otherwise it is left out, and begins at random.

    Raises:
        ModelError: it is another network.
    """
    state, known = start.network.state_dict(), len(start.classes)
    expected, wider = (models.shapes(recipe.model, number, start.size) for number in (known, known + 1))
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if different := sorted({key for key, _ in expected.items() ^ found.items()}):
        raise ModelError(
            f"start.model: {recipe.start.model} is another network ({start.model.name}) than recipe {recipe.name} "
            f"trains ({recipe.model.name}): they differ in {', '.join(different[:3])}; expected the same one; choose a "
            "recipe with that network, or give its settings to this one"
        )
    # Along this dimension, what belongs to a class is one row.
    of_classes = {
        key: next(number for number, sides in enumerate(zip(shape, wider[key], strict=True)) if len({*sides}) > 1)
        for key, shape in expected.items()
        if shape != wider[key]
    }
    if not set(classes) <= set(start.classes):
        return {key: tensor for key, tensor in state.items() if key not in of_classes}
    rows = torch.tensor([start.classes.index(name) for name in classes], device=start.device)
    return {
        key: tensor.index_select(of_classes[key], rows) if key in of_classes else tensor
        for key, tensor in state.items()
    }
