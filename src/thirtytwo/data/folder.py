"""Image files: one file -> pixels, and a folder with one folder per class -> Images.

`read_image` is the only decoder of image files, so that what a network sees in training and in prediction is made in
the same way. Nothing here opens a file of a split that was not asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thirtytwo.data.images import Broken, Images, Split
from thirtytwo.errors import DataError, ImageError, InputError, OutOfMemory

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64 * 2**20
"""Pixels of the largest picture that is decoded, into 256 MiB. A file of a few kB can claim any number."""

RESERVED = {"cifar10", "cifar100", "cifar100-coarse", "shapes"}
"""Names in results that must never mean somebody's own images."""

_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded. Left out on purpose: formats that start other programs (EPS), and rare ones."""

_ENDINGS = {
    *(".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}

_TEST_SHARE = 0.2
_HIDDEN = {"thumbs.db", "desktop.ini"}
_RUN = {"recipe.toml", "environment.json"}
"""Files by which a folder is known to be a run's."""
_MARKS = (
    {"search.json", "study.db"},
    {"tables.json", "label_issues.csv"},  # an audit
    {"model.safetensors"},  # an ensemble
)
"""The same of other things that the program makes, none of which holds images."""
_PLACES = ("runs", "audits", "ensembles")
"""Folders in which the program puts what it makes, if nobody says otherwise."""
_PARTS = {"train", "training", "test", "testing", "test1", "val", "valid", "validation"}
"""Names of folders that hold a part of the data rather than a class."""
_MOST_SHOWN = 20
"""Of files that cannot be read, in one message."""


# One file ------------------------------------------------------------------------------------------------------------

_EXPECTED = "expected an image file, such as JPEG or PNG"


def read_image(path: str | Path, size: tuple[int, int] = (32, 32)) -> NDArray[np.uint8]:
    """Decode an image file, upright, and fit it to a size.

    The picture is scaled, with antialiasing, until its shorter side fits, and what then sticks out is cut off evenly on
    both sides. One that already has the size passes unchanged. 16-bit greys are scaled to 8 bits, transparent parts are
    laid over white, the rotation that a camera noted (EXIF) is applied, and of an animation the first frame is taken.

    Args:
        path: an AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or WebP file; its name does not matter.
        size: (height, width) wanted, in pixels.

    Returns:
        uint8 (height, width, 3), red-green-blue.

    Raises:
        ImageError: there is no such file, it is no image, is cut short, or has more than `MOST_PIXELS`.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    if problem := _problem(path):
        raise ImageError(problem)
    try:
        with Image.open(path, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _too_large(path, f"{image.width} × {image.height}")
            height, width = size if _orientation(image) < 5 else size[::-1]
            # A JPEG can be decoded at an eighth of its size, many times faster; 4 times what is needed is plenty.
            image.draft(None, (4 * width, 4 * height))
            # Pillow turns a TIFF while it loads it, and nothing else: how to turn what it hands out shows only then.
            image.load()
            return np.array(_fit(_rgb(path, _upright(image, _orientation(image))), size))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image of a known format; {_EXPECTED}; remove or replace it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path, "far too many") from None
    except MemoryError:
        raise OutOfMemory(f"{path}: no memory left to decode it; close other programs") from None
    except Exception as error:  # decoders fail in any way they like on damaged files
        raise ImageError(f"{path}: damaged or cut short ({error}); {_EXPECTED}; replace it") from None


def image_sizes(paths: Iterable[str | Path]) -> Counter[tuple[int, int]]:
    """(height, width) in pixels of image files as they are stored -> how many there are; nothing is decoded."""
    from PIL import Image

    def size(path: str | Path) -> tuple[int, int]:
        with Image.open(path, formats=_formats()) as image:
            upright = _orientation(image) < 5
            return (image.height, image.width) if upright else (image.width, image.height)

    with ThreadPoolExecutor() as pool:
        return Counter(pool.map(size, paths))


def _problem(path: Path) -> str:
    """What is wrong with an image file as far as that shows without opening it; empty if nothing is."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return f"{path}: no such file or folder; {_EXPECTED}; check the path"
    except (OSError, ValueError) as error:
        return f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); {_EXPECTED}; check the path"
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a plain file"
        return f"{path}: {kind}; {_EXPECTED}; check the path"
    return "" if found.st_size else f"{path}: 0 bytes; {_EXPECTED}; remove or replace it"


