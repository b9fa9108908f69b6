"""What a search may try: values of a recipe that vary, for trainings that are told apart by nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thirtytwo import environment, references
from thirtytwo import recipe as recipes
from thirtytwo.data import Source
from thirtytwo.errors import RecipeError
from thirtytwo.recipe import Recipe
from thirtytwo.settings import Choice
from thirtytwo.study.pool import Local, Pool
from thirtytwo.study.trials import HELD_OUT, digest, rounding

if TYPE_CHECKING:
    import optuna

Values = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """The values that may vary of a recipe, as it is trained somewhere, with one seed."""

    recipe: Recipe
    """As it is trained there, with `search`."""
    base: Recipe
    """The same without."""
    name: str
    """The recipe's, and 10 digits that stand for all that makes the search what it is."""
    facts: dict[str, str | int]
    """What these digits stand for, by what people call it; long ones shortened to digits of their own."""

    @classmethod
    def of(
        cls, recipe: Recipe, source: Source, *, seed: int = 0, device: str = "auto", pool: Pool | None = None
    ) -> Space:
        """What a recipe's `search` section lets vary.

        Args:
            recipe: with that section.
            source: the data.
            seed: of every training.
            device: ``auto``, ``cpu`` or ``cuda``.
            pool: where trainings are going to run; None is here.

        Raises:
            RecipeError: there is nothing to search for, or the recipe's own values are not among those to be tried.
            ModelError: a model that the recipe names cannot be read.
        """
        check_searched(recipe)
        pool, images = pool or Local(), source.read_training()
        kind = pool.ask(_kind_of_device, device)
        base = references.identified(recipe.for_device(kind), images, HELD_OUT)
        if recipe.search.keys() & {"epochs", "batch_size"}:
            # Whoever sets these means them as they stand, and a trial does; so its own are those for these images, too.
            fitted = base.holding_out(HELD_OUT).for_images(len(images))
            base = base.model_copy(
                update={key: getattr(fitted, key) for key in ("epochs", "batch_size", "fewer_images")}
            )
        # Read anew, since a kind of section that a GPU has instead may lack what is searched.
        with_search = base.model_copy(update={"search": recipe.search}).to_toml()
        there = recipes.parse(with_search, origin=f"recipe {recipe.name}, as {kind} trains it")
        said = json.dumps({key: space.model_dump(mode="json") for key, space in there.search.items()}, sort_keys=True)
        where = pool.ask(rounding, base, device)
        stands_for = digest(base, images, where, seed, int(hashlib.sha256(said.encode()).hexdigest(), 16))
        facts: dict[str, str | int] = {
            "recipe": recipe.name,
            "settings": _digits(base.to_toml()),
            "search space": _digits(said),
            "data": f"{source.name} {images.fingerprint[:10]}",
            "seed": seed,
            "machine or versions": _digits(json.dumps(where)),
        }
        space = cls(there, base, f"{recipe.name}-{stands_for}", facts)
        space._check()
        return space

    @property
    def own(self) -> Values:
        """The values that the recipe has, of those that may vary."""
        return {key: _at(self.recipe, key) for key in self.recipe.search}

    def suggested(self, trial: optuna.trial.Trial) -> Values:
        """The values that a trial is to have: whole numbers where the recipe's own are, however the ends are written.

        Args:
            trial: of the study that proposes them.
        """
        values: Values = {}
        for key, own in self.own.items():
            space = self.recipe.search[key]
            if isinstance(space, Choice):
                values[key] = trial.suggest_categorical(key, list(space.choices))
            elif isinstance(own, int):
                values[key] = trial.suggest_int(key, int(space.low), int(space.high), log=space.log)
            else:
                values[key] = trial.suggest_float(key, float(space.low), float(space.high), log=space.log)
        return values

    def having(self, values: Values) -> Recipe:
        """The recipe with some values.

        Raises:
            RecipeError: they do not go together.
        """
        return self.base.replace(*(f"{key}={json.dumps(value)}" for key, value in values.items()))

    def _check(self) -> None:
        """That the recipe's own values lie in the space, and that its ends are values that the recipe can have.

        Raises:
            RecipeError: says what does not fit.
        """
        for key, value in self.own.items():
            space = self.recipe.search[key]
            if isinstance(space, Choice):
                fits, ends = value in space.choices, list(space.choices)
            else:
                kind = int if isinstance(value, int) else float
                fits, ends = space.low <= value <= space.high, [kind(space.low), kind(space.high)]
            if not fits:
                raise RecipeError(
                    f"search: {key}: the recipe has {value!r}, which lies outside of {ends}; expected the search to "
                    "include the recipe's own value, since it is tried first; widen the search, or change the value"
                )
            for end in ends:
                self.having({key: end})


def check_searched(recipe: Recipe) -> None:
    """That a recipe says what may vary.

    Raises:
        RecipeError: it does not.
    """
    if not recipe.search:
        shipped = [name for name in recipes.names() if recipes.load(name).search]
        raise RecipeError(
            f"recipe {recipe.name}: has no [search] section; expected the values that may vary, such as "
            '"optimizer.learning_rate" = { low = 1e-3, high = 1e-2, log = true }; write one into a copy of the recipe, '
            f"or take a recipe that has one: {', '.join(shipped)}"
        )


def _kind_of_device(device: str) -> str:
    return environment.device(device).type


def _at(recipe: Recipe, key: str) -> Any:
    found: Any = recipe
    for part in key.split("."):
        found = getattr(found, part)
    return found


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]
