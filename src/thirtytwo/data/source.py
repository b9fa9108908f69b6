"""SPEC -> where the images are: what a person names is found on this machine, or fetched, or drawn.

A SPEC is one of

- ``cifar10``; ``cifar100``, with 100 classes, or ``cifar100:labels=coarse``, with 20; with ``training=5000``, such as
  ``cifar10:training=5000``, so many of the training images, always the same, as many of each class; with ``skip=5000``
  others than these so many, to see whether what was found with the first ones is so;
- ``shapes``, drawn by the package, or with any of the options in
  ``shapes:training=20000,test=2000,seed=1,label_errors=0.05,duplicates=0.02``;
- a path: a folder with one folder per class, or one with official CIFAR files.

Images that a program already holds become a data set with `from_arrays`.

CIFAR is looked for in ``$THIRTYTWO_DATA``, in the package's cache, and where Keras and torchvision leave it; where it
is in none of these, it is downloaded.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thirtytwo.data import cifar, download, folder, official
from thirtytwo.data.exclusion import Exclusion
from thirtytwo.data.images import Images, Split
from thirtytwo.errors import ChecksumMismatch, DataError, DownloadError, StorageError

NAMES = ("cifar10", "cifar100", "shapes")
"""SPECs that are no paths, without their options."""

ARRAYS = "arrays"
"""The SPEC of data that was given as arrays; it finds nothing."""

MOST_CLASSES = 65_536
"""That labels given as arrays can stand for; a larger label is no class number."""


@dataclass(frozen=True)
class Source:
    """A data set that was found; its images are read only when asked for.

    Only training images are to be had here. Test images are handed out by `data.sealed`, which counts it.
    """

    spec: str
    """Finds the same data again: an absolute path, or a name with the options that are not at their default."""
    name: str
    """What results call it: cifar10, cifar100, cifar100-coarse, shapes, or the folder's name; of fewer training images
    such as cifar10-5000, or cifar10-5000-skip-5000."""
    location: str
    """Where it lies, for people."""
    notice: str
    """Empty, or what a user has to be told before anything else about these data."""
    reader: InitVar[Callable[[Split], Images]]
    """Reads one split, and opens no file of the other."""
    exclusion: Exclusion = field(default_factory=Exclusion)
    """Training images that are left out."""
    others: str = ""
    """SPEC of training images of the same set that are none of these, as many if there are; empty where none is known.
    What was chosen by these is judged by those."""
    _sealed_reader: Callable[[Split], Images] = field(init=False, repr=False, compare=False)

    def __post_init__(self, reader: Callable[[Split], Images]) -> None:
        object.__setattr__(self, "_sealed_reader", reader)

    def read_training(self) -> Images:
        """The training images, validation part included, with `Images.name` as above; no test file is opened.

        Raises:
            DataError: files are missing, damaged, or of another kind, or there are too few for the exclusion.
        """
        return self.exclusion.applied(self._sealed_read("training"))

    def without(self, exclusion: Exclusion) -> Source:
        """The same data without these training images, in place of those that are left out now."""
        return replace(self, reader=self._sealed_reader, exclusion=exclusion)

    def in_memory(self) -> Source:
        """The same data, whose training images are read when they are first asked for, and then kept."""
        training = functools.cache(lambda: self._sealed_read("training"))
        return replace(self, reader=lambda split: training() if split == "training" else self._sealed_read(split))

    def with_training(self, images: Images) -> Source:
        """The same data with these as all of their training images, held in memory, and without test images.

        Unlike one that reads files, it can be pickled, and so be sent to another machine.
        """
        return replace(self, reader=_TrainingOnly(images))

    def _sealed_read(self, split: Split) -> Images:
        """One split. Nobody but `data.sealed` may ask for the test split; a test holds it."""
        images = self._sealed_reader(split)
        return images if images.name == self.name else replace(images, name=self.name)


@dataclass(frozen=True, eq=False)
class _TrainingOnly:
    """Reads training images that are there, and has no others."""

    images: Images

    def __call__(self, split: Split) -> Images:
        if split != "training":
            raise DataError(
                f"{self.images.name}: only its training images are here, since a study's training needs no others; "
                f"expected the split training, found {split}; score its model with the data set itself"
            )
        return self.images


def find(
    spec: str | None = None,
    *,
    progress: download.Progress | None = None,
    fallback: bool = False,
    layouts: Sequence[official.Layout] = official.LAYOUTS,
    archives: Mapping[str, download.Archive] = official.ARCHIVES,
    patience: download.Patience = download.PATIENCE,
    leave_out_broken: bool = False,
) -> Source:
    """Find the data set that a SPEC names; downloads it if it is not on this machine.

    Args:
        spec: see above; None is ``$THIRTYTWO_DATA``, which is a SPEC itself, and ``cifar10`` where that is not set.
        progress: called while a download runs, with the bytes that are there and the bytes expected.
        fallback: where nobody said which data to use and CIFAR-10 cannot be had, take ``shapes``; `notice` says so.
        layouts: what official files look like.
        archives: what can be downloaded, by name of the set.
        patience: when a host is given up.
        leave_out_broken: files of a folder that are no images are left out, and named in `Images.broken`, rather than
            refused: for who looks for them. A training on what is left would not say that it is less.

    Raises:
        DataError: there is no such data set, and the message suggests one; or files of either split are missing, or
            have a size that cannot be right. None has been opened yet: some can still turn out to be damaged.
        DownloadError, ChecksumMismatch: it is not on this machine and no host delivered it.
        StorageError: it cannot be stored.
    """
    search = _Search(progress, layouts, archives, patience, leave_out_broken)
    if spec is not None:
        return search.find(spec)
    if chosen := os.environ.get("THIRTYTWO_DATA"):
        try:
            return search.find(chosen)
        except DataError as error:
            raise type(error)(f"$THIRTYTWO_DATA: {error}") from None
    try:
        return search.find("cifar10")
    except (DownloadError, ChecksumMismatch, StorageError) as error:
        if not fallback:
            raise
        reason = "; ".join(line.strip() for line in str(error).splitlines() if not line.startswith("expected"))
        return _shapes(
            notice="CIFAR-10 was not found on this machine and could not be fetched, so DRAWN SHAPES stand in for it, "
            "and these results say nothing about CIFAR-10. To use it, name the folder with its files as "
            f"--data FOLDER or in $THIRTYTWO_DATA. What went wrong: {reason}"
        )


def from_arrays(
    training: tuple[ArrayLike, ArrayLike],
    test: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    classes: Sequence[str] | None = None,
    name: str = ARRAYS,
) -> Source:
    """A data set of images that are in memory already, as `load_data` returns them.

    Nothing is stored of them: whoever resumes a training or evaluates its model has to give the same arrays again.

    Args:
        training: (pixels, labels): uint8 (n, height, width, 3), red-green-blue, and whole numbers (n,) or (n, 1).
            Pixels are not copied where that can be helped; change nothing in them afterwards.
        test: the same; None where there are none, and then the test set cannot be scored.
        classes: class names in label order; None calls them 0, 1, … up to the largest label.
        name: what results call these images.

    Raises:
        DataError: the arrays are of another kind, do not fit together, or the name is that of a published set.
    """
    if not name.strip() or name.lower() in folder.RESERVED:
        raise DataError(
            f"name is {name!r}; expected one that no known set has, since results are filed under it; choose another"
        )
    given: dict[Split, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {"training": _arrays(name, "training", training)}
    if test is not None:
        given["test"] = _arrays(name, "test", test)
        sizes = [pixels.shape[1:3] for pixels, _ in given.values()]
        if sizes[0] != sizes[1]:
            (height, width), (test_height, test_width) = sizes
            raise DataError(
                f"{name}: test images of {test_height} × {test_width} pixels; expected {height} × {width}, like the "
                "training images; bring them to one size"
            )
    largest = max(int(labels.max()) for _, labels in given.values())
    names = tuple(map(str, range(largest + 1) if classes is None else classes))
    if len(names) <= max(largest, 1) or len(set(names)) < len(names):
        raise DataError(
            f"{name}: {len(names)} class names ({', '.join(names)}) and labels up to {largest}; expected two classes "
            "or more, of different names, one for each label from 0 on; check labels and class names"
        )
    images = {split: Images(pixels, labels, names, name) for split, (pixels, labels) in given.items()}

    def read(split: Split) -> Images:
        if split not in images:
            raise DataError(
                f"{name}: holds no {split} images; expected some to score; give them as from_arrays(training, test)"
            )
        return images[split]

    return Source(spec=ARRAYS, name=name, location="memory", notice="", reader=read)


def _arrays(name: str, split: Split, given: tuple[ArrayLike, ArrayLike]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, height, width, 3) and labels (n,) of one split."""
    try:
        pixels, labels = (np.asarray(each) for each in given)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name}: {split} is not what it should be ({error}); expected a pair of arrays, (pixels, labels)"
        ) from None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise DataError(
            f"{name}: {split} pixels are {pixels.dtype} {pixels.shape}; expected uint8 (images, height, width, 3), "
            "red-green-blue from 0 to 255, one image at least; convert them"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{name}: {split} labels are {labels.dtype} {labels.shape}; expected whole numbers (images,) or "
            "(images, 1); one-hot labels become these by argmax(axis=1)"
        )
    if len(labels) != len(pixels):
        raise DataError(
            f"{name}: {len(pixels)} {split} images but {len(labels)} labels; expected one label for each image; "
            "give those that belong together"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= MOST_CLASSES:
        raise DataError(
            f"{name}: {split} labels from {lowest} to {highest}; expected class numbers from 0 to "
            f"{MOST_CLASSES - 1} at most; renumber them"
        )
    # Contiguous and writable, since tensors are to share this memory.
    return np.require(pixels, requirements=["C", "W"]), labels.astype(np.int64)


def cache_folder() -> Path:
    """Where downloaded sets are kept: ``$THIRTYTWO_CACHE``, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("THIRTYTWO_CACHE") or platformdirs.user_cache_dir("thirtytwo")).absolute()


@dataclass(frozen=True)
class _Search:
    """What `find` is told about how to look."""

    progress: download.Progress | None
    layouts: Sequence[official.Layout]
    archives: Mapping[str, download.Archive]
    patience: download.Patience
    leave_out_broken: bool

    def find(self, spec: str) -> Source:
        name, _, text = spec.strip().partition(":")
        if name == ARRAYS:
            raise DataError(
                f"{spec!r}: stands for data that a program gave as arrays, which are not stored; expected these arrays "
                "again, as from_arrays(training, test) in Python; for a folder of that name, write ./arrays"
            )
        if name == "shapes":
            return _beside(_shapes(_options(spec, text, _SHAPES)), name)
        if name not in NAMES:
            return self._at_path(spec)
        options = _options(spec, text, _CIFAR100 if name == "cifar100" else _CIFAR10)
        options = {key: options[key] for key in sorted(options) if options[key] not in ("fine", 0)}  # as ever
        chosen = ",".join(f"{key}={value}" for key, value in options.items())
        copy = self._copy(name)
        others = _others(name, options, sum(copy.layout.training.values()))
        found = _cifar(f"{name}:{chosen}" if chosen else name, copy, options.get("labels", "fine"), others)
        return _beside(_fewer(found, options.get("training"), options.get("skip", 0)), name)

    def _at_path(self, spec: str) -> Source:
        path = _existing(spec)
        if copy := cifar.recognise(path, self.layouts):
            copy.check()
            return _cifar(str(path), copy, "fine")
        listing = folder.listed(path, leave_out_broken=self.leave_out_broken)
        return Source(spec=str(path), name=folder.name_of(path), location=str(path), notice="", reader=listing.read)

    def _copy(self, name: str) -> cifar.Copy:
        """A copy of CIFAR: named by the environment, on this machine, or fetched."""
        layouts = [layout for layout in self.layouts if layout.name == name]
        chosen = os.environ.get("THIRTYTWO_DATA", "")
        if chosen and chosen.partition(":")[0] not in NAMES:
            try:
                if copy := cifar.recognise(_existing(chosen), layouts):
                    copy.check()
                    return copy
            except DataError as error:
                raise DataError(f"$THIRTYTWO_DATA: {error}") from None
        for place in _places():
            # What somebody else left may be half a download; then it is as if it were not there.
            if (copy := cifar.recognise(place, layouts)) and copy.is_whole():
                return copy
        place = download.fetch(self.archives[name], cache_folder(), self.progress, patience=self.patience)
        copy = cifar.recognise(place, layouts)
        if copy is None:
            raise DataError(f"{place}: holds no {name} files, although it was fetched as such; expected official ones")
        return copy


def _beside(source: Source, name: str) -> Source:
    """The same, and a word about a folder of that name, which somebody may have meant."""
    place = Path(name)
    if not place.is_dir() or place.resolve() in (used := Path(source.location).resolve(), *used.parents):
        return source
    words = f"The folder {name} in the current folder is not meant by {name}; ./{name} would name it."
    return replace(source, notice=f"{source.notice} {words}".strip(), reader=source._sealed_read)


def _existing(spec: str) -> Path:
    """The folder that a SPEC names."""
    if not spec.strip():
        raise DataError(f"{spec!r} names nothing; expected {', '.join(NAMES)} or a path")
    path = Path(spec)
    with contextlib.suppress(RuntimeError):  # there may be no home
        path = path.expanduser()
    path = path.absolute()
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise DataError(f"{str(path)[:200]}: cannot be read ({error.strerror}); expected a folder") from None
    if not exists:
        name = spec.strip().partition(":")[0].lower().replace("-", "")
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else "check the path"
        raise DataError(f"{spec!r}: no such folder, and no known name; expected {', '.join(NAMES)} or a path; {hint}")
    if not is_folder:
        raise DataError(f"{path}: a file; expected a folder; unpack it if it is an archive, then name the folder")
    return path


def _cifar(spec: str, copy: cifar.Copy, labels: official.LabelKind, others: str = "") -> Source:
    return Source(
        spec=spec,
        name=copy.layout.name if labels == "fine" else f"{copy.layout.name}-{labels}",
        location=str(copy.folder),
        notice="",
        reader=lambda split: cifar.read(copy.folder, split, labels, layouts=[copy.layout]),
        others=others,
    )


def _fewer(source: Source, number: int | None, skip: int) -> Source:
    """A source with so many of its training images, always the same, as many of each class.

    Args:
        source: with all of them.
        number: None is all but those that are skipped.
        skip: others than these so many.
    """
    if number is None and not skip:
        return source

    def read(split: Split) -> Images:
        images = source._sealed_read(split)
        if split == "test":
            return images
        wanted = max(len(images) - skip, 0) if number is None else number
        if not 0 < wanted < len(images) or wanted + skip > len(images):
            raise DataError(
                f"{source.spec}: {len(images):,} training images; expected training and skip to add up to fewer; "
                "choose smaller numbers, or leave both out to use all images"
            )
        # Not by the seed that divides validation images from the others: these are as much of a mix.
        return images.take(images.fewer(wanted, seed=1, skip=skip))

    parts = [source.name, *([str(number)] if number else []), *([f"skip-{skip}"] if skip else [])]
    return replace(source, name="-".join(parts), reader=read)


def _others(name: str, options: Mapping[str, Any], images: int) -> str:
    """See `Source.others`: of so many images, those that come after what is skipped and what is taken."""
    if "training" not in options:
        return ""
    seen = options.get("skip", 0) + options["training"]
    if seen >= images:
        return ""
    more = {key: value for key, value in options.items() if key == "labels"}
    more |= {"training": options["training"]} if seen + options["training"] <= images else {}
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in {**more, "skip": seen}.items())


def _places() -> list[Path]:
    """Where a copy of CIFAR may lie, its official folder or the folder that holds that."""
    places = [cache_folder()]
    home = None
    with contextlib.suppress(RuntimeError):
        home = Path.home()
    keras = Path(os.environ["KERAS_HOME"]) if os.environ.get("KERAS_HOME") else home and home / ".keras"
    if keras:
        datasets = keras.absolute() / "datasets"
        # From version 3.5 on, Keras unpacks into a folder of its own.
        places += [datasets, datasets / "cifar-10-batches-py-target", datasets / "cifar-100-python-target"]
    here = Path.cwd()
    places += [here / "data", here]  # torchvision has no place of its own; its examples say ./data
    return [*places, home / "data"] if home else places


# Options of a SPEC ---------------------------------------------------------------------------------------------------


def _shapes(options: Mapping[str, Any] | None = None, notice: str = "") -> Source:
    """The data set that the package draws."""
    from thirtytwo.data.shapes import check, draw

    chosen = {**_SHAPES_DEFAULTS, **(options or {})}

    def arguments(split: Split) -> dict[str, Any]:
        shared = {key: chosen[key] for key in ("seed", "label_errors", "duplicates")}
        return {"number": chosen[split], "split": split, "training_number": chosen["training"], **shared}

    for split in get_args(Split):
        check(**arguments(split))

    text = ",".join(f"{key}={chosen[key]}" for key, default in _SHAPES_DEFAULTS.items() if chosen[key] != default)
    return Source(
        spec=f"shapes:{text}" if text else "shapes",
        name="shapes",
        location="drawn by the package",
        notice=notice,
        reader=lambda split: draw(**arguments(split)).images,
    )


def _labels(text: str) -> official.LabelKind:
    if text == "coarse":
        return "coarse"
    if text == "fine":
        return "fine"
    raise ValueError("fine or coarse")


def _count(text: str) -> int:
    if not text.isdecimal() or not 10 <= int(text) <= 10_000_000:
        raise ValueError("a whole number from 10 to 10000000")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise ValueError("a whole number from 0 on")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 0.5:
        raise ValueError("a share from 0 to 0.5")
    return share


def _skipped(text: str) -> int:
    if not text.isdecimal() or int(text) > 10_000_000:
        raise ValueError("a whole number from 0 to 10000000")
    return int(text)


_CIFAR10: Mapping[str, Callable[[str], Any]] = {"training": _count, "skip": _skipped}
_CIFAR100: Mapping[str, Callable[[str], Any]] = {"labels": _labels, **_CIFAR10}
"""Options of ``cifar10`` and ``cifar100``."""

_SHAPES: Mapping[str, Callable[[str], Any]] = {
    "training": _count,
    "test": _count,
    "seed": _seed,
    "label_errors": _share,
    "duplicates": _share,
}
"""Options of ``shapes``: how many images, which ones, and the shares with a wrong label or copied from another."""

_SHAPES_DEFAULTS: Mapping[str, Any] = {
    "training": 5000,
    "test": 1000,
    "seed": 0,
    "label_errors": 0.0,
    "duplicates": 0.0,
}


def _options(spec: str, text: str, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """``key=value,key=value`` as values; every mistake at once."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for option in text.split(",") if text else []:
        key, _, value = (part.strip() for part in option.partition("="))
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1)
            expected = f"one of {', '.join(known)}" if known else "none"
            problems.append(
                f"no such option {key!r} (expected {expected}{f'; did you mean {near[0]}?' if near else ''})"
            )
            continue
        try:
            values[key] = known[key](value)
        except ValueError as error:
            problems.append(f"{key} is {value!r} (expected {error})")
    if problems:
        raise DataError(f"{spec!r}: {'; '.join(problems)}; expected a SPEC such as `shapes:training=20000,seed=1`")
    return values