def _too_large(path: Path, found: str) -> ImageError:
    return ImageError(f"{path}: {found} pixels; expected at most {MOST_PIXELS:,}; scale it down first")


@cache
def _formats() -> tuple[str, ...]:
    """Those of `_FORMATS` that this build of Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _orientation(image: Image) -> int:
    """What EXIF says about how the camera was held: 1 to 8. A block that cannot be read says nothing."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # as above
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(orientation)
    return image if turn is None else image.transpose(turn)


def _rgb(path: Path, image: Image) -> Image:
    """The same picture with three channels of 8 bits."""
    from PIL import Image

    if image.mode.startswith("I"):  # greys of 16 bits, in "I" as 32-bit numbers
        greys = np.asarray(image)  # (height, width)
        if greys.min() < 0 or greys.max() > 65_535:
            raise ImageError(f"{path}: greys of 32 bits; expected 8 or 16; convert it first")
        # 65,535 = 255 × 257. In place, since such pictures can be large.
        greys = greys.astype(np.uint32)
        greys += 128
        greys //= 257
        image = Image.fromarray(greys.astype(np.uint8))
    elif image.mode == "F":
        raise ImageError(f"{path}: pixels are fractions; expected whole numbers of 8 or 16 bits; convert it first")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _fit(image: Image, size: tuple[int, int]) -> Image:
    from PIL import ImageOps
    from PIL.Image import Resampling

    height, width = size
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), method=Resampling.BICUBIC)


# Many files ----------------------------------------------------------------------------------------------------------


def read_images(paths: Iterable[str | Path], size: tuple[int, int] = (32, 32)) -> NDArray[np.uint8]:
    """Decode image files, several at a time, each as `read_image` does.

    Args:
        paths: as many as fit in memory once they are decoded.
        size: (height, width) wanted, in pixels.

    Returns:
        uint8 (n, height, width, 3), red-green-blue, in the order of `paths`.

    Raises:
        ImageError: some cannot be read as images; all of them are named, in the message up to twenty.
    """
    given = list(paths)
    pixels, problems = _decode([Path(path) for path in given], size)
    if problems:
        raise unreadable({str(given[index]): said for index, said in problems.items()}, len(set(map(str, given))))
    return pixels


def unreadable(problems: Mapping[str, str], number: int, *, others: str = "") -> ImageError:
    """The error that names those of some files that cannot be read as images: all of them, in the message up to twenty.

    Args:
        problems: for each such file, by its path as it was given, what is wrong with it; one at least.
        number: of all files that were to be read.
        others: what was done with the others, such as ``classified``, which then is said first; empty where they were
            left alone.
    """
    said = [f"{path}: {problem}" for path, problem in problems.items()]
    error = ImageError(said[0] if number == 1 else _summary(said, number, others))
    error.problems = dict(problems)
    return error


def image_files(paths: Iterable[str | Path]) -> list[Path]:
    """The image files among files and folders, in the order given; a folder stands for those in it, at any depth.

    A file is taken as it is named, whatever its ending and whether there is one; in a folder, endings decide, and as in
    training, what is hidden is left out, and so are run folders and what lies behind links to folders.

    Raises:
        ImageError: some folders hold no image; all of these are named.
    """
    files: list[Path] = []
    problems: list[str] = []
    for path in map(Path, paths):
        if not _is_folder(path):
            files.append(path)
            continue
        inside = [file for file in _files(path, ImageError) if has_image_ending(file)]
        if not inside:
            problems.append(
                f"{path}: no image files in this folder; expected some, such as .png or .jpg; name another folder, or "
                "the files themselves, which may end as they like"
            )
        files += inside
    if problems:
        raise ImageError("\n".join(problems))
    return files


