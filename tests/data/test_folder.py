from __future__ import annotations

import io
import os
import struct
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from thirtytwo.data import folder
from thirtytwo.data.folder import image_files, read_image, read_images
from thirtytwo.data.images import Split
from thirtytwo.errors import DataError, ImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image | NDArray[np.uint8] | NDArray[np.uint16], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


# One file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["png", "bmp", "tiff", "ppm", "webp"])
def test_image_of_the_right_size_passes_unchanged(tmp_path: Path, extension: str) -> None:
    pixels = noise(32, 32)
    options = {"lossless": True} if extension == "webp" else {}
    path = save(tmp_path / f"a.{extension}", pixels, **options)
    read = read_image(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)


def test_jpeg_of_the_right_size_is_what_its_decoder_says(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", noise(32, 32), quality=90)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


def test_contents_decide_about_the_format_not_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(32, 32)).rename(tmp_path / "a.jpeg")
    np.testing.assert_array_equal(read_image(str(path)), noise(32, 32))


@pytest.mark.parametrize(("height", "width"), [(32, 64), (64, 32), (96, 200), (33, 47), (16, 20), (1, 500), (500, 1)])
def test_centre_is_kept_and_sides_are_cut_evenly(tmp_path: Path, height: int, width: int) -> None:
    ramp = np.linspace(0, 255, max(height, width)).astype(np.uint8)
    grid = np.broadcast_to(ramp[None, :] if width >= height else ramp[:, None], (height, width))
    read = read_image(save(tmp_path / "a.png", np.stack([grid] * 3, axis=-1)))
    assert read.shape == (32, 32, 3)
    np.testing.assert_allclose(
        read.astype(int), 255 - read[::-1, ::-1].astype(int), atol=2
    )  # symmetric about the centre


def test_wanted_size_is_height_then_width(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "a.png", noise(90, 90)), (20, 60)).shape == (20, 60, 3)
    assert read_image(save(tmp_path / "b.jpg", noise(900, 900)), (20, 60)).shape == (20, 60, 3)


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_scaling_down_averages(tmp_path: Path, extension: str) -> None:
    # A board of single pixels, black and white: without antialiasing it comes out black, white, or striped.
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    read = read_image(save(tmp_path / f"a.{extension}", np.stack([board] * 3, axis=-1)))
    assert abs(read.astype(int) - 127).max() <= 3


def test_one_pixel_fills_the_image(tmp_path: Path) -> None:
    read = read_image(save(tmp_path / "a.png", Image.new("RGB", (1, 1), (10, 20, 30))))
    assert (read == (10, 20, 30)).all()


def test_grey_has_three_equal_channels(tmp_path: Path) -> None:
    grey = noise(32, 32)[:, :, 0]
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", grey)), np.stack([grey] * 3, axis=-1))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    read = read_image(save(tmp_path / "a.png", Image.new("1", (32, 32), 1)))
    assert (read == 255).all()


@pytest.mark.parametrize("extension", ["png", "tiff", "ppm"])
def test_greys_of_16_bits_are_scaled_not_clipped(tmp_path: Path, extension: str) -> None:
    greys = np.linspace(0, 65_535, 1024).astype(np.uint16).reshape(32, 32)
    read = read_image(save(tmp_path / f"a.{extension}", greys))
    np.testing.assert_array_equal(read[:, :, 0], np.round(greys / 257))


