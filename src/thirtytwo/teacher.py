"""The teacher of a training: a trained model, often several that answer together, whose answers a network imitates.

Its probabilities say more of an image than the label does: what else it might be, and how sure one can be (Hinton et
al. 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531). A teacher is asked in every step about the
very images that the network is shown (`step`); here it is read, and whether it may teach is asked before the first one.
"""

from __future__ import annotations

from pathlib import Path

import torch

from thirtytwo.classifier import PRETRAINED, Classifier, class_difference, file_of, unseen_share
from thirtytwo.data import Images
from thirtytwo.errors import InputError, ModelError, RecipeError
from thirtytwo.recipe import Recipe


def load(recipe: Recipe, device: torch.device, place: str | Path | None = None) -> Classifier | None:
    """The model that a recipe names, if it names one.

    Args:
        recipe: any.
        device: where it shall answer.
        place: where it is now, if it has moved.

    Raises:
        ModelError: it cannot be read, or is another one than the recipe says.
        RecipeError: there is a place, but the recipe names none.
    """
    settings = recipe.teacher
    if not settings.model:
        if place is not None:
            raise RecipeError(
                f"teacher {place}: recipe {recipe.name} names no teacher; expected one that says how it is imitated; "
                "set teacher.model in the recipe"
            )
        return None
    place = place or settings.model
    try:
        found = Classifier.load(place, device=device)
    except InputError as error:
        raise ModelError(f"teacher.model: {error}") from None
    if settings.fingerprint and settings.fingerprint != found.fingerprint:
        raise ModelError(
            f"teacher.model: {place} has the fingerprint {found.fingerprint[:12]}, expected "
            f"{settings.fingerprint[:12]}, which the recipe names; put that model back, or train anew with "
            "--set teacher.fingerprint= to take this one"
        )
    return found


def content(recipe: Recipe) -> bytes | None:
    """The file of the model that a recipe names, to be sent to a machine that does not see it; None is for nothing.

    Raises:
        ModelError: it cannot be read.
    """
    model = recipe.teacher.model
    if model in ("", PRETRAINED):  # which lies in the package, there as well
        return None
    try:
        return file_of(model).read_bytes()
    except InputError as error:
        raise ModelError(f"teacher.model: {error}") from None
    except OSError as error:
        raise ModelError(
            f"teacher.model: {model}: cannot be read ({error.strerror}); expected a trained model; check the path"
        ) from None


def named(recipe: Recipe, teacher: Classifier | None) -> Recipe:
    """The recipe with all that it takes to find its teacher again, and to know that it is the same.

    Args:
        recipe: any.
        teacher: what `load` has returned for it.
    """
    if teacher is None:
        return recipe
    model = recipe.teacher.model
    place = model if model == PRETRAINED else str(Path(model).resolve())
    fingerprint = recipe.teacher.fingerprint or teacher.fingerprint  # are equal, see `load`
    known = recipe.teacher.model_copy(update={"model": place, "fingerprint": fingerprint})
    return recipe.model_copy(update={"teacher": known})


def identified(recipe: Recipe) -> Recipe:
    """See `named`; the teacher is read for it.

    Raises:
        ModelError: it cannot be read, or is another one than the recipe says.
    """
    return named(recipe, load(recipe, torch.device("cpu")))


def check(teacher: Classifier, recipe: Recipe, images: Images) -> None:
    """That a model can teach, and gives away nothing that the network is judged by.

    A teacher that has seen validation images knows their labels by heart, and what it says of others is not free of
    that: a network that it teaches would be judged too well. So it must have held out the same images; how it was made
    has been chosen by them at most, as by everybody else. Without validation images there is nothing to give away.

    Args:
        teacher: of the recipe.
        recipe: as resolved for the images.
        images: the training images, validation part included.

    Raises:
        ModelError: it tells apart other classes, takes images of another size, or may have seen validation images.
    """
    name = recipe.teacher.model
    if difference := class_difference(images.classes, teacher.classes):
        raise ModelError(
            f"teacher.model: {name} does not know these classes: {images.name} {difference}; expected the same ones in "
            "the same order; choose a teacher that was trained for them"
        )
    if teacher.size != images.size:
        found, expected = (f"{height} × {width}" for height, width in (teacher.size, images.size))
        raise ModelError(
            f"teacher.model: {name} takes images of {found} pixels; expected {expected}, as {images.name} has; choose "
            "a teacher that was trained on such"
        )
    if not recipe.validation:
        return
    remedy = "or train without validation images: --set validation=0 --set early_stopping.patience=0"
    try:
        share = unseen_share([teacher], [name], images.fingerprint)
    except ModelError as error:
        raise ModelError(
            f"teacher.model: through it, the network would know the images that it is judged by. {error}; {remedy}"
        ) from None
    if share != recipe.validation:
        raise ModelError(
            f"teacher.model: {name} held out {share:.0%} of the training images, expected {recipe.validation:.0%}, as "
            "this training does; otherwise the network would know, through its teacher, images that it is judged by; "
            f"set validation={share:g}, {remedy}"
        )
