from __future__ import annotations

import itertools
import math
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from thirtytwo import recipe as recipes
from thirtytwo.errors import RecipeError
from thirtytwo.recipe import Recipe
from thirtytwo.settings import Adam, Cosine, ResNetModel, Settings, Sgd


@pytest.mark.parametrize("name", recipes.names())
def test_every_shipped_recipe_is_valid_and_named_after_its_file(name: str) -> None:
    assert recipes.load(name).name == name


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_written_as_toml_reads_back_equal(name: str) -> None:
    recipe = recipes.load(name)
    assert recipes.parse(recipe.to_toml()) == recipe


def classes(settings: type[BaseModel] = Settings) -> list[type[BaseModel]]:
    found = [kind for child in settings.__subclasses__() for kind in (child, *classes(child))]
    return [kind for kind in found if not kind.__name__.startswith("_")]


@pytest.mark.parametrize("settings", classes(), ids=lambda kind: kind.__name__)
def test_every_setting_is_documented(settings: type[BaseModel]) -> None:
    assert settings.__doc__
    assert all(field.description for field in settings.model_fields.values())


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipes.load("classic").epochs = 3  # type: ignore[misc]


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    plain = recipes.load("classic")
    changed = recipes.load(
        "classic", ["optimizer.learning_rate=0.5", "model.stages=[[8], [16, 16]]", "validation = 0.2"]
    )
    assert isinstance(changed.optimizer, Adam)
    assert changed.optimizer.learning_rate == 0.5
    assert changed.validation == 0.2
    named = {"optimizer", "model", "validation", "search"}  # what is set is not searched
    assert changed.model_dump(exclude=named) == plain.model_dump(exclude=named)
    assert plain.search.keys() - changed.search.keys() == {"optimizer.learning_rate"}


def test_naming_another_kind_starts_its_section_from_defaults() -> None:
    changed = recipes.load("classic", ["schedule.name=cosine", "schedule.warmup_epochs=2", "optimizer.name='sgd'"])
    assert changed.schedule == Cosine(warmup_epochs=2.0)
    assert changed.warmup_epochs == 2.0
    assert recipes.load("classic", ["epochs=10"]).warmup_epochs == 1.5  # one_cycle's is a share
    assert changed.optimizer == Sgd()


def test_the_order_of_overrides_of_different_keys_does_not_matter() -> None:
    words = ["optimizer.learning_rate=0.05", "optimizer.name=sgd", "optimizer.momentum=0.8", "epochs=3"]
    assert recipes.load("classic", words) == recipes.load("classic", words[::-1])
    assert recipes.load("classic", words).optimizer == Sgd(learning_rate=0.05, momentum=0.8)


def test_a_key_of_another_kind_says_which_kind_has_it() -> None:
    with pytest.raises(RecipeError, match=r"momentum: belongs to optimizer sgd and muon; .*optimizer.name=sgd"):
        recipes.load("classic", ["optimizer.momentum=0.8"])


def test_replacing_values_is_loading_with_overrides() -> None:
    words = ("epochs=2", "optimizer.learning_rate=0.5")
    assert recipes.load("classic").replace(*words) == recipes.load("classic", words)
    assert recipes.load("classic").replace("epochs=2").for_images(500).epochs == 2
    with pytest.raises(RecipeError, match="epochs"):
        recipes.load("classic").replace("epochs=-1")


def test_a_recipe_that_has_grown_can_be_stored_and_read() -> None:
    recipe = recipes.load("classic", ["epochs=90000", "fewer_images.exponent=1.0", "fewer_images.maximum_factor=1e9"])
    grown = recipe.for_images(2)
    assert grown.epochs == 100_000
    assert recipes.parse(grown.to_toml()) == grown


def test_naming_the_same_kind_keeps_the_section() -> None:
    assert recipes.load("classic", ["optimizer.name=adam"]) == recipes.load("classic")