def png(width: int, height: int, bits: int, colour: int, content: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file, chunk by chunk."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(content)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def test_colours_of_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    row = struct.pack(">3H", 65_535, 32_896, 0) * 32
    (tmp_path / "a.png").write_bytes(png(32, 32, 16, 2, (b"\0" + row) * 32))
    assert np.unique(read_image(tmp_path / "a.png").reshape(-1, 3), axis=0).tolist() == [[255, 128, 0]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_that_are_no_pixels_are_refused(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.tiff", Image.new(mode, (32, 32), 100_000))
    with pytest.raises(ImageError, match=r"expected .*8 or 16.*; convert it first"):
        read_image(path)


@pytest.mark.parametrize(
    ("ink", "colour"), [((0, 0, 0, 0), WHITE), ((0, 255, 255, 0), RED), ((0, 0, 0, 255), (0, 0, 0))]
)
@pytest.mark.parametrize("extension", ["jpg", "tiff"])
def test_inks_become_colours(tmp_path: Path, ink: tuple[int, ...], colour: tuple[int, ...], extension: str) -> None:
    read = read_image(save(tmp_path / f"a.{extension}", Image.new("CMYK", (32, 32), ink)))
    np.testing.assert_allclose(read.reshape(-1, 3), np.broadcast_to(colour, (1024, 3)), atol=3)


def test_palette_becomes_colours(tmp_path: Path) -> None:
    pixels = np.broadcast_to(np.array([RED, BLUE], dtype=np.uint8).repeat(16, axis=0), (32, 32, 3))
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(pixels)).quantize(2))
    np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize("alpha", [0, 51, 255])
@pytest.mark.parametrize("extension", ["png", "webp", "tiff"])
def test_transparent_parts_lie_over_white(tmp_path: Path, alpha: int, extension: str) -> None:
    options = {"lossless": True} if extension == "webp" else {}
    read = read_image(save(tmp_path / f"a.{extension}", Image.new("RGBA", (32, 32), (*BLUE, alpha)), **options))
    np.testing.assert_allclose(read[0, 0], (255 - alpha, 255 - alpha, 255), atol=1)


def test_every_way_to_be_transparent_lies_over_white(tmp_path: Path) -> None:
    (tmp_path / "colour.png").write_bytes(
        png(32, 32, 8, 2, (b"\0" + bytes(RED) * 32) * 32, (b"tRNS", struct.pack(">3H", *RED)))
    )
    save(tmp_path / "grey.png", Image.new("LA", (32, 32), (0, 0)))
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([*RED, *BLUE])
    save(tmp_path / "palette.png", palette, transparency=0)
    save(tmp_path / "palette.gif", palette, transparency=0)
    for path in tmp_path.iterdir():
        assert (read_image(path) == 255).all(), path.name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(32, 32), (40, 60), (480, 640)])
@pytest.mark.parametrize(
    ("extension", "options"),
    [
        ("jpg", {"quality": 95}),
        ("png", {}),
        ("webp", {"lossless": True}),
        ("tiff", {}),
        ("tiff", {"compression": "tiff_lzw"}),  # is decoded in another way
    ],
)
def test_rotation_of_the_camera_is_undone(
    tmp_path: Path, orientation: int, size: tuple[int, int], extension: str, options: dict[str, Any]
) -> None:
    height, width = size
    upright = np.zeros((height, width, 3), dtype=np.uint8)
    upright[: height // 2, : width // 2], upright[: height // 2, width // 2 :] = RED, GREEN
    upright[height // 2 :, : width // 2] = BLUE  # and the lower right quarter black
    stored: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),  # held such that it has to be turned clockwise to be seen upright
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),  # mirrored about the other diagonal
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.ascontiguousarray(stored[orientation](upright))
    read = read_image(save(tmp_path / f"a.{extension}", pixels, exif=exif, **options))
    for place, colour in (((4, 4), RED), ((4, 27), GREEN), ((27, 4), BLUE), ((27, 27), (0, 0, 0))):
        np.testing.assert_allclose(read[place], colour, atol=40)


def test_unreadable_exif_says_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", noise(32, 32), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read_image(path).shape == (32, 32, 3)


def test_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN, BLUE)]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (read_image(path) == RED).all()


# What is no image ----------------------------------------------------------------------------------------------------


def encoded(extension: str) -> bytes:
    target = io.BytesIO()
    Image.fromarray(noise(40, 40)).save(target, {"jpg": "jpeg", "tif": "tiff"}.get(extension, extension))
    return target.getvalue()


FORMATS = ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "0 bytes"),
        (b"hello", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n", "not an image of a known format"),
        (encoded("png")[:500], "damaged or cut short"),
        (encoded("jpg")[:300], "damaged or cut short"),
        (encoded("gif")[:900], "damaged or cut short"),
    ],
)
def test_file_that_is_no_image_is_named_with_a_remedy(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(
        ImageError, match=rf"picture\.jpg: {problem}.*; expected an image file.*; (remove or )?replace it"
    ):
        read_image(path)


def test_places_without_a_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="absent: no such file"):
        read_image(tmp_path / "absent")
    with pytest.raises(ImageError, match="a folder"):
        read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="not a plain file"):
        read_image(tmp_path / "pipe")


