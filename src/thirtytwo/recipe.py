"""Recipes: everything that decides a training, as frozen values read from TOML.

A recipe is the whole truth about a run, apart from the data, the seed and the device. `load` reads a shipped recipe or
a file, applies overrides such as ``optimizer.learning_rate=0.01``, and reports every mistake at once.

An override that changes the `name` of a section of several kinds (`model`, `optimizer`, `schedule`) starts the section
from that kind's defaults.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from thirtytwo import mistakes
from thirtytwo.errors import RecipeError
from thirtytwo.settings import (
    AnyModel,
    AnyOptimizer,
    AnySchedule,
    Augmentation,
    Averaging,
    Calibration,
    Choice,
    Constant,
    Cosine,
    EarlyStopping,
    FewerImages,
    Fraction,
    Linear,
    Lookahead,
    Loss,
    NotNegative,
    OneCycle,
    Pixels,
    Range,
    Selection,
    Settings,
    Sgd,
    Start,
    Teacher,
    Views,
)

DEFAULT = "fast94"
"""What is trained where no recipe is named."""
MOST_EPOCHS = 100_000
SMALLEST_BATCH = 8
"""That batches shrink to, for few images."""


def _kind_of_space(value: Any) -> str:
    is_choice = "choices" in value if isinstance(value, dict) else isinstance(value, Choice)
    return "choice" if is_choice else "range"


class Recipe(Settings):
    """Everything that decides a training, apart from data, seed and device."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name of the recipe, after which run folders are named by default."""
    description: str = ""
    """One sentence that says what the recipe is for."""
    epochs: Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
    """Passes over the training images. Early stopping may end a training before (`early_stopping`), and a smaller data
    set may take more (`fewer_images`)."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    """Most images in a step. An epoch is divided into as few steps as this allows, whose sizes differ by at most one
    image."""
    drop_last: bool = False
    """Give all batches exactly `batch_size` images. The few that are left over, drawn at random, sit an epoch out."""
    image_scales: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)], ...], Field(max_length=1000)
    ] = ()
    """Progressive resizing (Howard 2018): scale training images down to this share of their height and width, with one
    share for each equal part of the epochs. Empty trains on images as they are. All but training sees full size."""
    precision: Literal["float32", "half"] = "float32"
    """Number format in which training steps compute: `half` is bfloat16 on devices made for it, and float32 on others.
    Compiled kernels on a CPU (`model.kernels`) then multiply in bfloat16 where the processor can (AVX512_BF16), and
    keep everything else in float32. Weights, and everything but training steps, are always float32. (On NVIDIA GPUs
    since Ampere, convolutions of float32 numbers are computed in TF32, as is torch's default.)"""
    validation: Fraction = 0.1
    """Share of the training images that is held out for validation, stratified by class; 0 trains on all of them."""
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs from one look at the validation images to the next, counted back from the last epoch, which always has
    one. Where many images are held out and few are trained on, looks take most of the time. Early stopping and pruning
    see only epochs with a look."""
    on_gpu: tuple[str, ...] = ()
    """Settings that differ where a GPU trains, written as for `--set`, such as ``"batch_size=1000"``: a GPU wants
    larger batches than a CPU has memory for. If you set one of these keys yourself, your value holds on both. Where a
    GPU has another kind of a section (in `best`, another model and optimiser), a key that you set there holds for both
    kinds if both have it, and otherwise for the one that has it."""
    search: dict[
        str, Annotated[Annotated[Range, Tag("range")] | Annotated[Choice, Tag("choice")], Discriminator(_kind_of_space)]
    ] = Field(default_factory=dict)
    """What `thirtytwo tune` may vary. A dotted key has a range, ``{ low = 1e-3, high = 1e-2, log = true }``, in whole
    steps if the setting is a whole number, or choices, ``{ choices = ["none", "trivial"] }``. A key that you set
    yourself is not varied. Training ignores all of this."""
    checkpoint_minutes: NotNegative = 10.0
    """Minutes between two checkpoints within a long epoch; the end of an epoch always has one."""
    model: Annotated[AnyModel, Field(discriminator="name")]
    """The network."""
    optimizer: Annotated[AnyOptimizer, Field(discriminator="name")]
    """What turns gradients into updates."""
    lookahead: Lookahead = Lookahead()
    """Slow weights beside those that the optimiser changes."""
    schedule: Annotated[AnySchedule, Field(discriminator="name")] = Constant()
    """How the learning rate changes over the training."""
    augmentation: Augmentation = Augmentation()
    """Random changes to the training images."""
    selection: Selection = Selection()
    """Which training images an epoch leaves out."""
    loss: Loss = Loss()
    """What is minimised."""
    start: Start = Start()
    """A model whose weights the network begins with."""
    teacher: Teacher = Teacher()
    """A model whose answers are imitated."""
    averaging: Averaging = Averaging()
    """Which weights are validated and kept."""
    early_stopping: EarlyStopping = EarlyStopping()
    """When to stop, and which weights to keep."""
    pixels: Pixels = Pixels()
    """How pixels become the network's input."""
    views: Views = Views()
    """What is averaged when an image is classified: test-time augmentation."""
    calibration: Calibration = Calibration()
    """How sure answers are, and below which probability they had better be "unknown"."""
    fewer_images: FewerImages = FewerImages()
    """How epochs grow on a smaller data set."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if isinstance(self.optimizer, Sgd) and self.optimizer.nesterov and self.optimizer.momentum == 0:
            raise ValueError("optimizer.momentum is 0, but nesterov needs some; set optimizer.nesterov to false")
        return self

    @model_validator(mode="after")
    def _what_is_different_on_a_gpu_is_a_recipe_too(self) -> Self:
        if self.on_gpu:
            self.for_device("cuda")
        return self

    @model_validator(mode="after")
    def _what_is_searched_exists(self) -> Self:
        for key, space in self.search.items():
            if key not in keys():
                raise ValueError(f"search: {_no_such_key(key)}")
            found: Any = self
            for part in key.split("."):
                found = getattr(found, part, None)
            if (
                found is None
                or isinstance(found, Settings | tuple | dict)
                or key in ("name", "description", "validation", "validate_every")
            ):
                raise ValueError(
                    f"search: {key}: expected a key of this recipe that holds a number, a word, true or false, but for "
                    "its name, its description, validation and validate_every, since trials are judged by the same "
                    "images after the same epochs"
                )
            if isinstance(space, Range):
                if isinstance(found, bool | str):
                    raise ValueError(
                        f"search: {key}: a range, but the recipe has {found!r}; expected {{ choices = […] }}"
                    )
                if isinstance(found, int) and (space.low != int(space.low) or space.high != int(space.high)):
                    raise ValueError(
                        f"search: {key}: from {space.low} to {space.high}, but the recipe has {found}; expected whole "
                        "numbers, as this key holds one"
                    )
        return self

    @model_validator(mode="after")
    def _one_kind_of_flip(self) -> Self:
        if self.augmentation.horizontal_flip and self.augmentation.alternating_flip:
            raise ValueError(
                "augmentation.horizontal_flip and augmentation.alternating_flip are both true; set one to false"
            )
        return self

    @model_validator(mode="after")
    def _a_fingerprint_is_somebodys(self) -> Self:
        for role, named in (("teacher", self.teacher), ("start", self.start)):
            if named.fingerprint and not named.model:
                raise ValueError(f"{role}.fingerprint is given, but no {role}.model; set that too, or leave both out")
        return self

    @model_validator(mode="after")
    def _selection_needs_validation(self) -> Self:
        if self.validation == 0 and self.early_stopping.patience > 0:
            raise ValueError(
                "validation is 0, so there is nothing to stop early on; set early_stopping.patience to 0 too"
            )
        if self.validation == 0 and self.schedule.name == "plateau":
            raise ValueError(
                "validation is 0, but schedule plateau watches the validation loss; choose another schedule"
            )
        if self.validate_every > 1 and self.schedule.name == "plateau":
            raise ValueError(
                f"validate_every is {self.validate_every}, but schedule plateau watches the validation loss of every "
                "epoch; set validate_every to 1, or choose another schedule"
            )
        return self

    @model_validator(mode="after")
    def _the_rate_falls_before_it_stays(self) -> Self:
        if not isinstance(self.schedule, Cosine | Linear) or not self.schedule.final_epochs:
            return self
        final, rise = self.schedule.final_epochs, self.schedule.warmup_epochs
        if self.epochs <= final:
            raise ValueError(
                f"schedule.final_epochs is {final:g}, of epochs = {self.epochs}, so the learning rate would be the "
                "final one from the first step; set schedule.final_epochs lower, or epochs higher"
            )
        if self.epochs < rise + final:
            raise ValueError(
                f"schedule.warmup_epochs is {rise:g} and schedule.final_epochs {final:g}, of epochs = {self.epochs}, "
                "so the learning rate would still rise when it is to be the final one; set one of them lower, or "
                "epochs higher"
            )
        return self

    def for_device(self, kind: str) -> Recipe:
        """The recipe as ``cpu`` or ``cuda`` trains it: with `on_gpu` applied or left out, and nothing to search.

        The result does not change again.

        Raises:
            ValueError: `on_gpu` is wrong.
        """
        values = json.loads(self.model_dump_json())
        if kind == "cuda":
            problems = [problem for override in _ordered(self.on_gpu) if (problem := _set(values, override))]
            if problems:
                raise ValueError(f"on_gpu: {'; '.join(problems)}")
        try:
            return Recipe.model_validate_json(json.dumps({**values, "on_gpu": [], "search": {}}, default=_refuse))
        except ValidationError as error:
            raise ValueError(f"on_gpu: {'; '.join(map(_explain, error.errors(include_url=False)))}") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"on_gpu: {error}") from None

    def for_images(self, images: int) -> Recipe:
        """The recipe for a data set of this many training images, validation part included; see `FewerImages`.

        The result no longer changes with the images, so a stored recipe trains again for exactly as long.
        """
        settings = self.fewer_images
        factor = max(settings.reference_images / max(images, 1), 1.0) ** settings.exponent
        epochs = min(round(self.epochs * min(factor, settings.maximum_factor)), MOST_EPOCHS)
        trained, batch_size = int(images * (1 - self.validation)), self.batch_size
        if math.ceil(trained / batch_size) < settings.minimum_steps:
            batch_size = min(batch_size, max(trained // settings.minimum_steps, SMALLEST_BATCH))
        done = settings.model_copy(update={"exponent": 0.0, "minimum_steps": 1})
        return self.model_copy(update={"epochs": epochs, "batch_size": batch_size, "fewer_images": done})

    def holding_out(self, share: float) -> Recipe:
        """The recipe where images have to judge: if it holds out no training images, this share of them is held out."""
        return self if self.validation else self.replace(f"validation={share}")

    @property
    def warmup_epochs(self) -> float:
        """Epochs over which the learning rate rises; as many as `epochs`, and training ends while it still does."""
        if isinstance(self.schedule, OneCycle):
            return self.schedule.warmup_fraction * self.epochs
        return self.schedule.warmup_epochs

    def image_size(self, epoch: int, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels that training images of this size have in an epoch, counted from 0.

        Parts are counted from the end: a training of fewer epochs than parts leaves out early ones.
        """
        if not self.image_scales:
            return size
        left = (self.epochs - 1 - epoch) * len(self.image_scales) // self.epochs
        scale = self.image_scales[-1 - left]
        return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)

    def validates(self, epoch: int) -> bool:
        """Whether the network is asked about the validation images after an epoch, counted from 0."""
        return self.validation > 0 and (self.epochs - 1 - epoch) % self.validate_every == 0

    def selects_images(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, leaves out the easiest training images; see `selection`."""
        begin, end = (round(share * self.epochs) for share in (self.selection.begin, self.selection.end))
        return self.selection.drop > 0 and max(begin, 1) <= epoch < end

    def replace(self, *overrides: str) -> Recipe:
        """The recipe with overrides such as ``"epochs=2"`` applied; see `load`.

        Raises:
            RecipeError: with every problem found, one a line.
        """
        return parse(self.to_toml(), overrides, origin=f"recipe {self.name}")

    @property
    def digest(self) -> str:
        """16 digits that stand for what is trained, and how: what is measured of a recipe is measured of these.

        Names, descriptions, `search` and `calibration`, which train nothing, do not count; nor do settings at their
        default, so that a digest stays the same when new ones are invented.
        """
        said = self.chosen(calibration=Calibration())
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def chosen(self, **idle: Any) -> dict[str, Any]:
        """What makes a training what it is: settings that are not at their default, so that new ones change nothing.

        Args:
            idle: values for settings that do not count, besides names, descriptions and `search`.
        """
        # A teacher is what it answers, wherever it lies; one that is not there teaches nothing. So are weights.
        named = {"teacher": self.teacher if self.teacher.model else Teacher(), "start": self.start}
        named = {
            role: model.model_copy(update={"model": ""}) if model.fingerprint else model
            for role, model in named.items()
        }
        return _chosen(self.model_copy(update={"name": "", "description": "", "search": {}, **named, **idle}))

    def is_calibrated_for(self, data: str) -> bool:
        """Whether the calibration that a resolved recipe carries was fitted on data of this name, with its settings."""
        return (self.calibration.data, self.calibration.settings) == (data, self.digest)

    def to_toml(self) -> str:
        """The complete recipe as TOML; `parse` reads it back to an equal value."""
        return tomli_w.dumps(json.loads(self.model_dump_json()))


def _chosen(settings: Settings) -> dict[str, Any]:
    """What differs from defaults, and what kind each section is of."""
    found: dict[str, Any] = {}
    for name, value in settings:
        if isinstance(value, Settings):
            found[name] = _chosen(value)
        elif name == "name" or value != type(settings).model_fields[name].default:
            found[name] = value
    return {name: value for name, value in found.items() if value != {}}


def names() -> list[str]:
    """The recipes inside the package, by name."""
    folder = resources.files("thirtytwo") / "recipes"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def load(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        recipe: name of a shipped recipe, or path of a TOML file (anything that ends in ``.toml`` or holds a slash).
        overrides: ``key=value`` with dotted keys; values as in TOML, quotes around text may be left out. Of two for the
            same key the later one counts.

    Raises:
        RecipeError: with every problem found, one a line.
        TypeError: `overrides` is a text.
    """
    text = str(recipe)
    if isinstance(overrides, str):  # which is a sequence, too: of letters
        raise TypeError(f"overrides are the text {overrides!r}; expected a list: [{overrides!r}]")
    if text.endswith(".toml") or "/" in text or "\\" in text:
        path = Path(recipe)
        try:
            content = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RecipeError(
                f"{path}: no such file; expected a recipe in TOML, or one of: {', '.join(names())}; check the path"
            ) from None
        except IsADirectoryError:
            raise RecipeError(f"{path}: a folder; expected a recipe in TOML; data are named with --data") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"{path}: cannot be read ({error}); expected a recipe in TOML; check the path and the file"
            ) from None
        return parse(content, overrides, origin=str(path))
    if text not in names():
        name, *changes = text.split() or [""]
        if changes and name in names():
            raise RecipeError(
                f"{text!r}: a recipe and changes; expected a recipe alone; give each change apart, as in "
                f"{name} --set {changes[0]}"
            )
        near = mistakes.near(text, names())
        hint = f"Did you mean {near}?" if near else "Data are named with --data."
        raise RecipeError(
            f"unknown recipe {text!r}; expected one of {', '.join(names())}, or the path of a .toml file. {hint}"
        )
    content = (resources.files("thirtytwo") / "recipes" / f"{text}.toml").read_text(encoding="utf-8")
    return parse(content, overrides, origin=f"recipe {text}")


