"""Trained models that a recipe names: a teacher, whose answers a network imitates, and a start, whose weights it takes.

A teacher's probabilities say more of an image than the label does: what else it might be, and how sure one can be
(Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531). A teacher, often several that
answer together, is asked in every step about the very images that the network is shown (`step`). Weights that have
learned from many images are a better beginning than random ones, for other classes, too (Yosinski et al. 2014, "How
transferable are features in deep neural networks?", arXiv 1411.1792).

Here these models are read, and whether they may be used is asked before the first step.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thirtytwo import models
from thirtytwo.classifier import PRETRAINED, Classifier, Ensemble, class_difference, file_of, unseen_share
from thirtytwo.data import Images, Sketch
from thirtytwo.data.sketch import is_worth_telling
from thirtytwo.errors import InputError, ModelError, RecipeError
from thirtytwo.recipe import Recipe
from thirtytwo.settings import CustomModel, Reference, Settings

Role = Literal["teacher", "start"]
"""What a model is named for: the section of the recipe."""

ROLES: tuple[Role, ...] = ("teacher", "start")


def _settings(recipe: Recipe, role: Role) -> Reference:
    return recipe.teacher if role == "teacher" else recipe.start


def load(
    recipe: Recipe,
    device: str | torch.device = "cpu",
    places: Mapping[Role, str | Path | None] | None = None,
    roles: Collection[Role] = ROLES,
) -> dict[Role, Classifier]:
    """The models that a recipe names.

    Args:
        recipe: any.
        device: where they shall answer.
        places: where they are now, if they have moved.
        roles: those that are wanted.

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
        if settings.model and role in roles:
            found[role] = _read(settings, role, device, place or settings.model)
    return found


def _read(settings: Reference, role: Role, device: str | torch.device, place: str | Path) -> Classifier:
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


def identified(recipe: Recipe, images: Images) -> Recipe:
    """See `named`; the models are read for it, and `check` is asked before hours are spent on what is trained first.

    Args:
        recipe: as resolved for the device.
        images: the training images, validation part included.

    Raises:
        ModelError: one cannot be read, is another one than the recipe says, or may not be used.
        RecipeError: one does not fit the recipe.
    """
    loaded = load(recipe)
    check(loaded, recipe, images)
    return named(recipe, loaded)


def told(recipe: Recipe, loaded: Mapping[Role, Classifier]) -> dict[str, Any]:
    """What facts of a training say of the models that its recipe, see `named`, names: nothing where there are none.

    Of a start also what its weights know, and with them the network: in ``start`` as ``untold`` names of data sets
    whose pictures nobody has noted, and beside it as ``seen_by_start`` a sketch of those that somebody has.
    """
    facts: dict[str, Any] = {
        role: {
            "model": _settings(recipe, role).model,
            "fingerprint": _settings(recipe, role).fingerprint,
            "recipe": found.facts.get("recipe"),
        }
        for role, found in loaded.items()
    }
    if (start := loaded.get("start")) is not None:
        if names := _untold(start):
            facts["start"]["untold"] = names
        if (seen := start.seen) is not None:
            facts["seen_by_start"] = seen.to_json()
    return facts


def seen(images: Images, facts: Mapping[str, Any]) -> Sketch:
    """The pictures that a network will have seen: its training images, and those that its first weights know.

    Args:
        images: the training images, validation part included.
        facts: what `told` says.
    """
    own = Sketch.of(images.digests)
    return Sketch.merged([own, Sketch.recalled(facts["seen_by_start"])]) if "seen_by_start" in facts else own


def check_told(facts: Mapping[str, Any]) -> None:
    """Whether facts that were stored hold what `told` said.

    Raises:
        KeyError, TypeError, ValueError: they do not.
    """
    if "seen_by_start" in facts:
        Sketch.recalled(facts["seen_by_start"])


def _untold(model: Classifier) -> list[str]:
    """Names of data sets that a model's weights, or those that it began with, have learned from without a note."""
    own = [] if model.seen is not None else [str(model.facts.get("data", model.facts.get("spec")))]
    begun = model.facts.get("start")
    earlier = begun.get("untold") if isinstance(begun, dict) else None
    return sorted({*own, *(map(str, earlier) if isinstance(earlier, list) else [])})


# Whether they may be used --------------------------------------------------------------------------------------------


def check(loaded: Mapping[Role, Classifier], recipe: Recipe, images: Images) -> dict[str, Tensor]:
    """That models fit, and give away nothing that the network is judged by.

    A model that has seen validation images knows their labels by heart, and a network that it teaches, or that begins
    with its weights, would be judged too well. So it must have held them out as well, or have been trained on others;
    how it was made has been chosen by them at most, as by everybody else. Without validation images there is nothing
    to give away.

    Args:
        loaded: the models that the recipe names.
        recipe: as resolved for the images.
        images: the training images, validation part included.

    Returns:
        What the network's state begins with, by name; empty where nothing is taken over. Rows of the last layer, or
        whatever belongs to single classes, go to the classes of the same names if all of them are known; otherwise they
        are left out, and begin at random.

    Raises:
        ModelError: one tells apart other classes and teaches, takes images of another size, or may have seen validation
            images.
        RecipeError: the network is another one than that whose weights it is to begin with.
    """
    if (teacher := loaded.get("teacher")) is not None:
        _check_teacher(teacher, recipe, images)
    if (start := loaded.get("start")) is None:
        return {}
    weights = _beginning(start, recipe, images)
    if recipe.validation:
        _check_unseen(start, recipe, images)
    return weights