@pytest.mark.parametrize(("width", "height"), [(8193, 8192), (20_000, 20_000), (2**31 - 1, 1), (65_535, 65_535)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_file_that_claims_too_many_pixels_is_not_decoded(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png(width, height, 8, 2, bytes(1000)))
    with pytest.raises(ImageError, match=r"pixels; expected at most 67,108,864; scale it down first"):
        read_image(tmp_path / "bomb.png")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    length=st.floats(0, 1) | st.just(1.0),
    at_the_start=st.booleans(),
)
@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_any_file_is_read_or_is_an_image_error(
    tmp_path: Path, extension: str, edits: list[tuple[float, int]], length: float, at_the_start: bool
) -> None:
    content = bytearray(encoded(extension))
    for place, byte in edits:
        content[int(place * (60 if at_the_start else len(content) - 1))] = byte
    path = tmp_path / f"a.{extension}"
    path.write_bytes(content[: round(length * len(content))])
    try:
        read = read_image(path)
    except ImageError:
        return
    assert read.shape == (32, 32, 3)
    assert read.dtype == np.uint8


# A folder ------------------------------------------------------------------------------------------------------------


def fill(place: Path, count: int, classes: tuple[str, ...] = ("bird", "cat", "dog"), seed: int = 0) -> None:
    """Images of which each has a colour of its own."""
    for label, name in enumerate(classes):
        for index in range(count):
            save(place / name / f"{index:03}.png", Image.new("RGB", (32, 32), (label * 50, index, seed)))


Layout = Callable[[Path], None]


def flat(place: Path) -> None:
    fill(place, 10)


def divided(place: Path) -> None:
    fill(place / "train", 10)
    fill(place / "test", 4, seed=9)


def only_training(place: Path) -> None:
    fill(place / "training", 10)


def test_given_splits_are_kept(tmp_path: Path) -> None:
    divided(tmp_path)
    training, test = folder.listed(tmp_path).read("training"), folder.listed(tmp_path).read("test")
    assert (len(training), len(test)) == (30, 12)
    assert training.classes == test.classes == ("bird", "cat", "dog")
    assert np.bincount(training.labels).tolist() == [10, 10, 10]
    assert (training.pixels[:, 0, 0, 0] == training.labels * 50).all()
    assert (test.pixels[:, 0, 0, 2] == 9).all()


def sketch(place: Path, names: Sequence[str]) -> None:
    """Files that can be listed, though not decoded."""
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"picture")


def held_back(place: Path) -> set[str]:
    """Paths of the test images, from the class folder on."""
    return {file.relative_to(place).as_posix() for files in folder.listed(place).test for file in files}


@pytest.mark.parametrize("layout", [flat, only_training])
def test_without_test_images_some_of_each_class_are_held_back(tmp_path: Path, layout: Layout) -> None:
    layout(tmp_path)
    training, test = folder.listed(tmp_path).read("training"), folder.listed(tmp_path).read("test")
    every = {str(path) for path in tmp_path.rglob("*.png")}
    assert set(training.paths) | set(test.paths) == every
    assert not set(training.paths) & set(test.paths)
    # Pinned: test images must stay the same across versions and machines, or they turn into training images.
    names = ["/".join(Path(path).parts[-2:]) for path in test.paths]
    assert names == ["bird/006.png", "cat/000.png", "dog/002.png"]


def test_about_a_fifth_of_each_class_is_held_back(tmp_path: Path) -> None:
    for name in ("bird", "cat", "dog"):
        sketch(tmp_path / name, [f"{index:03}.png" for index in range(400)])
    listing = folder.listed(tmp_path)
    for training, test in zip(listing.training, listing.test, strict=True):
        assert len(training) + len(test) == 400
        assert abs(len(test) / 400 - 0.2) < 0.08  # four standard deviations


