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
from thirtytwo.classifier import PRETRAINED, Classifier, Ensemble, class_difference, file_of, together, unseen_share
from thirtytwo.data import Images, Sketch
from thirtytwo.data.sketch import is_worth_telling
from thirtytwo.errors import InputError, ModelError, RecipeError
from thirtytwo.recipe import Recipe
from thirtytwo.settings import CustomModel, Reference, Settings

Role = Literal["teacher", "start"]
"""What a model is named for: the section of the recipe."""

ROLES: tuple[Role, ...] = ("teacher", "start")

SEEN_BY_TEACHERS = "seen_by_teachers"
"""Fact of a training, and of the model that it makes; see `told` and `Classifier.seen_by_teachers`."""


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


def identified(recipe: Recipe, images: Images, held_out: float) -> Recipe:
    """See `named`, for a study: models are read, and `check` is asked before hours are spent on what is trained first.

    Args:
        recipe: as resolved for the device.
        images: the training images, validation part included.
        held_out: share of them by which the study judges a recipe that holds out none itself.

    Raises:
        ModelError: one cannot be read, is another one than the recipe says, or may not be used.
        RecipeError: one does not fit the recipe.
    """
    loaded = load(recipe)
    check(loaded, recipe.holding_out(held_out), images, is_study=True)
    return named(recipe, loaded)


def told(recipe: Recipe, loaded: Mapping[Role, Classifier]) -> dict[str, Any]:
    """What facts of a training say of the models that its recipe, see `named`, names: nothing where there are none.

    Also what they know, and the network through them: sketches of the pictures that the start has seen
    (``seen_by_start``) and that teachers had, the teacher's own and the start's included (``seen_by_teachers``); and in
    ``start`` and ``teacher``, as ``untold``, names of data sets whose pictures nobody has noted.
    """
    facts: dict[str, Any] = {
        role: {
            "model": _settings(recipe, role).model,
            "fingerprint": _settings(recipe, role).fingerprint,
            "recipe": found.facts.get("recipe"),
        }
        for role, found in loaded.items()
    }
    for role, found in loaded.items():
        if names := _untold(found):
            facts[role]["untold"] = names
    if "start" in loaded and (seen := loaded["start"].seen) is not None:
        facts["seen_by_start"] = seen.to_json()
    taught = [model.seen_by_teachers for model in loaded.values()]
    if "teacher" in loaded:
        taught.append(loaded["teacher"].seen)
    if (heard_of := together(taught)) is not None:
        facts[SEEN_BY_TEACHERS] = heard_of.to_json()
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
    for key in ("seen_by_start", SEEN_BY_TEACHERS):
        if key in facts:
            Sketch.recalled(facts[key])


def _untold(model: Classifier) -> list[str]:
    """Names of data sets that a model, its teachers or the weights that it began with have learned from without a note.

    "?" stands for one that has no name either.
    """
    names = set() if model.seen is not None else {str(model.facts.get("data") or model.facts.get("spec") or "?")}
    for role in ROLES:
        named = model.facts.get(role)
        earlier = named.get("untold") if isinstance(named, dict) else None
        names |= {str(name) for name in earlier} if isinstance(earlier, list) else set()
    return sorted(names)


# Whether they may be used --------------------------------------------------------------------------------------------