def test_every_problem_is_reported_at_once_with_its_remedy() -> None:
    words = ["optimizer.learning_rat=1", "epochs=ten", "model.dropout=2", "learning_rate=0.1", "nonsense"]
    with pytest.raises(RecipeError) as caught:
        recipes.load("classic", words)
    message = str(caught.value)
    assert "5 problems" in message
    assert "did you mean optimizer.learning_rate?" in message
    assert "epochs: found 'ten', expected" in message
    assert "model.dropout: found 2" in message
    assert "'nonsense': expected key=value" in message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("clasic", "Did you mean classic"),
        ("resnet", "Did you mean resnet18"),
        ("shapes", "Data are named with --data"),
        ("classic epochs=2", "give each change apart, as in classic --set epochs=2"),
        ("./", r"^\.: a folder; expected a recipe in TOML; data are named with --data"),
    ],
)
def test_an_unknown_recipe_is_met_with_what_was_probably_meant(given: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipes.load(given)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("epochs=ten", "epochs: found 'ten', expected a whole number"),
        ("epochs=2.5", "epochs: found 2.5, expected a whole number"),
        ("epochs=0", "epochs: found 0, expected at least 1"),
        ("optimizer.learning_rate='0.1'", "optimizer.learning_rate: found '0.1', expected a number"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate: found 0, expected more than 0"),
        ("model.dropout=1.5", "model.dropout: found 1.5, expected less than 1"),
        ("model.stages=3", "model.stages: found 3, expected a list in brackets"),
        ("model.stages=[]", "model.stages: found [], expected a list of length 1 or more"),
        ("augmentation.horizontal_flip=yes", "augmentation.horizontal_flip: found 'yes', expected true or false"),
        ("augmentation.policy=randaug", "expected 'none', 'rand', 'trivial' or 'augmix'"),
        ("description=3", "description: found 3, expected text"),
        ("description=2020-01-01", "2020-01-01: expected a number, text, true or false, or a list; put text into quot"),
        ("name=../../etc", "name: found '../../etc', expected text of the form ^"),
        ("search=x", "search: found 'x', expected a section of keys and values"),
        ("optimizer.name=adamw", "optimizer.name: found 'adamw', expected adam, sgd or muon; did you mean adam?"),
        ("optimizer=sgd", "optimizer: no such key; did you mean optimizer.name?"),
        ("averaging=3", "a section; expected one of its keys; choose averaging.epochs or averaging.weighting"),
        ("optimizer.lr=1", "optimizer.lr: no such key; did you mean optimizer.learning_rate?"),
        ("patience=1", "did you mean schedule.patience or early_stopping.patience?"),
        ("seed=1", "seed: no such key; expected settings of the recipe only; give this one beside them, as --seed"),
        ("qwertz=1", "qwertz: no such key; docs/settings.md lists the keys"),
    ],
)
def test_a_wrong_setting_is_told_in_plain_words(word: str, said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        recipes.load("classic", [word])


def test_a_section_without_its_kind_says_which_there_are() -> None:
    content = recipes.load("classic").to_toml().replace('name = "adam"', "")
    with pytest.raises(RecipeError, match=r"optimizer\.name: missing; .*; choose adam, sgd or muon"):
        recipes.parse(content)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("epochs=0", "epochs"),
        ("epochs=2.5", "epochs"),
        ("batch_size=-1", "batch_size"),
        ("validation=1.0", "validation"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate"),
        ("optimizer.learning_rate='0.1'", "optimizer.learning_rate"),
        ("optimizer.name=adamw2", "optimizer.name"),
        ("augmentation.horizontal_flip=yes", "augmentation.horizontal_flip"),
        ("model.stages=[]", "model.stages"),
        ("model.stages=[[0]]", "model.stages"),
        ("description=2020-01-01", "2020"),
        ("name=../../etc", "name"),
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused(word: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        recipes.load("classic", [word])


@pytest.mark.parametrize(
    "words", [["validation=0"], ["validation=0", "early_stopping.patience=0", "schedule.name=plateau"]]
)
def test_selection_without_validation_images_is_refused(words: list[str]) -> None:
    with pytest.raises(RecipeError, match="validation is 0"):
        recipes.load("classic", words)


def test_a_schedule_that_watches_every_epoch_sees_every_epoch() -> None:
    with pytest.raises(RecipeError, match="validate_every is 2"):
        recipes.load("classic", ["schedule.name=plateau", "validate_every=2"])


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_rate_falls_for_a_while_before_it_stays(kind: str) -> None:
    words = [f"schedule.name={kind}", "fewer_images.exponent=0.0", "epochs=4"]
    assert recipes.load("classic", [*words, "schedule.final_epochs=3.5"]).epochs == 4
    with pytest.raises(RecipeError, match=r"final_epochs is 4, of epochs = 4, .* set schedule.final_epochs lower"):
        recipes.load("classic", [*words, "schedule.final_epochs=4"])


@pytest.mark.parametrize("epochs", ["0", "0.5", "1.5"])
def test_a_mean_of_ends_of_epochs_is_over_a_whole_number_of_them(epochs: str) -> None:
    with pytest.raises(RecipeError, match=r"averaging.epochs is .* expected a whole number from 1 on; set both"):
        recipes.load("classic", ["averaging.weighting=equal", f"averaging.epochs={epochs}"])


def test_epochs_grow_on_fewer_images_and_a_grown_recipe_stays_as_it_is() -> None:
    recipe = recipes.load("classic", ["fewer_images.exponent=0.5", "fewer_images.maximum_factor=4.0"])
    assert recipe.for_images(50_000).epochs == recipe.epochs
    assert recipe.for_images(500_000).epochs == recipe.epochs
    assert recipe.for_images(12_500).epochs == 2 * recipe.epochs
    assert recipe.for_images(10).epochs == 4 * recipe.epochs
    grown = recipe.for_images(12_500)
    assert recipes.parse(grown.to_toml()).for_images(12_500) == grown


def test_a_number_of_epochs_that_was_asked_for_does_not_grow() -> None:
    assert recipes.load("classic", ["epochs=3"]).for_images(100).epochs == 3


@given(images=st.integers(1, 5000), steps=st.integers(1, 20))
def test_batches_shrink_so_that_few_images_make_some_steps(images: int, steps: int) -> None:
    recipe = recipes.load("classic", [f"fewer_images.minimum_steps={steps}"])
    trained = int(images * (1 - recipe.validation))
    batch_size = recipe.for_images(images).batch_size
    assert 8 <= batch_size <= recipe.batch_size
    assert batch_size == 8 or math.ceil(trained / batch_size) >= steps
    assert batch_size == recipe.batch_size or trained // (batch_size + 1) < steps  # no smaller than it has to be


def test_a_batch_size_that_is_asked_for_is_kept() -> None:
    assert recipes.load("classic").for_images(60).batch_size == 8
    assert recipes.load("classic", ["batch_size=50"]).for_images(60).batch_size == 50
    assert recipes.load("classic").for_images(60).for_images(60).batch_size == 8


def test_a_recipe_file_is_read_like_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(recipes.load("classic").to_toml())
    assert recipes.load(path) == recipes.load("classic")
    with pytest.raises(RecipeError, match="no such file"):
        recipes.load(tmp_path / "other.toml")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        recipes.load(path)


LEAVES = st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=8), st.dates())
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def parsed_or_refused(content: str, overrides: list[str] | None = None) -> Recipe | None:
    try:
        return recipes.parse(content, overrides or [])
    except RecipeError as error:
        assert str(error)
        return None


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_a_clear_error(content: str) -> None:
    parsed_or_refused(content)


@given(st.lists(st.tuples(st.sampled_from(recipes.keys()), VALUES), max_size=4))
def test_any_values_in_known_places_are_a_recipe_or_a_clear_error(changes: list[tuple[str, object]]) -> None:
    import tomli_w

    values = tomllib.loads(recipes.load("classic").to_toml())
    for key, value in changes:
        table = values
        *sections, last = key.split(".")
        for section in sections:
            if not isinstance(table.get(section), dict):
                table[section] = {}
            table = table[section]
        table[last] = value
    try:
        content = tomli_w.dumps(values)
    except (TypeError, ValueError, UnicodeEncodeError):
        return
    recipe = parsed_or_refused(content)
    if recipe is not None:
        assert recipes.parse(recipe.to_toml()) == recipe


@given(
    st.lists(
        st.one_of(st.text(max_size=30), st.tuples(st.sampled_from(recipes.keys()), st.text(max_size=10)).map("=".join)),
        max_size=4,
    )
)
def test_any_overrides_are_applied_or_a_clear_error(overrides: list[str]) -> None:
    parsed_or_refused(recipes.load("classic").to_toml(), overrides)


@given(epochs=st.integers(1, 60), parts=st.lists(st.integers(4, 32), min_size=1, max_size=8, unique=True))
def test_each_image_scale_has_an_equal_part_of_the_epochs_and_the_last_comes_last(
    epochs: int, parts: list[int]
) -> None:
    recipe = recipes.load("classic", [f"epochs={epochs}", f"image_scales={[part / 32 for part in parts]}"])
    sizes = [recipe.image_size(epoch, (32, 64)) for epoch in range(epochs)]
    assert all(width == 2 * height for height, width in sizes)
    turns = [parts.index(height) for height, _ in sizes]
    assert turns == sorted(turns)
    assert turns[-1] == len(parts) - 1
    counts = [turns.count(part) for part in range(len(parts))]
    assert max(counts) - min(counts) <= 1


def test_images_keep_their_size_where_a_recipe_says_nothing() -> None:
    assert recipes.load("classic").image_size(3, (32, 48)) == (32, 48)


def test_overrides_are_a_list() -> None:
    with pytest.raises(TypeError, match=r"expected a list: \['epochs=2'\]"):
        recipes.load("classic", "epochs=2")


def test_a_digest_stands_for_what_is_trained() -> None:
    recipe = recipes.load("classic")
    same = ["name=mine", "description=mine", "calibration.temperature=2"]
    assert recipe.replace(*same).digest == recipe.digest
    changes = ["epochs=3", "model.dropout=0.4", "schedule.name=linear", "schedule.name=cosine", "optimizer.name=sgd"]
    digests = {recipe.replace(change).digest for change in changes} | {recipe.digest}
    assert len(digests) == len(changes) + 1
    assert recipes.parse(recipe.to_toml()).digest == recipe.digest
    assert recipe.replace("teacher.weight=0.5").digest == recipe.digest  # nobody teaches


def test_settings_that_are_invented_later_change_no_digest() -> None:
    words = ['name = "a"', "epochs = 2", "batch_size = 10", '[model]\nname = "classic"', '[optimizer]\nname = "adam"']
    assert recipes.parse("\n".join(words)).digest == "e3fba795c654ea67"


GPU = 'on_gpu=["batch_size=1000", "optimizer.learning_rate=0.17", "epochs=3"]'


def test_a_gpu_has_its_own_settings_and_a_cpu_none_of_them() -> None:
    recipe = recipes.load("classic", [GPU])
    on_cpu, on_gpu = recipe.for_device("cpu"), recipe.for_device("cuda")
    assert on_cpu == recipes.load("classic", ["search={}"])
    assert (on_gpu.batch_size, on_gpu.optimizer.learning_rate, on_gpu.epochs) == (1000, 0.17, 3)
    assert on_gpu.fewer_images == recipe.fewer_images  # few images still make small batches
    assert on_gpu.on_gpu == ()
    assert on_gpu.for_device("cuda") == on_gpu == on_gpu.for_device("cpu")
    assert recipes.parse(recipe.to_toml()) == recipe
    assert on_cpu.digest == recipes.load("classic").digest != on_gpu.digest


def test_what_somebody_sets_holds_on_every_device() -> None:
    recipe = recipes.load("classic", [GPU]).replace("batch_size=20")
    assert [recipe.for_device(kind).batch_size for kind in ("cpu", "cuda")] == [20, 20]
    assert recipe.for_device("cuda").epochs == 3
    other = recipes.load("classic", [GPU]).replace("optimizer.name=sgd")
    assert other.for_device("cuda").optimizer == other.for_device("cpu").optimizer


def test_what_somebody_sets_holds_for_the_kind_of_section_that_a_gpu_has_instead() -> None:
    words = ["optimizer.learning_rate=0.05", "optimizer.weight_decay=1e-3", "model.widths=[16, 32, 64]"]
    recipe = recipes.load("best", words)
    assert recipes.parse(recipe.to_toml()) == recipe
    on_cpu, on_gpu = recipe.for_device("cpu"), recipe.for_device("cuda")
    assert (on_cpu.optimizer.name, on_gpu.optimizer.name) == ("muon", "sgd")
    assert on_cpu.optimizer.learning_rate == on_gpu.optimizer.learning_rate == 0.05
    assert isinstance(on_gpu.optimizer, Sgd)
    assert (on_gpu.optimizer.weight_decay, on_gpu.optimizer.momentum) == (1e-3, 0.9)  # which the other kind lacks
    assert isinstance(on_gpu.model, ResNetModel)
    assert (on_gpu.model.widths, on_gpu.model.blocks) == ((16, 32, 64), (4, 4, 4))
    own = recipes.load("best", ["model.kernels=torch", "optimizer.name=adam", "optimizer.learning_rate=0.01"])
    assert own.for_device("cuda").model == recipes.load("best").for_device("cuda").model
    assert own.for_device("cuda").optimizer == own.for_device("cpu").optimizer
    with pytest.raises(RecipeError, match=r"on_gpu: optimizer\.weight_decay: found 'much'"):
        recipes.load("best", ["optimizer.weight_decay=much"])


def test_a_rate_that_still_rises_when_it_is_to_be_the_final_one_is_refused() -> None:
    words = ["schedule.name=cosine", "schedule.warmup_epochs=2", "schedule.final_epochs=6"]
    recipes.load("classic", [*words, "epochs=8"])
    with pytest.raises(RecipeError, match=r"warmup_epochs is 2 and schedule.final_epochs 6, of epochs = 7, so"):
        recipes.load("classic", [*words, "epochs=7"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("batch_sise=3", "on_gpu: batch_sise: no such key; did you mean batch_size?"),
        ("batch_size=0", "on_gpu: batch_size: found 0"),
        ("batch_size", "on_gpu: 'batch_size': expected key=value"),
        ("validation=0", "on_gpu: validation is 0"),
    ],
)
def test_what_is_wrong_for_a_gpu_is_told_on_any_device(override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        recipes.load("classic", [f'on_gpu=["{override}"]'])


CLASSIC = recipes.load("classic")


@given(epochs=st.integers(1, 60), every=st.integers(1, 70))
def test_the_last_epoch_has_a_look_at_validation_images_and_others_are_as_far_apart_as_asked(
    epochs: int, every: int
) -> None:
    recipe = CLASSIC.model_copy(update={"epochs": epochs, "validate_every": every})
    looks = [epoch for epoch in range(epochs) if recipe.validates(epoch)]
    assert looks[-1] == epochs - 1
    assert looks[0] < every
    assert all(later - earlier == every for earlier, later in itertools.pairwise(looks))
    blind = recipe.model_copy(update={"validation": 0.0})
    assert not any(map(blind.validates, range(epochs)))
