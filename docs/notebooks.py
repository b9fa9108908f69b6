"""Runs the notebooks whose outputs are stored with them, and stores what comes of it; some minutes on two cores.

    python docs/notebooks.py

These are the notebooks that show nothing but drawn images and numbers: no image of a data set is committed. A notebook
holds a fingerprint of its code cells and their outputs. A test compares them: whoever changes a cell runs this again.
Run it from a commit, since the outputs name the commit that they came from.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from thirtytwo.run import write_atomic

FOLDER = Path(__file__).parent.parent / "notebooks"
STORED = ("honest_comparison.ipynb",)
"""Notebooks in this folder whose outputs are stored."""
KEY = "fingerprint"
"""Of a notebook's metadata: what `fingerprint` said when its outputs were stored."""


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def has_outputs(notebook: NotebookNode) -> bool:
    """Whether a cell was run and the notebook saved after it."""
    return any(cell.outputs or cell.execution_count is not None for cell in code_cells(notebook))


def fingerprint(notebook: NotebookNode) -> str:
    """SHA-256 over what the code cells say, what came of them, and the order in which they were run."""
    cells = [[cell.source, cell.execution_count, cell.outputs] for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def is_stale(notebook: NotebookNode) -> bool:
    """Whether a notebook holds outputs that were not stored by `store`, or of cells that have been changed since."""
    return has_outputs(notebook) and str(notebook.metadata.get(KEY)) != fingerprint(notebook)


def store(path: Path) -> None:
    """Run a notebook from its first cell to its last, in a folder of its own, and store its outputs in it.

    What cells write to stderr, such as a library's warnings about this machine, is printed and not stored.

    Raises:
        CellExecutionError: a cell failed; the notebook is as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    metadata = copy.deepcopy(notebook.metadata)  # to which a run adds what it knows of this machine's Python
    with tempfile.TemporaryDirectory() as folder:
        # Openings of test sets count from 1 there, as they do for a reader who runs it for the first time.
        variables = {**os.environ, "THIRTYTWO_STATE": str(Path(folder) / "state")}
        client = NotebookClient(notebook, timeout=None, record_timing=False, coalesce_streams=True)
        client.execute(cwd=folder, env=variables)
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.get("name") == "stderr":
                print(output.text, end="", file=sys.stderr)
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = metadata
    notebook.metadata[KEY] = fingerprint(notebook)
    write_atomic(path, (nbformat.writes(notebook) + "\n").encode())


def main() -> None:
    """Run them all."""
    for name in STORED:
        print(f"running {name} …")
        store(FOLDER / name)


if __name__ == "__main__":
    main()