def test_adding_or_removing_pictures_moves_no_other_between_training_and_test(tmp_path: Path) -> None:
    old = [f"{name}/{index:03}.png" for name in ("cat", "dog") for index in range(100)]
    new = [f"{name}/new/{index:03}.jpg" for name in ("cat", "dog") for index in range(50)]
    sketch(tmp_path, old)
    before = held_back(tmp_path)
    sketch(tmp_path, ["cat/0.png"])
    assert held_back(tmp_path) - {"cat/0.png"} == before
    sketch(tmp_path, new)
    assert held_back(tmp_path) & set(old) == before
    for name in old[::2]:
        (tmp_path / name).unlink()
    assert held_back(tmp_path) & set(old) == before & set(old[1::2])


def test_every_class_of_two_or_more_has_training_and_test_images(tmp_path: Path) -> None:
    for count in (2, 3, 4):
        sketch(tmp_path, [f"{count} in {label:02}/{index}.png" for label in range(60) for index in range(count)])
    listing = folder.listed(tmp_path)
    assert len(listing.classes) == 180
    assert all(listing.training)
    assert all(listing.test)


def test_an_accent_is_the_same_letter_however_it_is_stored(tmp_path: Path) -> None:
    composed = [f"caf\u00e9/{index}.png" for index in range(50)] + ["tea/0.png", "tea/1.png"]
    sketch(tmp_path / "composed", composed)
    sketch(tmp_path / "apart", [unicodedata.normalize("NFD", name) for name in composed])
    names = {unicodedata.normalize("NFC", name) for name in held_back(tmp_path / "apart")}
    assert names == held_back(tmp_path / "composed")


@pytest.mark.parametrize("layout", [flat, only_training, divided])
@pytest.mark.parametrize("split", ["training", "test"])
def test_files_of_the_other_split_stay_closed(tmp_path: Path, layout: Layout, split: Split, opened: list[Path]) -> None:
    layout(tmp_path)
    opened.clear()
    images = folder.listed(tmp_path).read(split)
    assert {str(path) for path in opened if path.suffix == ".png"} == set(images.paths)


@pytest.mark.parametrize("split", ["training", "test"])
def test_same_files_give_the_same_images_wherever_they_lie(tmp_path: Path, split: Split) -> None:
    for name in ("one", "two"):
        order = ("bird", "cat", "dog") if name == "one" else ("dog", "bird", "cat")
        for label in order:
            fill(tmp_path / name, 10, (label,), seed=ord(label[0]))
    fingerprints = {folder.listed(tmp_path / name).read(split).fingerprint for name in ("one", "two")}
    assert len(fingerprints) == 1


def test_paths_lead_to_the_images(tmp_path: Path) -> None:
    flat(tmp_path)
    images = folder.listed(tmp_path).read("training")
    for pixels, label, path in zip(images.pixels, images.labels, images.paths, strict=True):
        np.testing.assert_array_equal(read_image(path), pixels)
        assert Path(path).parent.name == images.classes[label]


def test_what_is_hidden_is_no_class_and_no_image(tmp_path: Path) -> None:
    flat(tmp_path)
    before = folder.listed(tmp_path).read("training").fingerprint
    for path in (
        ".git/x",
        "cat/.hidden.png",
        "cat/.thumbnails/1.png",
        "dog/Thumbs.db",
        "bird/desktop.ini",
        "README.md",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"no image")
    assert folder.listed(tmp_path).read("training").fingerprint == before


def test_folders_inside_class_folders_count(tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / "cat" / "more").mkdir()
    (tmp_path / "cat" / "000.png").rename(tmp_path / "cat" / "more" / "000.png")
    assert len(folder.listed(tmp_path).read("training")) + len(folder.listed(tmp_path).read("test")) == 30


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    flat(tmp_path / "real")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "made").mkdir()
    for name in ("bird", "cat", "dog"):
        (tmp_path / "made" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "real" / "cat" / "loop").symlink_to(tmp_path / "real" / "cat")
    fingerprints = {folder.listed(tmp_path / name).read("training").fingerprint for name in ("real", "linked", "made")}
    assert len(fingerprints) == 1


