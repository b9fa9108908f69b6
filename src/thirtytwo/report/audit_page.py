"""What an audit found, as one HTML page: the suspicious images side by side."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from markupsafe import Markup

from thirtytwo import metrics
from thirtytwo import recipe as recipes
from thirtytwo.data.source import ARRAYS
from thirtytwo.report import html, wording

if TYPE_CHECKING:
    from thirtytwo.data.images import Split
    from thirtytwo.study.findings import Audit, LabelIssue, OddImage, Pair

MOST_BYTES = 4_600_000
"""Characters of all pictures and their captions; a CIFAR image takes about 2,400."""
CAPTION_BYTES = 400
"""Characters around a picture, about."""
AT_ONCE = 30
"""Suspicions of a kind that are shown before somebody asks for the rest."""
CONFUSIONS = 8
"""Most frequent kinds of doubtful labels that are told in numbers."""
FILES = 200
"""Broken files that are named."""
LONGEST_TABLE = 500_000
"""Characters of a table that the page holds too, so that it can be saved without what somebody has struck out."""
STRUCK = {"label_issues.csv": "label is right", "duplicates.csv": "not the same"}
"""Tables of which single rows can be struck out, and what is said by it."""
SIZES = 8
"""Most frequent image sizes that are told one by one."""

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Shown:
    """An image of the data set."""

    picture: Markup
    place: str
    """Which one it is, in few words."""
    full: str
    """The same in full."""
    label: str
    """The class that it was given."""


@dataclass(frozen=True)
class Card:
    """One suspicion."""

    images: tuple[Shown, ...]
    words: str
    """What else there is to say, such as a distance."""
    suggested: str = ""
    """The class that a label issue suggests."""
    line: int = 0
    """Which row of its table it is, counted from 0."""

    @property
    def differ(self) -> bool:
        """Whether the same picture bears different labels."""
        return len({image.label for image in self.images}) > 1


@dataclass(frozen=True)
class Chapter:
    """All suspicions of one kind, most suspicious first."""

    cards: list[Card]
    """Those that are shown."""
    number: int
    """How many there are."""

    @property
    def first(self) -> list[Card]:
        """Those that are shown at once."""
        return self.cards[:AT_ONCE]

    @property
    def rest(self) -> list[Card]:
        """Those that are shown when somebody asks."""
        return self.cards[AT_ONCE:]


@dataclass(frozen=True)
class Headline:
    """A number that the page opens with."""

    share: float
    number: str
    """The share as people write it."""
    meaning: str
    counts: str
    """What it is a share of, and how far it is to be believed."""


def render(found: Audit, edited: Sequence[str] = (), precision: tuple[float, float] | None = None) -> str:
    """The page.

    Args:
        found: all that it tells.
        edited: tables beside it that somebody has changed.
        precision: see `wording.trust_in_pairs`.
    """
    tables = _tables(found, edited)
    chapters = _chapters(found, MOST_BYTES - sum(len(found.tables[name]) for name in tables))
    training, test = (found.splits[split].images for split in ("training", "test"))
    trust = wording.trust_in_pairs(precision)
    facts = {
        "notice": found.notice,
        "warnings": found.warnings,
        "found": found,
        **chapters,
        "shown": sum(len(chapter.cards) for chapter in chapters.values()) + min(len(found.broken), FILES),
        "suspicions": sum(chapter.number for chapter in chapters.values()) + len(found.broken),
        "broken": found.broken[:FILES],
        "edited": edited,
        "untouched": [name for name in found.tables if name not in edited],
        "tables": html.data(tables),
        "struck": list(tables),
        "trust": trust,
        "numbers": {"training": training, "test": test},
        "headlines": _headlines(found, trust),
        "key_facts": list(_key_facts(found)),
        "agreed": {split: _agreed(found, split) for split in found.splits},
        "weak": wording.weak_networks(found.accuracy["training"], found.is_at_baseline) if found.is_weak else "",
        "confusions": _confusions(found),
        "balance": _balance(found),
        "sizes": _sizes(found),
        "one_size": len({size for overview in found.splits.values() for size in overview.sizes}) == 1,
        "is_arrays": found.spec == ARRAYS,
        # With these networks' doubts nobody is to train.
        "train": "" if found.is_weak else _training_command(found),
        "repeat": _stronger_audit(found) if found.is_weak else "",
        "provenance": list(_provenance(found)),
    }
    return html.render("audit.html.jinja", facts)


def _headlines(found: Audit, trust: str) -> list[Headline]:
    """How many test images seem to be leaked, and how many labels are in doubt.

    The larger share comes first, but for doubts of weak networks: their share says more of them than of the labels.
    """
    images = {split: overview.images for split, overview in found.splits.items()}
    leaked = len(found.leaked)
    doubted = {split: len(found.issues_in(split)) for split in found.splits}
    doubted_so, agreement = "of the labels are in doubt:", ""
    if found.is_weak:
        doubted_so = "of the labels are doubted by networks that can hardly judge them:"
        agreed = wording.percent(found.accuracy["training"], 0)
        agreement = f"; the networks agree with only {agreed} of the training labels"

    def headline(hits: int, of: int, meaning: str, counts: str) -> Headline:
        share = hits / max(of, 1)
        return Headline(share, wording.precise_percent(share, of), meaning, counts)

    leaks = headline(
        leaked,
        images["test"],
        "of the test images seem to show the same picture as a training image:",
        f"{wording.count(leaked)} of n\u00a0=\u00a0{wording.count(images['test'])}{'; ' + trust if leaked else ''}",
    )
    doubts = headline(
        sum(doubted.values()),
        sum(images.values()),
        doubted_so,
        " and ".join(
            f"{wording.count(doubted[split])} of n\u00a0=\u00a0{wording.count(number)} {split} labels"
            for split, number in images.items()
        )
        + agreement,
    )
    return [doubts, leaks] if doubts.share > leaks.share and not found.is_weak else [leaks, doubts]


def _training_command(found: Audit) -> str:
    """What trains without the training images that label_issues.csv names, if it is typed beside that table."""
    if found.spec == ARRAYS:
        return 'thirtytwo.train(recipe, data, exclude="label_issues.csv").finish()'
    name, _ = _recipe_to_type(found)  # networks of an audit are often trained for less than a recipe says
    return shlex.join(["thirtytwo", "train", name, "--data", found.spec, "--exclude", "label_issues.csv"])


def _stronger_audit(found: Audit) -> str:
    """What repeats the audit with twice as many epochs, if it is typed beside its tables."""
    epochs = f"epochs={2 * found.epochs}"
    if found.spec == ARRAYS:
        return f'thirtytwo.study.audit(data, recipe.replace("{epochs}"), out)'
    name, changes = _recipe_to_type(found)
    others = [change for change in changes if change.partition("=")[0].strip() != "epochs"]
    recipe = shlex.join([name, *others, epochs])
    words = ["thirtytwo", "audit", found.spec, "--recipe", recipe, "--networks", str(found.folds), "--out", "."]
    return shlex.join(words)


def _recipe_to_type(found: Audit) -> tuple[str, list[str]]:
    """The recipe of the networks, and its changes, as they are typed in another folder than the audit's command."""
    if not found.recipe_words:
        return "RECIPE", []
    name, *changes = found.recipe_words
    return name if name in recipes.names() else str(Path(name).absolute()), changes


