"""What somebody may have meant, and what would have been right: for messages about settings and words of a command."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "augmentation.cutmix_alpha": ("cutmix",),
    "augmentation.cutout_pixels": ("cutout",),
    "augmentation.erasing_probability": ("random_erasing", "reprob"),
    "augmentation.height_shift": ("height_shift_range",),
    "augmentation.horizontal_flip": ("flip", "hflip", "random_flip", "random_horizontal_flip"),
    "augmentation.mixup_alpha": ("mixup",),
    "augmentation.policy": ("augmix", "autoaugment", "randaugment", "trivialaugment"),
    "augmentation.rotation_degrees": ("random_rotation", "rotation", "rotation_range"),
    "augmentation.translate_pixels": ("crop", "padding", "random_crop", "translate"),
    "augmentation.width_shift": ("width_shift_range",),
    "averaging.epochs": ("ema", "swa"),
    "batch_size": ("batch", "bs", "minibatch", "train_batch_size"),
    "epochs": ("max_epochs", "n_epochs", "num_epochs", "num_train_epochs"),
    "loss.label_smoothing": ("ls", "smoothing"),
    "loss.sharpness_radius": ("rho", "sam"),
    "model.dropout": ("drop", "drop_rate", "dropout_rate"),
    "model.name": ("arch", "architecture", "backbone", "net", "network"),
    "model.stochastic_depth": ("drop_path", "drop_path_rate"),
    "optimizer.beta1": ("b1", "beta_1"),
    "optimizer.beta2": ("b2", "beta_2"),
    "optimizer.epsilon": ("eps",),
    "optimizer.learning_rate": ("base_lr", "eta", "initial_lr", "lr", "max_lr"),
    "optimizer.momentum": ("mom",),
    "optimizer.name": ("opt", "optim", "optimiser"),
    "optimizer.weight_decay": ("decay", "l2", "wd"),
    "pixels.standard_deviation": ("std",),
    "precision": ("amp", "bf16", "bfloat16", "fp16", "mixed_precision"),
    "schedule.every_epochs": ("step_size",),
    "schedule.factor": ("decay_rate", "gamma"),
    "schedule.name": ("lr_schedule", "lr_scheduler", "scheduler"),
    "schedule.warmup_epochs": ("warmup",),
    "validation": ("holdout", "val", "val_split", "validation_fraction", "validation_split"),
    "views.mirror": ("tta",),
}
"""Settings, each with what else it is called: for short, in papers, or in Keras, PyTorch and timm."""

_PLAIN = {
    "bool_type": "true or false",
    "dict_type": "a section of keys and values",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_type": "a whole number",
    "model_attributes_type": "a section of keys and values",
    "model_type": "a section of keys and values",
    "string_type": "text",
    "tuple_type": "a list in brackets, such as [1, 2]",
}
"""What pydantic expects, by the type of its error, where its own words are those of a programmer."""


def expected(detail: ErrorDetails) -> str:
    """What one of pydantic's errors says would have been right, in words that follow "expected"."""
    if plain := _PLAIN.get(detail["type"]):
        return plain
    context = detail.get("ctx", {})
    match detail["type"]:
        case "too_short":
            return f"a list of length {context['min_length']} or more"
        case "too_long":
            return f"a list of length {context['max_length']} at most"
        case "string_pattern_mismatch":
            return f"text of the form {context['pattern']}"
    said = detail["msg"].removeprefix("Input should be ")
    said = said.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    return said.replace("greater than", "more than")


def named(word: str, known: Sequence[str]) -> list[str]:
    """The keys that a word stands for: without their section, or by another name.

    Args:
        word: a dotted key; its section does not matter.
        known: the keys that there are.

    Returns:
        Those most like the word first; empty where it stands for none.
    """
    last = _last(word.lower().replace("-", "_"))
    found = [key for key in known if last == _last(key) or last in OTHER_NAMES.get(key, ())]
    return sorted(found, key=lambda key: -difflib.SequenceMatcher(None, word, key).ratio())


def meant(word: str, known: Sequence[str]) -> list[str]:
    """The keys that somebody may have meant by a word that is none.

    A key without its section, in a wrong one, or by another name; or else a slip of the pen within the section; or else
    whatever reads a little like the word.

    Args:
        word: a dotted key that there is not.
        known: those that there are.

    Returns:
        At most three, likeliest first; empty where nothing comes to mind.
    """
    if f"{word}.name" in known:  # a section of several kinds, given as if it were a value
        return [f"{word}.name"]
    section = word.rpartition(".")[0]
    if found := named(word, known):
        return found[: 1 if section else 3]
    # Only the last parts are compared, since a section that is right makes any two of its keys alike.
    beside = [key for key in known if key.rpartition(".")[0] == section]
    words = _last(word).count("_") + 1
    ends: dict[str, list[str]] = {}
    for key in beside:
        ends.setdefault("_".join(_last(key).split("_")[:words]), []).append(key)  # "hiden" for hidden_units
    ends |= {_last(key): [key] for key in beside}
    if slip := difflib.get_close_matches(_last(word), list(ends), n=1, cutoff=0.75):
        return ends[slip[0]][:3]
    return difflib.get_close_matches(word, known, n=1, cutoff=0.6)


def near(word: str, choices: Sequence[str]) -> str:
    """The choice that somebody may have meant by a word that is none; empty where nothing comes to mind.

    It begins with the word, as ``validation`` does with ``val``, or is part of it, as ``adam`` is of ``adamw``, or
    reads much like it.
    """
    given = word.lower()
    begun = [choice for choice in choices if given and choice.startswith(given)]
    inside = sorted((choice for choice in choices if choice in given), key=len, reverse=True)
    return (begun or inside or difflib.get_close_matches(given, choices, n=1) or [""])[0]


def either(names: Sequence[str]) -> str:
    """("a", "b", "c") -> ``a, b or c``."""
    return " or ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])


def _last(key: str) -> str:
    return key.rpartition(".")[2]