def test_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, 5, ("bus", "car", "train"))
    assert folder.listed(tmp_path).read("training").classes == ("bus", "car", "train")


def test_folders_beside_train_and_test_are_warned_of(tmp_path: Path) -> None:
    divided(tmp_path)
    fill(tmp_path / "val", 1)
    (warning,) = folder.listed(tmp_path).read("training").warnings
    assert "val not used" in warning


@pytest.mark.parametrize(
    ("name", "expected"),
    [("pets", "pets"), ("my pets (2)!", "my-pets-2"), ("cifar10", "cifar10-folder"), ("猫", "images")],
)
def test_results_call_it_by_a_name_that_is_safe_and_not_taken(tmp_path: Path, name: str, expected: str) -> None:
    fill(tmp_path / name, 2)
    assert folder.listed(tmp_path / name).read("training").name == expected == folder.name_of(tmp_path / name)


# Run folders among the images ----------------------------------------------------------------------------------------


def leave_run(place: Path) -> None:
    """What tells a run folder, and a picture in it."""
    place.mkdir(parents=True)
    (place / "recipe.toml").write_text("epochs = 1\n")
    (place / "environment.json").write_text("{}\n")
    save(place / "figures" / "confusion.png", noise(32, 32))


@pytest.mark.parametrize("layout", [flat, divided])
@pytest.mark.parametrize("where", ["runs/classic-1", "classic-1", "studies/runs/classic-1"])
def test_run_folders_beside_the_images_are_no_classes(tmp_path: Path, layout: Layout, where: str) -> None:
    layout(tmp_path)
    before = folder.listed(tmp_path)
    leave_run(tmp_path / where)
    after = folder.listed(tmp_path)
    assert (after.classes, after.training, after.test) == (before.classes, before.training, before.test)
    assert after.warnings == ()


def test_what_lies_beside_run_folders_makes_them_no_class(tmp_path: Path) -> None:
    flat(tmp_path)
    leave_run(tmp_path / "runs" / "classic-1")
    save(tmp_path / "runs" / "comparison.png", noise(32, 32))
    (tmp_path / "runs" / "classic-2").mkdir()
    assert folder.listed(tmp_path).classes == ("bird", "cat", "dog")


def leave(place: Path, *names: str) -> None:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("{}\n")


@pytest.mark.parametrize("layout", [flat, divided])
def test_studies_audits_and_ensembles_beside_the_images_are_no_classes(tmp_path: Path, layout: Layout) -> None:
    layout(tmp_path)
    before = folder.listed(tmp_path)
    leave_run(tmp_path / "runs" / "study" / "classic-0123456789" / "0")
    (tmp_path / "runs" / "study" / "classic-0123456789" / "1").mkdir()
    for ending in ("svg", "png"):
        save(tmp_path / "runs" / "study" / "classic-0123456789" / "x.png", noise(32, 32)).rename(
            tmp_path / "runs" / "study" / "classic-0123456789" / f"spread.{ending}"
        )
    leave(tmp_path / "runs" / "tune" / "classic-1", "search.json", "study.db")
    leave_run(tmp_path / "runs" / "tune" / "classic-1" / "trials" / "classic-0123456789" / "0")
    leave_run(tmp_path / "audits" / "pets" / "networks-0123456789" / "network-1")
    leave(tmp_path / "audits" / "pets" / "networks-0123456789" / "pairs-0123", "neighbours.safetensors")
    leave(tmp_path / "ensembles" / "1", "model.safetensors")
    leave(tmp_path / "runs" / "notes", "x.txt")
    after = folder.listed(tmp_path)
    assert (after.classes, after.training, after.test) == (before.classes, before.training, before.test)
    leave(tmp_path / "audits" / "pets", "tables.json", "label_issues.csv", "audit.html")
    assert folder.listed(tmp_path).classes == before.classes
    assert folder.listed(tmp_path).warnings == ()


def test_pictures_beside_json_stay_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat(tmp_path)
    before = folder.listed(tmp_path)
    leave(tmp_path / "cat", "search.json", "study.db")
    with pytest.raises(DataError, match="class folders must hold nothing but images"):
        [folder.listed(tmp_path).read(split) for split in ("training", "test")]
    assert folder.listed(tmp_path).classes == before.classes
    monkeypatch.chdir(tmp_path)
    assert len(image_files(["."])) == 30