def _tables(found: Audit, edited: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The tables that can be saved without some of their rows, by name.

    Not one that holds something else by now, that says what weak networks doubt, that is too long, or whose rows are
    not lines, since the name of a file has a line break.

    Returns:
        Each with its `columns` and `rows` as lines, what is said by striking one out, and a `key` for what was struck.
    """
    rows: Mapping[str, Sequence[LabelIssue | Pair]] = {
        "label_issues.csv": () if found.is_weak else found.issues,
        "duplicates.csv": found.pairs,
    }
    tables = {}
    for name, words in STRUCK.items():
        content = found.tables[name]
        columns, *lines = content.decode().split("\n")[:-1]
        if name not in edited and len(lines) == len(rows[name]) > 0 and len(content) <= LONGEST_TABLE:
            key = f"thirtytwo audit {hashlib.sha256(content).hexdigest()[:16]}"
            tables[name] = {"columns": columns, "rows": lines, "struck": words, "key": key}
    return tables


def _chapters(found: Audit, left: int) -> dict[str, Chapter]:
    """The suspicions by kind, as many of them as the page has room for: `left` characters."""
    lines: dict[Any, int] = {row: line for rows in (found.issues, found.pairs) for line, row in enumerate(rows)}

    def chapter(share: float, items: Iterable[Kind], card: Callable[[Audit, Kind], Card]) -> Chapter:
        """As many as fit into a share of the room that is left."""
        nonlocal left
        every = list(items)
        cards: list[Card] = []
        room = round(share * left)
        for item in every:
            made = replace(card(found, item), line=lines.get(item, 0))
            room -= sum(len(image.picture) + CAPTION_BYTES for image in made.images)
            if room < 0:
                break
            cards.append(made)
            left -= sum(len(image.picture) + CAPTION_BYTES for image in made.images)
        return Chapter(cards, len(every))

    # What one kind leaves, the next ones have.
    return {
        "leaks": chapter(0.45, found.leaks, _pair),
        "odd": chapter(0.1, found.odd, _odd),
        "test_issues": chapter(0.4, found.issues_in("test"), _issue),
        "training_issues": chapter(0.5, found.issues_in("training"), _issue),
        "test_pairs": chapter(0.4, found.pairs_in("test"), _pair),
        "training_pairs": chapter(1.0, found.pairs_in("training"), _pair),
    }


def _issue(found: Audit, issue: LabelIssue) -> Card:
    shown = _shown(found, issue.split, issue.index)
    return Card((shown,), f"score {issue.score:.3f}", suggested=issue.suggested)


def _pair(found: Audit, pair: Pair) -> Card:
    images = (_shown(found, pair.split_a, pair.index_a), _shown(found, pair.split_b, pair.index_b))
    distance = "below 0.001" if pair.distance < 0.001 else f"{pair.distance:.3f}"
    return Card(images, "every pixel equal" if pair.kind == "exact" else f"distance {distance}")


def _odd(found: Audit, image: OddImage) -> Card:
    return Card((_shown(found, image.split, image.index),), image.reason)


def _shown(found: Audit, split: Split, index: int) -> Shown:
    path = found.paths.get((split, index), "")
    full = f"{split} image {index}" + (f", {path}" if path else "")
    place = "/".join(Path(path).parts[-2:]) if path else f"{split} {index}"
    picture = html.picture(found.pixels[split, index], f"{split.capitalize()} image {index}", "webp")
    return Shown(picture, place, full, found.labels[split, index])


def _agreed(found: Audit, split: Split) -> tuple[str, str, str]:
    """How many labels of a split the networks agree with, and the interval of that share."""
    images = found.splits[split].images
    if not images:
        return "–", "–", "–"
    hits = round(found.accuracy[split] * images)
    low, high = metrics.wilson(hits, images)
    return wording.precise_percent(hits / images, images), wording.percent(low), wording.percent(high)


def _key_facts(found: Audit) -> Iterator[tuple[str, str, str]]:
    """Name, value and meaning of the most important numbers."""
    for split, overview in found.splits.items():
        number, doubted = overview.images, len(found.issues_in(split))
        share = wording.percent(doubted / max(number, 1))
        yield f"Doubtful {split} labels", wording.count(doubted), f"{share} of {number:,}"
    for split in found.splits:
        pairs = wording.count(len(found.pairs_in(split)))
        yield f"Pairs among {split} images", pairs, "that seem to show the same picture"
    labelled = sum(
        found.labels[pair.split_a, pair.index_a] != found.labels[pair.split_b, pair.index_b] for pair in found.pairs
    )
    yield "Same picture, other label", wording.count(labelled), f"of {wording.plural(len(found.pairs), 'pair')} in all"
    if found.odd:
        yield "Images of one colour", wording.count(len(found.odd)), "which show nothing"
    if found.broken:
        yield "Unreadable files", wording.count(len(found.broken)), "left out of everything else"


def _confusions(found: Audit) -> list[tuple[str, str, int]]:
    """(given, suggested, how many) of the most frequent kinds of doubtful labels."""
    counted = Counter((issue.given, issue.suggested) for issue in found.issues)
    return [(given, suggested, number) for (given, suggested), number in counted.most_common(CONFUSIONS)]


def _balance(found: Audit) -> list[dict[str, Any]]:
    """A row for each class: images and doubtful labels of each split."""
    most = {split: max(overview.per_class, default=1) or 1 for split, overview in found.splits.items()}
    doubted = Counter((issue.split, issue.given) for issue in found.issues)
    return [
        {
            "class": name,
            "counts": [
                (overview.per_class[label], overview.per_class[label] / most[split], doubted[split, name])
                for split, overview in found.splits.items()
            ],
        }
        for label, name in enumerate(found.classes)
    ]


def _sizes(found: Audit) -> list[tuple[str, list[int]]]:
    """Sizes of images as they are stored, most frequent first, with how many of each split there are."""
    counted: Counter[tuple[int, int]] = Counter()
    for overview in found.splits.values():
        counted.update(overview.sizes)
    frequent = [size for size, _ in counted.most_common(SIZES)]
    rows = [
        (f"{height} × {width}", [overview.sizes.get((height, width), 0) for overview in found.splits.values()])
        for height, width in frequent
    ]
    if others := len(counted) - len(frequent):
        rest = [
            sum(number for size, number in overview.sizes.items() if size not in frequent)
            for overview in found.splits.values()
        ]
        rows.append((wording.plural(others, "other size"), rest))
    return rows


def _provenance(found: Audit) -> Iterator[tuple[str, str]]:
    """What was asked, and of what."""
    yield "Data", found.name
    yield "Read from", found.location
    yield "SPEC", found.spec
    yield "Networks", f"{found.folds}, {found.recipe}; each trained without its share of the training images"
    yield "Time", wording.duration(found.seconds) + " of computing; pauses are not counted"
    yield "Test set opening", f"{wording.ordinal(found.test_opening)}, by this user on this machine"
    yield from wording.circumstances(found.environment, "Finished")
    if found.network_commits not in ((), (found.environment["commit"],)):
        yield "Networks trained by commit", "; ".join(map(wording.commit, found.network_commits))
