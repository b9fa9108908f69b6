"""Image files: one file -> pixels, and a folder with one folder per class -> Images.

`read_image` is the only decoder of image files, so that what a network sees in training and in prediction is made in
the same way. Nothing here opens a file of a split that was not asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from thirtytwo.data.images import Images
from thirtytwo.errors import DataError, ImageError, OutOfMemory

if TYPE_CHECKING:
    from PIL.Image import Image

Split = Literal["training", "test"]

MOST_PIXELS = 64 * 2**20
"""Pixels of the largest picture that is decoded, into 256 MiB. A file of a few kB can claim any number."""

_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded. Left out on purpose: formats that start other programs (EPS), and rare ones."""

_TEST_SHARE = 0.2
_HIDDEN = {"thumbs.db", "desktop.ini"}
_RESERVED = {"cifar10", "cifar100", "cifar100-coarse", "shapes"}
"""Names in results that must never mean somebody's own folder."""


# One file ------------------------------------------------------------------------------------------------------------


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
    expected = "expected an image file, such as JPEG or PNG"
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file" if not path.exists() else "not a plain file"
        raise ImageError(f"{path}: {found}; {expected}; check the path")
    try:
        with Image.open(path, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _too_large(path, f"{image.width} × {image.height}")
            orientation = _orientation(image)
            height, width = size if orientation < 5 else size[::-1]
            # A JPEG can be decoded at an eighth of its size, many times faster; 4 times what is needed is plenty.
            image.draft(None, (4 * width, 4 * height))
            return np.array(_fit(_rgb(path, _upright(image, orientation)), size))
    except ImageError:
        raise
    except UnidentifiedImageError:
        found = "0 bytes" if path.stat().st_size == 0 else "not an image of a known format"
        raise ImageError(f"{path}: {found}; {expected}; remove or replace it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path, "far too many") from None
    except MemoryError:
        raise OutOfMemory(f"{path}: no memory left to decode it; close other programs") from None
    except Exception as error:  # decoders fail in any way they like on damaged files
        raise ImageError(f"{path}: damaged or cut short ({error}); {expected}; replace it") from None


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
        greys = np.asarray(image).astype(np.int64)  # (height, width)
        if greys.min() < 0 or greys.max() > 65_535:
            raise ImageError(f"{path}: greys of 32 bits; expected 8 or 16; convert it first")
        image = Image.fromarray(((greys + 128) // 257).astype(np.uint8))  # 65,535 = 255 × 257
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


# A folder ------------------------------------------------------------------------------------------------------------


def read(folder: Path, split: Split, size: tuple[int, int] = (32, 32)) -> Images:
    """The images of one split of a folder with one folder per class.

    The class folders lie in ``train`` (or ``training``) and ``test``, or in the folder itself. Without ``test``, a
    fifth of each class is the test split: always the same files, as long as none is added or removed.

    Args:
        folder: labels follow its class folders in the order of their names; images in folders inside those count too.
        split: no file of the other split is opened.
        size: (height, width) to which every image is brought, in pixels.

    Returns:
        uint8 (n, height, width, 3), in the order of labels, then paths; named after the folder.

    Raises:
        DataError: fewer than two classes, a class without images, different classes in training and test, or files that
            are no images; all of these are listed.
    """
    lies = _lies(folder)
    classes = lies.classes
    place = lies.test if lies.test is not None and split == "test" else lies.training
    files = [_files(place / name) for name in classes]
    if empty := [name for name, paths in zip(classes, files, strict=True) if not paths]:
        raise DataError(
            f"{place}: no images in {_list(empty)}; expected some in each class; add them or remove the folder"
        )
    paths = [path for each in files for path in each]
    labels = np.repeat(np.arange(len(classes)), [len(each) for each in files])
    if lies.test is None:
        if few := [name for name, each in zip(classes, files, strict=True) if len(each) < 2]:
            raise DataError(
                f"{place}: only one image in {_list(few)}; expected at least two, since one of each class is held back "
                "as test image; add more, or give a test/ folder"
            )
        # Which files belong to which part follows from labels alone, so no image is needed to tell.
        blank = Images(np.empty((len(labels), 0, 0, 3), dtype=np.uint8), labels, classes, "files")
        chosen = blank.split(_TEST_SHARE)[split == "test"]
        paths, labels = [paths[index] for index in chosen], labels[chosen]
    return Images(
        pixels=_decode(folder, paths, size),
        labels=labels,
        classes=classes,
        name=name_of(folder),
        warnings=lies.warnings,
        paths=tuple(str(path) for path in paths),
    )


def name_of(folder: Path) -> str:
    """What results call a folder's images: its name, without characters that are awkward in file names."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "images"
    return f"{name}-folder" if name.lower() in _RESERVED else name


def check(folder: Path) -> None:
    """Whether `read` can make sense of a folder, as far as that shows without listing or opening image files.

    Raises:
        DataError: fewer than two classes, or different ones in training and test.
    """
    _lies(folder)


@dataclass(frozen=True)
class _Lies:
    """How a folder is laid out."""

    training: Path
    """Holds the class folders of the training split."""
    test: Path | None
    """The same for the test split; None where that has to be taken from the training folders."""
    classes: tuple[str, ...]
    warnings: tuple[str, ...]


def _lies(folder: Path) -> _Lies:
    children = {child.name.lower(): child for child in _folders(folder)}
    # A class may be called "train" as well; then it holds images, and no folders.
    parts = [child for name in ("train", "training") if (child := children.get(name)) and _folders(child)]
    if not parts:
        return _Lies(folder, None, _classes(folder), ())
    if len(parts) > 1:
        raise DataError(
            f"{folder}: holds {parts[0].name}/ and {parts[1].name}/; expected one of them; remove the other"
        )
    training, test, classes = parts[0], children.get("test"), _classes(parts[0])
    if test is not None and (found := _classes(test)) != classes:
        raise DataError(
            f"{folder}: {training.name}/ and {test.name}/ hold different classes "
            f"(only in {training.name}/: {_list(sorted(set(classes) - set(found)))}; "
            f"only in {test.name}/: {_list(sorted(set(found) - set(classes)))}); "
            "expected the same folders in both; add or remove some"
        )
    unused = sorted(child.name for child in children.values() if child not in (training, test))
    warning = f"{folder}: {_list(unused)} not used, only the folders of training and test images are."
    return _Lies(training, test, classes, (warning,) if unused else ())


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(child for child in place.iterdir() if child.is_dir() and not _is_hidden(child.name))
    except OSError as error:
        raise DataError(
            f"{place}: cannot be read ({error.strerror}); expected a folder with one folder per class"
        ) from None


def _classes(place: Path) -> tuple[str, ...]:
    names = tuple(child.name for child in _folders(place))
    if len(names) < 2:
        files = sum(1 for child in place.iterdir() if child.is_file() and not _is_hidden(child.name))
        found = (
            f"one class folder ({names[0]})" if names else f"no folders, {files} files" if files else "nothing in it"
        )
        raise DataError(
            f"{place}: {found}; expected one folder per class, at least two, with image files in each, "
            "or the official CIFAR files"
        )
    return names


def _files(place: Path) -> list[Path]:
    """Every file in a class folder, in the order of paths; folders behind links inside it are left out."""
    found: list[Path] = []
    for where, folders, names in os.walk(place, onerror=_unreadable):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        found += [Path(where, name) for name in names if not _is_hidden(name)]
    return sorted(found)


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); expected a folder; check its permissions")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _HIDDEN


def _list(names: Sequence[str], most: int = 10) -> str:
    return (
        ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"
    )


def _decode(folder: Path, paths: list[Path], size: tuple[int, int]) -> NDArray[np.uint8]:
    """All images (n, height, width, 3), or one error that lists every file that is none."""
    try:
        pixels = np.empty((len(paths), *size, 3), dtype=np.uint8)
    except MemoryError:
        raise OutOfMemory(
            f"{folder}: {len(paths):,} images of {size[0]} × {size[1]} pixels do not fit in memory"
        ) from None

    def decode(index: int) -> str | None:
        try:
            pixels[index] = read_image(paths[index], size)
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders let go of the interpreter
        problems = [problem for problem in pool.map(decode, range(len(paths))) if problem]
    if problems:
        more = [f"  and {len(problems) - 10:,} more"] if len(problems) > 10 else []
        raise DataError(
            "\n".join(
                [
                    f"{folder}: {len(problems):,} of {len(paths):,} files cannot be read as images",
                    *(f"  {problem}" for problem in problems[:10]),
                    *more,
                    "remove or replace them; whatever else lies in class folders has to go elsewhere",
                ]
            )
        )
    return pixels


# Files that a person names -------------------------------------------------------------------------------------------

_ENDINGS = {
    *(".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}


def image_files(paths: Iterable[str | Path]) -> list[Path]:
    """The image files among files and folders, in the order given; a folder stands for those in it, at any depth.

    A file is taken as it is named, whatever its ending; in a folder, endings decide.

    Raises:
        ImageError: a path does not exist, or a folder holds no image.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in _ENDINGS and not _is_hidden(file.name) and file.is_file()
        )
        if not inside:
            raise ImageError(f"{path}: no image files in this folder; expected some, such as .png or .jpg")
        files.extend(inside)
    return files
