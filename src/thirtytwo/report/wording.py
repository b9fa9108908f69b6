"""Numbers as people write them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def percent(share: float, decimals: int = 1) -> str:
    """0.8864 -> ``88.6%``."""
    return f"{100 * share:.{decimals}f}%"


def precise_percent(share: float, images: int) -> str:
    """A share of so many images, with as many decimals as one image more or less can change."""
    return percent(share, 2 if images > 1000 else 1)


def signed(points: float, decimals: int = 2) -> str:
    """A difference with its sign; what rounds to 0 has none."""
    text = f"{points:+.{decimals}f}"
    return text if float(text) else text[1:]


def count(number: float) -> str:
    """50000 -> ``50,000``."""
    return f"{round(number):,}"


def plural(number: int, one: str, many: str = "") -> str:
    """(1, "epoch") -> ``1 epoch``; (2, "epoch") -> ``2 epochs``; (2, "class", "classes") -> ``2 classes``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """("a", "b", "c") -> ``a, b and c``; there has to be one."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def diverged(seeds: tuple[Sequence[int], Sequence[int]], number: int) -> str:
    """(([], [3, 5]), 8) -> ``B diverged with 2 of 8 seeds (3, 5)``; empty where neither A nor B diverged."""
    return "; ".join(
        f"{recipe} diverged with {len(lost):,} of {plural(number, 'seed')} ({', '.join(map(str, lost))})"
        for recipe, lost in zip("AB", seeds, strict=True)
        if lost
    )


def ordinal(number: int) -> str:
    """3 -> ``3rd``."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def duration(seconds: float) -> str:
    """``7.3 s``, ``42 s``, ``3 min 05 s``, ``1 h 02 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def scaled(number: float, unit: str) -> str:
    """Three figures with a decimal prefix: (4.12e14, "FLOP") -> ``412 TFLOP``."""
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    # Compared after rounding to three figures: 999.6 thousand is 1.00 M, not 1000 k.
    size = float(f"{number:.2e}")
    step = min(max(int(math.log10(size) // 3), 0), len(prefixes) - 1) if size > 0 else 0
    value = size / 1000**step
    decimals = 0 if value >= 100 or step == 0 else 1 if value >= 10 else 2
    return f"{value:.{decimals}f} {prefixes[step]}{unit}"


def trust_in_pairs(precision: tuple[float, float] | None) -> str:
    """How much of what an audit names as the same picture is so.

    Args:
        precision: the lowest and the highest share that was found for the data; None where nobody has looked.
    """
    if precision is None:
        return "nobody has checked yet how many such pairs in these data are right"
    low, high = (percent(share, 0) for share in precision)
    return f"of such pairs in these data that were checked by eye, {low} to {high} show the same picture"


def weak_networks(agreed: float, is_at_baseline: bool) -> str:
    """What an audit's doubts about labels are worth if its networks are weak.

    Args:
        agreed: share of the training labels that they agree with.
        is_at_baseline: whether that is no more than always naming the most frequent class would.
    """
    no_more = ", no more than always naming the most frequent class would" if is_at_baseline else ""
    return (
        f"The networks agree with only {percent(agreed)} of the training labels{no_more}. Networks that agree with so "
        "few can hardly judge labels: many of their doubts are mistakes of their own, unless that many labels are "
        "wrong. Leave out no image that you have not looked at. Networks of a better recipe, or of more epochs "
        "(--recipe), doubt fewer labels, and with better reason."
    )


def draw_of_images(images: int, margin: float, sharing: str = "") -> str:
    """What studies leave out: all of their trainings are judged by the same validation images.

    Args:
        images: how many there are.
        margin: how far their draw moves what was found at most, as a share; see `Repeated.margin_of_images`.
        sharing: what shares them, such as ``runs``; empty for a single one.
    """
    shared = f" that all {sharing} share" if sharing else ""
    return (
        f"the draw of the {plural(images, 'validation image')}{shared}, which adds ± {100 * margin:.2f} points (95%) "
        "at most"
    )


def at_baseline(baseline: float, images: int) -> str:
    """What an accuracy is that `metrics.is_at_baseline`.

    Args:
        baseline: the accuracy of always naming the most frequent class.
        images: by which both are judged.
    """
    return (
        f"no better than always naming the most frequent class, which would be right {percent(baseline)} of the time, "
        f"as far as {plural(images, 'image')} can tell"
    )


def versions(found: Mapping[str, str]) -> str:
    """``python 3.11.7, torch 2.13.0``."""
    return ", ".join(f"{name} {version}" for name, version in found.items())


def commit(found: str) -> str:
    """A commit; a ``+`` after it stands for changes that were not committed."""
    return found.removesuffix("+") + (", with uncommitted changes" if found.endswith("+") else "")


def moment(date: str) -> str:
    """2026-11-27T21:05:46+00:00 -> ``2026-11-27 21:05:46 UTC``."""
    return date.replace("T", " ").replace("+00:00", " UTC")


def circumstances(facts: Mapping[str, Any], ended: str) -> Iterator[tuple[str, str]]:
    """What a study ran on and with, line by line.

    Args:
        facts: see `environment.describe`.
        ended: what its date is called.
    """
    yield "Command", facts["command"]
    yield "Machine", f"{facts['machine']}; {facts['device_name']} ({facts['device']})"
    yield "Versions", versions(facts["versions"])
    if facts["commit"]:
        yield "Commit", commit(facts["commit"])
    yield ended, moment(facts["date"])