def parse(content: str, overrides: Sequence[str] = (), *, origin: str = "recipe") -> Recipe:
    """Read a recipe from TOML text and apply overrides; see `load`.

    Args:
        content: the TOML text.
        overrides: as in `load`.
        origin: what error messages call the text.

    Raises:
        RecipeError: with every problem found, one a line.
    """
    try:
        values: dict[str, Any] = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(
            f"{origin}: not valid TOML ({error}); expected key = value lines and [sections]; correct it there"
        ) from None
    problems = [problem for override in _ordered(overrides) if (problem := _apply(values, override))]
    try:
        recipe = Recipe.model_validate_json(json.dumps(values, default=_refuse))
    except ValidationError as error:
        details = error.errors(include_url=False)
        # A list is also reported as wrong when one of its items is: the item says it better.
        problems += [
            _explain(detail)
            for detail in details
            if not any(other is not detail and other["loc"][: len(detail["loc"])] == detail["loc"] for other in details)
        ]
    except (ValueError, RecursionError) as error:  # a date, or nesting deeper than JSON allows
        problems.append(str(error))
    if problems:
        raise RecipeError("\n".join([f"{origin}: {_count(len(problems), 'problem')}", *(f"  {p}" for p in problems)]))
    return recipe


def _ordered(overrides: Sequence[str]) -> list[str]:
    """The kind of a section first, wherever it was said: the section's other keys belong to it."""
    return sorted(overrides, key=lambda override: not _key(override).endswith(".name"))


