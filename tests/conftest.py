"""Shared by all tests: a state folder and a cache of the tests' own, small made data, and in which order they run."""

from __future__ import annotations

import os
from pathlib import Path

# Set before torch is loaded anywhere: tests run beside each other and must not fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ.get("THIRTYTWO_DATA"):  # every test has a working folder of its own
    os.environ["THIRTYTWO_DATA"] = str(Path(os.environ["THIRTYTWO_DATA"]).absolute())

import hypothesis
import numpy as np
import pytest

from thirtytwo.data.images import Images

SLOWEST = ("test_docs.py", "study/test_pool.py", "test_cli.py", "test_ranks.py", "test_survival.py")
"""Begun first, since a file is for one worker: late, the others would have to wait for it."""

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files first, all others as they come."""
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(SLOWEST)))


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a third of the time is spent waiting for other processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's folders, or the one that it was started in, or finds what lies there."""
    base = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(base))
    monkeypatch.chdir(base)
    monkeypatch.setenv("THIRTYTWO_STATE", str(base / "state"))
    monkeypatch.setenv("THIRTYTWO_CACHE", str(base / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(base / "keras"))


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The real CIFAR-10, where $THIRTYTWO_DATA points at it."""
    place = os.environ.get("THIRTYTWO_DATA", "")
    if not place or not (Path(place) / "cifar-10-batches-bin").is_dir():
        pytest.skip("needs CIFAR-10; set THIRTYTWO_DATA to the folder that holds cifar-10-batches-bin")
    return Path(place)


@pytest.fixture
def small_images() -> Images:
    """200 noisy 8 × 8 images of four classes that differ in brightness: learned in a moment."""
    generator = np.random.default_rng(0)
    labels = np.arange(200, dtype=np.int64) % 4
    noise = generator.integers(0, 40, (200, 8, 8, 3))
    return Images((labels[:, None, None, None] * 60 + noise).astype(np.uint8), labels, ("a", "b", "c", "d"), "small")