def test_names_of_files_need_not_be_text(tmp_path: Path) -> None:
    flat(tmp_path)
    before = folder.listed(tmp_path).read("training")
    save(tmp_path / "cat" / "new.png", noise(32, 32)).rename(tmp_path / "cat" / os.fsdecode(b"Gr\x94\xdfe.png"))
    both = [folder.listed(tmp_path).read(split) for split in ("training", "test")]
    assert sum(map(len, both)) == 31
    assert len(before) <= len(both[0])


def test_an_empty_folder_for_runs_is_no_class(tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / "audits" / "pets").mkdir(parents=True)
    assert folder.listed(tmp_path).classes == ("bird", "cat", "dog")


def test_a_class_folder_in_which_a_training_began_stays_a_class(tmp_path: Path) -> None:
    flat(tmp_path)
    before = folder.listed(tmp_path)
    leave_run(tmp_path / "cat" / "runs" / "classic-1")
    after = folder.listed(tmp_path)
    assert (after.classes, after.training, after.test) == (before.classes, before.training, before.test)


# Folders that will not do --------------------------------------------------------------------------------------------


def nothing(place: Path) -> None:
    place.mkdir(exist_ok=True)


def loose_files(place: Path) -> None:
    save(place / "a.png", noise(32, 32))


def one_class(place: Path) -> None:
    fill(place, 3, ("cat",))


def one_level_deeper(place: Path) -> None:
    fill(place / "pets", 3)


def class_without_images(place: Path) -> None:
    fill(place, 3)
    (place / "eel").mkdir()


def single_image(place: Path) -> None:
    fill(place, 1)


def other_classes(place: Path) -> None:
    fill(place / "train", 3)
    fill(place / "test", 3, ("bird", "cat", "eel"))


def images_to_test_without_classes(place: Path) -> None:
    fill(place / "train", 3)
    loose_files(place / "test")


def classes_beside_their_test_images(place: Path) -> None:
    fill(place, 3)
    fill(place / "test", 3)


def parts_without_classes(place: Path) -> None:
    for part in ("train", "test"):
        save(place / part / "1.png", noise(32, 32))


def name_in_no_alphabet(place: Path) -> None:
    fill(place, 3)
    (place / "cat").rename(place / os.fsdecode(b"Gr\x94\xdfe"))


def two_trainings(place: Path) -> None:
    fill(place / "train", 3)
    fill(place / "training", 3)


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        (nothing, "nothing in it; expected one folder per class, .*; check the path"),
        (loose_files, "no folders, 1 file; expected one folder per class, .*; sort the images into such folders"),
        (one_class, r"one class folder \(cat\); expected one folder per class, at least two, .*; add another class$"),
        (one_level_deeper, r"one class folder \(pets\); .*; add another class, or did you mean \S*pets\?$"),
        (class_without_images, "no images in eel; expected some in each class"),
        (single_image, "only one image in bird, cat, dog; expected at least two"),
        (other_classes, r"\(only in train/: dog; only in test/: eel\); expected the same folders in both"),
        (images_to_test_without_classes, "test: no folders, 1 file; expected one folder per class"),
        (two_trainings, "holds train/ and training/; expected one of them"),
        (
            classes_beside_their_test_images,
            "bird, cat, dog beside test/, and in it; .*; move those beside it into train/",
        ),
        (
            parts_without_classes,
            "holds test, train, but no train/ with class folders in it; .*; sort the images by class",
        ),
        (name_in_no_alphabet, r"'.*udc94.*': a name that is no UTF-8; .*; rename it"),
    ],
)
def test_folder_that_will_not_do_is_explained(tmp_path: Path, layout: Layout, problem: str) -> None:
    layout(tmp_path)
    with pytest.raises(DataError, match=problem):
        folder.listed(tmp_path).read("training")


def test_absent_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        folder.listed(tmp_path / "absent").read("training")