def _decode(paths: Sequence[Path], size: tuple[int, int]) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """All images (n, height, width, 3), and what is wrong with each file that is none, by its place."""
    try:
        pixels = np.empty((len(paths), *size, 3), dtype=np.uint8)
    except MemoryError:
        raise OutOfMemory(
            f"{len(paths):,} images of {size[0]} × {size[1]} pixels do not fit in memory; choose fewer or smaller ones"
        ) from None

    def decode(index: int) -> str:
        try:
            pixels[index] = read_image(paths[index], size)
        except ImageError as error:
            return str(error).removeprefix(f"{paths[index]}: ")
        return ""

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders let go of the interpreter
        return pixels, {index: problem for index, problem in enumerate(pool.map(decode, range(len(paths)))) if problem}


def _summary(problems: Sequence[str], number: int, others: str = "") -> str:
    """One message about those of `number` files that cannot be read, a line each; see `unreadable`."""
    bad, good = len(problems), number - len(problems)
    if good and others:
        done = f"{good:,} of {number:,} files {'was' if good == 1 else 'were'} {others}"
        rest = "other one cannot be read as an image" if bad == 1 else f"other {bad:,} cannot be read as images"
        first = f"{done}; the {rest}"
    else:
        first = f"{bad:,} of {number:,} files cannot be read as images"
    lines = [first]
    lines += [f"  {problem}" for problem in problems[:_MOST_SHOWN]]
    if len(problems) > _MOST_SHOWN:
        lines.append(f"  and {len(problems) - _MOST_SHOWN:,} more")
    return "\n".join(lines)


# A folder ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Listing:
    """The files of a folder with one folder per class; what is added later changes nothing."""

    folder: Path
    classes: tuple[str, ...]
    """Names of the class folders, in label order."""
    training: tuple[tuple[Path, ...], ...]
    """Training files of each class, in the order of paths."""
    test: tuple[tuple[Path, ...], ...]
    """The same for the test split."""
    warnings: tuple[str, ...]
    leaves_out_broken: bool = False
    """Whether files that are no images are left out, and named in `Images.broken`, rather than refused."""

    def read(self, split: Split, size: tuple[int, int] = (32, 32)) -> Images:
        """The images of one split.

        Args:
            split: no file of the other split is opened.
            size: (height, width) to which every image is brought, in pixels.

        Returns:
            uint8 (n, height, width, 3), in the order of labels, then paths; named after the folder. What is left out
            takes no place: each image is where it will be when the broken files have been removed.

        Raises:
            DataError: some files are no images, or all, if these are left out; all of them are named, up to twenty.
        """
        files = self.training if split == "training" else self.test
        paths = [path for each in files for path in each]
        pixels, problems = _decode(paths, size)
        if problems and (not self.leaves_out_broken or len(problems) == len(paths)):
            raise _no_images(self.folder, [f"{paths[at]}: {said}" for at, said in problems.items()], len(paths))
        images = Images(
            pixels=pixels,
            labels=np.repeat(np.arange(len(files)), [len(each) for each in files]),
            classes=self.classes,
            name=name_of(self.folder),
            warnings=self.warnings,
            paths=tuple(str(path) for path in paths),
        )
        if not problems:
            return images
        broken = tuple(Broken(str(paths[at]), said) for at, said in problems.items())
        return replace(images.take(np.delete(np.arange(len(paths)), list(problems))), broken=broken)