def _remedy(recipe: Recipe) -> str:
    return "train without validation images: --set validation=0" + (
        " --set early_stopping.patience=0" if recipe.early_stopping.patience else ""
    )


def _check_size(role: Role, name: str, model: Classifier, images: Images) -> None:
    if model.size != images.size:
        found, expected = (f"{height} × {width}" for height, width in (model.size, images.size))
        raise ModelError(
            f"{role}.model: {name} takes images of {found} pixels; expected {expected}, as {images.name} has; choose "
            f"a {role} that was trained on such"
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
        raise ModelError(
            f"teacher.model: {name} held out {share:.0%} of the training images, expected {recipe.validation:.0%}, as "
            "this training does; otherwise the network would know, through its teacher, images that it is judged by; "
            f"set validation={share:g}, or {_remedy(recipe)}"
        )


def _check_unseen(start: Classifier, recipe: Recipe, images: Images) -> None:
    """That weights know none of the validation images, as far as can be told."""
    if start.facts.get("fingerprint") == images.fingerprint:
        share, found = float(start.facts.get("validation_fraction", 0.0)), ""
        if share < recipe.validation:  # of two shares of the same images, the smaller one is a part of the larger one
            found = f"held out {share:.0%} of them, expected at least {recipe.validation:.0%}"
    else:
        found = _acquaintance(start, images, images.split(recipe.validation)[1])
    if not found and (whole := _whole(images.name)) in map(_whole, _untold(start)):
        found = f"learned from {whole}, nobody has noted from which of its images"
    if found:
        raise ModelError(
            f"start.model: with its weights, the network would know images that it is judged by: {recipe.start.model} "
            f"{found}; expected weights that have not seen them; choose a model that was trained on other pictures, or "
            f"{_remedy(recipe)}"
        )


def _whole(name: str) -> str:
    """Name of the data set that a data set is a part of, after which it is called."""
    return re.sub(r"(-\d+)?(-skip-\d+)?$", "", name)


def _acquaintance(start: Classifier, images: Images, held_out: NDArray[np.int64]) -> str:
    """How many of some images a model has seen that learned from others, in words; empty if none is known of."""
    if (seen := start.seen) is None:
        return ""
    # A sample may hold none of a few validation images, so it is asked about all; then some may be known, if any are.
    digests = images.digests[held_out] if seen.is_whole else images.digests
    found, asked = seen.look_up(digests)
    if not is_worth_telling(found, asked):
        return ""
    which = f"{asked:,} validation images" if seen.is_whole else f"{asked:,} training and validation images looked up"
    return f"was trained or selected with {found:,} of {which}"


# What is taken over --------------------------------------------------------------------------------------------------

IN_TRAINING_ONLY = {
    "dropout",
    "attention_dropout",
    "stochastic_depth",
    "batch_norm_momentum",
    "kernels",
    "whitening_images",
}
"""Settings of networks that do not change what a trained one answers."""


def _beginning(start: Classifier, recipe: Recipe, images: Images) -> dict[str, Tensor]:
    """See `check`."""
    name = recipe.start.model
    if isinstance(recipe.model, CustomModel):
        raise RecipeError(
            f"start.model: {name}, but the network is your own ({recipe.model.module}); expected a recipe's network; "
            "leave start.model out, and load weights into your network before you pass it"
        )
    if isinstance(start, Ensemble):
        raise ModelError(
            f"start.model: {name} is an ensemble; expected a single network, whose weights can be taken over; choose "
            "one of its members, or let it teach: teacher.model"
        )
    _check_size("start", name, start, images)
    for section in ("model", "pixels"):
        theirs, own = (_answering(getattr(whose, section)) for whose in (start, recipe))
        if different := [f"{section}.{key}" for key in {**theirs, **own} if theirs.get(key) != own.get(key)]:
            key = different[0].partition(".")[2]
            raise RecipeError(
                f"start.model: {name} is another network than recipe {recipe.name} trains: {', '.join(different)} "
                f"differ, {different[0]} is {theirs.get(key)!r} there and {own.get(key)!r} here; expected the same; "
                "choose a recipe with that network, or give its settings to this one"
            )
    number, state = len(start.classes), start.network.state_dict()
    shapes, wider = (models.shapes(recipe.model, classes, start.size) for classes in (number, number + 1))
    # Along this dimension, what belongs to a class is one row.
    of_classes = {
        key: next(place for place, sides in enumerate(zip(shape, wider[key], strict=True)) if len({*sides}) > 1)
        for key, shape in shapes.items()
        if shape != wider[key]
    }
    if not set(images.classes) <= set(start.classes):
        return {key: tensor for key, tensor in state.items() if key not in of_classes}
    rows = torch.tensor([start.classes.index(label) for label in images.classes], device=start.device)
    return {
        key: tensor.index_select(of_classes[key], rows) if key in of_classes else tensor
        for key, tensor in state.items()
    }


def _answering(settings: Settings) -> dict[str, Any]:
    """Those settings that answers depend on."""
    return settings.model_dump(exclude=IN_TRAINING_ONLY)