def test_every_unreadable_file_is_listed_up_to_twenty(tmp_path: Path) -> None:
    divided(tmp_path)
    bad = sorted((tmp_path / "train").rglob("00[0-7].png"))
    for path in bad:
        path.write_bytes(b"no image")
    assert len(folder.listed(tmp_path).read("test")) == 12
    with pytest.raises(DataError) as caught:
        folder.listed(tmp_path).read("training")
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("24 of 30 files cannot be read as images")
    assert [str(path) for path in bad[:20]] == [line.strip().partition(": ")[0] for line in lines[1:21]]
    assert lines[21] == "  and 4 more"
    assert lines[22].startswith("remove or replace them")


def test_what_will_not_do_as_test_images_is_told_before_any_is_opened(tmp_path: Path, opened: list[Path]) -> None:
    divided(tmp_path)
    empty = tmp_path / "test" / "cat" / "001.png"
    empty.write_bytes(b"")
    (tmp_path / "test" / "dog" / "001.png").unlink()
    (tmp_path / "test" / "dog" / "001.png").symlink_to("nowhere")
    opened.clear()
    with pytest.raises(DataError) as caught:
        folder.listed(tmp_path)
    assert f"{tmp_path}: 2 of 12 files cannot be read as images" in str(caught.value)
    assert f"{empty}: 0 bytes" in str(caught.value)
    assert "dog/001.png: no such file" in caught.value.args[0].replace(os.sep, "/")
    assert not [path for path in opened if path.suffix == ".png"]


def test_class_without_test_images_is_an_error(tmp_path: Path) -> None:
    divided(tmp_path)
    for path in (tmp_path / "test" / "cat").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="test: no images in cat; expected some in each class"):
        folder.listed(tmp_path)


# Files that a person names -------------------------------------------------------------------------------------------


def test_images_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{index}.png", noise(40, 50, seed=index)) for index in range(20)]
    read = read_images(reversed(paths), (20, 24))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.stack([read_image(path, (20, 24)) for path in reversed(paths)]))
    assert read_images([]).shape == (0, 32, 32, 3)


def test_all_files_that_are_no_images_are_named_at_once(tmp_path: Path) -> None:
    good = save(tmp_path / "good.png", noise(32, 32))
    bad = [tmp_path / f"{index:02}.png" for index in range(25)]
    for path in bad[1:]:
        path.write_bytes(b"no image")
    with pytest.raises(ImageError) as caught:
        read_images([good, *bad])
    lines = str(caught.value).splitlines()
    assert lines[0] == "25 of 26 files cannot be read as images"
    assert lines[1].startswith(f"  {bad[0]}: no such file or folder; expected")
    assert [line.strip().partition(": ")[0] for line in lines[1:21]] == [str(path) for path in bad[:20]]
    assert lines[21:] == ["  and 5 more"]
    assert list(caught.value.problems) == list(map(str, bad))
    assert lines[1] == f"  {bad[0]}: {caught.value.problems[str(bad[0])]}"
    with pytest.raises(
        ImageError, match=r"^\S*01\.png: not an image of a known format; expected .*; remove or replace"
    ):
        read_images(bad[1:2])


def test_a_folder_stands_for_the_images_in_it(tmp_path: Path) -> None:
    inside = [save(tmp_path / "mine" / name, noise(8, 8)) for name in ("B.JPG", "a.png", "deeper/c.webp")]
    for name in ("notes.txt", ".hidden.png", ".thumbnails/a.png"):
        sketch(tmp_path / "mine", [name])
    leave_run(tmp_path / "mine" / "runs" / "classic-1")
    other = save(tmp_path / "other.png", noise(8, 8)).rename(tmp_path / "other")
    assert image_files([other, tmp_path / "mine", str(other)]) == [other, *inside, other]


def test_every_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    sketch(tmp_path, ["there.png"])
    with pytest.raises(ImageError) as caught:
        image_files([tmp_path / "folder", tmp_path / "there.png", tmp_path / "other"])
    lines = str(caught.value).splitlines()
    assert [line.partition("; ")[0] for line in lines] == [
        f"{tmp_path / 'folder'}: no image files in this folder",
        f"{tmp_path / 'other'}: no image files in this folder",
    ]