def keys() -> list[str]:
    """Every dotted key that some recipe may set, sorted."""
    return sorted(_keys(Recipe))


def _keys(settings: type[BaseModel], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, field in settings.model_fields.items():
        kinds = sections(field.annotation)
        found |= {prefix + key} if not kinds else set().union(*(_keys(kind, f"{prefix}{key}.") for kind in kinds))
    return found


def _kinds_with(section: str, key: str) -> list[str]:
    """Names of the kinds of a section that have a key."""
    field = Recipe.model_fields.get(section)
    kinds = sections(field.annotation) if field else []
    return [kind.model_fields["name"].default for kind in kinds if len(kinds) > 1 and key in kind.model_fields]


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes in a field's annotation: none for a plain value, several for a section of several kinds."""
    candidates: Iterable[Any] = getattr(annotation, "__args__", ()) or (annotation,)
    return [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _apply(values: dict[str, Any], override: str) -> str | None:
    """Do what somebody asks for with an override; returns what is wrong with it, if anything."""
    key = _key(override)
    before = _at(values, key)
    is_for_gpu, is_for_gpu_only = _is_for_gpu(values, key)
    # What only the kind has that a GPU trains with is tried on a copy, to see whether there is such a key.
    if problem := _set(copy.deepcopy(values) if is_for_gpu_only else values, override):
        return problem
    # A number of epochs or images in a batch that somebody asks for is meant as it stands, on whatever device.
    if key == "epochs":
        _set(values, "fewer_images.exponent=0")
    if key == "batch_size":
        _set(values, "fewer_images.minimum_steps=1")
    # The fingerprint is that of the model that there was; where there was none, of the one that is named now.
    if key in ("teacher.model", "start.model") and before not in (None, "", _at(values, key)):
        _set(values, f"{key.removesuffix('model')}fingerprint=")
    # So is any other value: it is neither searched nor another one on a GPU; nor are those of a kind that is replaced.
    section = key.removesuffix("name") if key.endswith(".name") and _at(values, key) != before else None

    def is_settled(other: str) -> bool:
        return other == key or (section is not None and other.startswith(section))

    if key != "search" and isinstance(searched := values.get("search"), dict):
        values["search"] = {other: space for other, space in searched.items() if not is_settled(other)}
    if key != "on_gpu" and isinstance(others := values.get("on_gpu"), list):
        kept = [other for other in others if not is_settled(_key(str(other)))]
        values["on_gpu"] = [*kept, override] if is_for_gpu else kept  # said again, for the kind that a GPU has instead
    return None


def _is_for_gpu(values: Mapping[str, Any], key: str) -> tuple[bool, bool]:
    """Whether a GPU has another kind of a key's section, with that key, and whether it is the only one that has it."""
    section, _, last = key.rpartition(".")
    others = values.get("on_gpu")
    names = {
        _key(str(other)): _value(str(other).partition("=")[2].strip())
        for other in (others if isinstance(others, list) else [])
    }
    there = names.get(f"{section}.name")
    having = _kinds_with(section, last)
    if last == "name" or there not in having:
        return False, False
    own = _at(values, f"{section}.name")
    return True, own is not None and own not in having


def _at(values: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key in nested tables; None if nothing does."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _set(values: dict[str, Any], override: str) -> str | None:
    """Set one dotted key in nested tables; returns what is wrong with the override, if anything."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        return f"{override!r}: expected key=value, such as optimizer.learning_rate=0.01"
    if key not in keys():
        return _no_such_key(key)
    *sections, last = key.split(".")
    table = values
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            return f"{key}: {section} is {inner!r} in the recipe; expected a [{section}] section"
        table = inner
    value = _value(text.strip())
    if last == "name" and sections and table.get("name") != value:
        table.clear()  # the other keys belong to the kind that is being replaced
    table[last] = value
    return None


def _value(text: str) -> Any:
    """A TOML value; bare words are text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _refuse(value: object) -> object:
    raise ValueError(f"{value}: expected a number, text, true or false, or a list; put text into quotation marks")


def _no_such_key(key: str) -> str:
    """That there is no such key, and which one may have been meant."""
    if key in _APART:
        return (
            f"{key}: no such key; expected settings of the recipe only; give this one beside them, as --{key} or, in "
            f"Python, as {key}=…"
        )
    inside = [other for other in keys() if other.startswith(f"{key}.")]
    if inside and f"{key}.name" not in inside:
        return f"{key}: a section; expected one of its keys; choose {mistakes.either(inside)}"
    near = mistakes.meant(key, keys())
    remedy = (
        f"did you mean {mistakes.either(near)}?"
        if near
        else "docs/settings.md lists the keys, and so does the recipe.toml of any run"
    )
    return f"{key}: no such key; {remedy}"


_APART = ("data", "device", "devices", "out", "seed")
"""What is no part of a recipe, and given beside it."""


def _explain(detail: ErrorDetails) -> str:
    """One pydantic error as found, expected, remedy."""
    # pydantic names kinds inside the location: ("optimizer", "adam", "epsilon"), ("search", "epochs", "range", "low").
    location = [str(part) for part in detail["loc"]]
    is_space = location[:1] == ["search"] and len(location) > 2
    kinds = _kinds_with(location[0], "name") if location else []
    space = location.pop(2) if is_space else ""
    if len(location) > 1 and location[1] in kinds:
        del location[1]
    key = (": " if is_space else ".").join(location)
    match detail["type"]:
        case "extra_forbidden" if is_space:
            fields = Choice.model_fields if space == "choice" else Range.model_fields
            return f"{key}: no such key; expected {mistakes.either(list(fields))}"
        case "extra_forbidden":
            section, _, word = key.rpartition(".")
            if owners := _kinds_with(section, word):
                remedy = f"{section}.name={owners[0]}"
                return f"{key}: belongs to {section} {' and '.join(owners)}; choose that too, with --set {remedy}"
            return _no_such_key(key)
        case "missing":
            return f"{key}: missing; expected a value for it in the recipe"
        case "union_tag_invalid":
            tag = str(detail.get("ctx", {}).get("tag"))
            hint = f"; did you mean {near}?" if (near := mistakes.near(tag, kinds)) else ""
            return f"{key}.name: found {tag!r}, expected {mistakes.either(kinds)}{hint}"
        case "union_tag_not_found":
            return f"{key}.name: missing; expected the kind of {key}; choose {mistakes.either(kinds)}"
        case "value_error":
            said = detail["msg"].removeprefix("Value error, ")
            return f"{key}: {said}" if is_space else said
        case _:
            return f"{key}: found {_shorten(detail.get('input'))}, expected {mistakes.expected(detail)}"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
