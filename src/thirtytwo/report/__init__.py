"""Reports: what a run folder has stored, told to people in one HTML file and a few figures.

What draws is loaded when something is drawn: the terminal takes its words from here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thirtytwo import metrics
from thirtytwo.run import Run, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thirtytwo.study import Audit, Chosen, Comparison, Repeated, Student, Tuned

__all__ = ["write", "write_audit", "write_comparison", "write_ensemble", "write_spread", "write_tuning"]


def write(run: Run) -> Path:
    """Write ``report.html`` and ``figures/`` into the run folder, from nothing but what it has stored.

    The page is one file without anything external; it opens from a disk as from a server. A run that has not been
    scored yet gets a report of its training that says so. The same run gives the same bytes.

    Args:
        run: a run of which at least one epoch is done.

    Returns:
        The path of the page.

    Raises:
        RunError: not an epoch has been trained, or the folder's files are incomplete or do not fit each other.
        ModelError: predictions.safetensors or model.safetensors is damaged.
        StorageError: the files cannot be written; those of an earlier report are still there.
    """
    from thirtytwo.report import figures, looks, page, stored

    contents = stored.read(run)
    judged = contents.judged
    bins = metrics.reliability(judged.probabilities, judged.labels) if judged is not None else None
    html = page.render(contents, bins, looks.at(contents))
    for name, content in figures.draw(contents, bins).items():
        write_atomic(run.path / "figures" / name, content)
    path = run.path / "report.html"
    write_atomic(path, html.encode())
    return path


def write_spread(folder: Path, words: str, found: Repeated) -> Path:
    """Draw how much the accuracies of several trainings differ: ``spread.svg``, and the same as a PNG.

    Args:
        folder: which.
        words: what was trained.
        found: what came of it.

    Returns:
        The path of the SVG.

    Raises:
        StorageError: a file cannot be written.
    """
    from thirtytwo.report import figures

    return _write(folder / "spread", figures.spread(words, found))


def write_comparison(folder: Path, found: Comparison, words: tuple[str, str], name: str) -> Path:
    """Draw the pairs of a comparison and their differences, as an SVG and as a PNG.

    Args:
        folder: which.
        found: a pair at least.
        words: what A and B are.
        name: of the files.

    Returns:
        The path of the SVG.

    Raises:
        StorageError: a file cannot be written.
    """
    from thirtytwo.report import figures

    return _write(folder / name, figures.comparison(found, words))


def _write(path: Path, figure: Figure) -> Path:
    """Both files of a figure; returns the SVG's path."""
    from thirtytwo.report import figures

    svg, png = (path.parent / f"{path.name}.{kind}" for kind in ("svg", "png"))
    write_atomic(png, figures.save(figure, "png"))
    write_atomic(svg, figures.save(figure, "svg"))
    return svg


def write_audit(
    folder: Path, found: Audit, edited: Sequence[str] = (), precision: tuple[float, float] | None = None
) -> Path:
    """Write ``audit.html``: what is wrong with a data set, the suspicious images side by side.

    The page is one file of at most 5 MB without anything external; where there are too many images to be shown, it
    shows the most suspicious ones, and says so.

    Args:
        folder: where the tables lie.
        found: what an audit has found.
        edited: tables there that hold something else, since somebody has changed them.
        precision: the least and the largest share of pairs in these data that were right when somebody looked; None
            where nobody has.

    Returns:
        The path of the page.

    Raises:
        StorageError: it cannot be written.
    """
    from thirtytwo.report import audit_page

    path = folder / "audit.html"
    write_atomic(path, audit_page.render(found, edited, precision).encode(errors="backslashreplace"))
    return path


def write_tuning(folder: Path, found: Tuned) -> Path:
    """Write ``tuning.html``: what was tried, what came of it, and what mattered.

    Args:
        folder: of the search.
        found: what it has found.

    Returns:
        The path of the page.

    Raises:
        StorageError: it cannot be written.
    """
    from thirtytwo.report import tuning_page

    path = folder / "tuning.html"
    write_atomic(path, tuning_page.render(found).encode())
    return path


def write_ensemble(folder: Path, found: Chosen, students: Sequence[Student] = ()) -> Path:
    """Write ``ensemble.html``: what several models gain by answering together, and what each adds.

    Args:
        folder: of the ensemble.
        found: how it was chosen.
        students: networks that have learned from it.

    Returns:
        The path of the page.

    Raises:
        StorageError: it cannot be written.
    """
    from thirtytwo.report import ensemble_page

    path = folder / "ensemble.html"
    write_atomic(path, ensemble_page.render(folder, found, students).encode())
    return path