def listed(folder: Path, *, leave_out_broken: bool = False) -> Listing:
    """List the files of a folder with one folder per class, without opening any.

    Args:
        folder: see below.
        leave_out_broken: see `Listing.leaves_out_broken`.

    The class folders lie in ``train`` (or ``training``) and ``test``, or in the folder itself. Labels follow their
    names; images in folders inside them count too. What is hidden is left out, and so is what the program itself has
    made there, and what lies behind links inside class folders.

    Without ``test``, about a fifth of each class is the test split: the files whose path, from the class folder on, has
    a hash in the lowest fifth. So a file stays where it is whichever others come or go. Only where a class is so small
    that all of its files would be on one side does the lowest hash make a test image, or the highest a training image.

    Raises:
        DataError: fewer than two classes, a class without images, different classes in training and test, test images
            without training images beside them, test files that are empty or no plain files, or names that are no text.
    """
    children = {child.name.lower(): child for child in _folders(folder)}
    # A class may be called "train" as well; then it holds images, and no folders.
    parts = [child for name in ("train", "training") if (child := children.get(name)) and _folders(child)]
    if len(parts) > 1:
        raise DataError(
            f"{folder}: holds {parts[0].name}/ and {parts[1].name}/; expected one of them; remove the other"
        )
    place = parts[0] if parts else folder
    if not parts:
        _refuse_lone_parts(folder, children)
    classes = _classes(place)
    names = tuple(classes)
    warnings: tuple[str, ...] = ()
    held_back = children.get("test") if parts else None
    if parts:
        others = [child for child in children.values() if child not in (place, held_back)]
        if unused := sorted(child.name for child in others if not _is_own(child)):
            warnings = (f"{folder}: {_list(unused)} not used, only the folders of training and test images are.",)
    if held_back is None:
        if few := [name for name, files in classes.items() if len(files) < 2]:
            raise DataError(
                f"{place}: only one image in {_list(few)}; expected at least two, since one of each class is held back "
                "as test image; add more, or sort the images into train/ and test/"
            )
        divided = [_divide(place, files) for files in classes.values()]
        training, test = tuple(part for part, _ in divided), tuple(part for _, part in divided)
    else:
        given = _classes(held_back)
        if given.keys() != classes.keys():
            raise DataError(
                f"{folder}: {place.name}/ and {held_back.name}/ hold different classes "
                f"(only in {place.name}/: {_list(sorted(classes.keys() - given.keys()))}; "
                f"only in {held_back.name}/: {_list(sorted(given.keys() - classes.keys()))}); "
                "expected the same folders in both; add or remove some"
            )
        training = tuple(tuple(files) for files in classes.values())
        test = tuple(tuple(given[name]) for name in names)
    _refuse_names([str(folder), *names])
    # Told before a training, not after it: test files are opened only then.
    problems = [problem for files in test for path in files if (problem := _problem(path))]
    if problems and not leave_out_broken:
        raise _no_images(folder, problems, sum(map(len, test)))
    return Listing(folder, names, training, test, warnings, leave_out_broken)


def name_of(folder: Path) -> str:
    """What results call a folder's images: its name, without characters that are awkward in file names."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "images"
    return f"{name}-folder" if name.lower() in RESERVED else name


def _refuse_lone_parts(folder: Path, children: Mapping[str, Path]) -> None:
    """That folders which are to be parts of the data do not pass for classes.

    Raises:
        DataError: they would.
    """
    expected = "expected one folder per class, or train/ and test/ with such folders in both"
    if children and children.keys() <= _PARTS:
        raise DataError(
            f"{folder}: holds {_list([child.name for child in children.values()])}, but no train/ with class folders "
            f"in it; {expected}; sort the images by class"
        )
    test = children.get("test")
    if test is not None and (same := {child.name for child in _folders(test)} & {c.name for c in children.values()}):
        raise DataError(
            f"{folder}: {_list(sorted(same))} beside test/, and in it; {expected}; move those beside it into train/"
        )


def _refuse_names(names: Iterable[str]) -> None:
    """That names can be written into results: those from other systems' archives may be in no known alphabet.

    Raises:
        DataError: one cannot.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{name!a}: a name that is no UTF-8; expected names that are; rename it") from None