def check(
    loaded: Mapping[Role, Classifier], recipe: Recipe, images: Images, *, is_study: bool = False
) -> dict[str, Tensor]:
    """That models fit, and give away nothing that the network is judged by.

    A model that has seen validation images knows their labels by heart, and a network that it teaches, or that begins
    with its weights, would be judged too well. So it must have held them out as well, or have been trained on others;
    how it was made has been chosen by them at most, as by everybody else. Without validation images there is nothing
    to give away.

    Args:
        loaded: the models that the recipe names.
        recipe: as resolved for the images.
        images: the training images, validation part included.
        is_study: whether it needs validation images, so that nobody is told to do without.

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
        _check_teacher(teacher, recipe, images, is_study)
    if (start := loaded.get("start")) is None:
        return {}
    weights = _beginning(start, recipe, images)
    if recipe.validation:
        _check_unseen(start, recipe, images, is_study)
    return weights


def _or_without(recipe: Recipe, is_study: bool) -> str:
    """The other remedy of a training, after the first one."""
    if is_study:
        return ""
    patience = " --set early_stopping.patience=0" if recipe.early_stopping.patience else ""
    return f", or train without validation images: --set validation=0{patience}"


def _check_size(role: Role, name: str, model: Classifier, images: Images) -> None:
    if model.size != images.size:
        found, expected = (f"{height} × {width}" for height, width in (model.size, images.size))
        raise ModelError(
            f"{role}.model: {name} takes images of {found} pixels; expected {expected}, as {images.name} has; choose "
            f"a {role} that was trained on such"
        )


def _check_teacher(teacher: Classifier, recipe: Recipe, images: Images, is_study: bool) -> None:
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
            "teacher.model: through it, the network would know the images that it is judged by. "
            f"{error}{_or_without(recipe, is_study)}"
        ) from None
    if share != recipe.validation:
        raise ModelError(
            f"teacher.model: {name} held out {share:.0%} of the training images, expected {recipe.validation:.0%}, as "
            "this training does; otherwise the network would know, through its teacher, images that it is judged by; "
            f"set validation={share:g}{_or_without(recipe, is_study)}"
        )


def _check_unseen(start: Classifier, recipe: Recipe, images: Images, is_study: bool) -> None:
    """That weights know none of the validation images, as far as can be told."""
    if start.facts.get("fingerprint") == images.fingerprint:
        # Of two shares of the same images, the smaller one is a part of the larger one; what its own teacher and first
        # weights may have seen was asked when it was trained.
        share, found = float(start.facts.get("validation_fraction", 0.0)), ""
        if share < recipe.validation:
            found = f"held out {share:.0%} of them, expected at least {recipe.validation:.0%}"
    else:
        found = _acquaintance(start, images, images.split(recipe.validation)[1])
        untold = {_whole(name) for name in _untold(start)}
        if not found and (whole := _whole(images.name)) in untold:
            found = f"learned from {whole}, nobody has noted from which of its images"
        if not found and "?" in untold:
            found = "does not say what it has learned from"
    if found:
        raise ModelError(
            f"start.model: with its weights, the network would know images that it is judged by: {recipe.start.model} "
            f"{found}; expected weights that have not seen them; choose a model that was trained on other "
            f"pictures{_or_without(recipe, is_study)}"
        )


def _whole(name: str) -> str:
    """Name of the data set that a data set is a part of, after which it is called, or has the pictures of."""
    return re.sub(r"(-coarse)?(-\d+)?(-skip-\d+)?$", "", name)


def _acquaintance(start: Classifier, images: Images, held_out: NDArray[np.int64]) -> str:
    """How many of some images a model knows that learned from others, in words; empty if none is known of."""
    for seen, how in (
        (start.seen, "was trained or selected with"),
        (start.seen_by_teachers, "was taught by a model that was trained or selected with"),
    ):
        if seen is None:
            continue
        # A sample may hold none of a few validation images, so it is asked about all; some may be known if any are.
        digests = images.digests[held_out] if seen.is_whole else images.digests
        found, asked = seen.look_up(digests)
        if is_worth_telling(found, asked):
            which = "validation images" if seen.is_whole else "training and validation images looked up"
            return f"{how} {found:,} of {asked:,} {which}"
    return ""


# What is taken over --------------------------------------------------------------------------------------------------

IN_TRAINING_ONLY = {
    "dropout",
    "attention_dropout",
    "stochastic_depth",
    "shakedrop_chance",
    "shakedrop_level",
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