def _divide(place: Path, files: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The (training, test) files of a class with two or more."""
    draws = [_draw(file.relative_to(place).as_posix()) for file in files]
    is_test = [draw < _TEST_SHARE for draw in draws]
    if not any(is_test):
        is_test[draws.index(min(draws))] = True
    elif all(is_test):
        is_test[draws.index(max(draws))] = False
    return (
        tuple(file for file, held_back in zip(files, is_test, strict=True) if not held_back),
        tuple(file for file, held_back in zip(files, is_test, strict=True) if held_back),
    )


def _draw(path: str) -> float:
    """A number from 0 to 1 that depends on nothing but a path, evenly spread over paths."""
    # Composed, since one file system stores "é" as a letter and another as a letter and an accent.
    text = unicodedata.normalize("NFC", path).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64


def _no_images(folder: Path, problems: Sequence[str], number: int) -> DataError:
    return DataError(
        f"{folder}: {_summary(problems, number)}\nremove or replace them; class folders must hold nothing but images"
    )


def _classes(place: Path) -> Mapping[str, list[Path]]:
    """The files of each class folder, at least two of these, by name."""
    classes: dict[str, list[Path]] = {}
    for child in _folders(place):
        if not _is_own(child):
            classes[child.name] = _files(child, DataError)
    if len(classes) < 2:
        count = sum(1 for child in place.iterdir() if child.is_file() and not _is_hidden(child.name))
        if classes:
            only = next(iter(classes))
            found, remedy = f"one class folder ({only})", "add another class"
            if len(_folders(place / only)) > 1:  # what was unpacked often lies one folder deeper
                remedy += f", or did you mean {place / only}?"
        elif count:
            found, remedy = f"no folders, {count} file{'' if count == 1 else 's'}", "sort the images into such folders"
        else:
            found, remedy = "nothing in it", "check the path"
        raise DataError(
            f"{place}: {found}; expected one folder per class, at least two, with image files in each, or the official "
            f"CIFAR files; {remedy}"
        )
    if empty := [name for name, files in classes.items() if not files]:
        raise DataError(
            f"{place}: no images in {_list(empty)}; expected some in each class; add them or remove the folder"
        )
    return classes


# What lies in folders ------------------------------------------------------------------------------------------------


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(child for child in place.iterdir() if child.is_dir() and not _is_hidden(child.name))
    except OSError as error:
        raise DataError(
            f"{place}: cannot be read ({error.strerror}); expected a folder with one folder per class; check the path "
            "and its permissions"
        ) from None


def _files(place: Path, kind: type[InputError]) -> list[Path]:
    """Every file in a folder, at any depth, in the order of paths.

    Left out is what is hidden, what the program itself has made, and what lies behind links to folders.

    Raises:
        InputError: of this kind; a folder cannot be read.
    """

    def unreadable(error: OSError) -> None:
        raise kind(f"{error.filename}: cannot be read ({error.strerror}); expected a folder; check its permissions")

    found: list[Path] = []
    own = _own(place)
    for where, folders, names in os.walk(place, onerror=unreadable):
        if where in own:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not _is_hidden(name)]
        found += [Path(where, name) for name in names if not _is_hidden(name)]
    return sorted(found)


def _own(place: Path) -> set[str]:
    """The folders in a folder, itself included, that hold nothing but what the program has made: runs, studies, ….

    Those are the folder of a run, a search, an ensemble or an audit; ``runs``, ``audits`` and ``ensembles``, whatever
    else lies in them, if there is such a folder somewhere below; and others with such folders only in them, where
    images may lie that are plots: with an SVG of the same name. So a class with a ``runs`` inside, from a training that
    began there, stays a class, and so does a folder of pictures with some JSON among them.
    """
    own, filled, above = set[str](), set[str](), set[str]()
    for where, folders, names in os.walk(place, topdown=False):
        joined = [os.path.join(where, name) for name in folders if not _is_hidden(name)]  # noqa: PTH118 - as it joins
        inside = [each for each in joined if each in filled]
        shown = {name for name in names if not _is_hidden(name)}
        if shown or inside:
            filled.add(where)
        if has_own := any(each in own or each in above for each in inside):
            above.add(where)
        name = Path(where).name
        plots = {name for name in shown if name.endswith(".png") and f"{name[:-4]}.svg" in shown}
        if (
            shown >= _RUN
            or (has_own and (name in _PLACES or name.startswith("networks-")))
            or (
                not any(has_image_ending(Path(file)) for file in shown - plots)
                and (any(shown >= marks for marks in _MARKS) or (inside and own >= set(inside)))
            )
        ):
            own.add(where)
    return own


def _is_own(place: Path) -> bool:
    """Whether a folder holds nothing but what the program has made, or is made to and holds nothing yet."""
    return str(place) in _own(place) or (place.name in _PLACES and not any(files for _, _, files in os.walk(place)))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _HIDDEN


def has_image_ending(path: Path) -> bool:
    """Whether a file is named like an image; what is in it is not looked at."""
    return path.suffix.lower() in _ENDINGS


def _list(names: Sequence[str], most: int = 10) -> str:
    return (
        ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"
    )
