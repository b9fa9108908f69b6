"""Trains many times in one process, so that a GPU's kernels are compiled, and the data read, once.

    python together.py SPEC DEVICE JOBS

JOBS is a JSON array of [recipe, seed, folder]. Each training goes on where it was stopped, is scored once on the test
set, and prints a line of JSON when it has ended. `cold_seconds`, everything from the start of the process to the end of
training, means something for the first one only; the others' results do without.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import runs
from thirtytwo import Run, evaluate_run, find, resume, train


def main() -> None:
    """Do the jobs."""
    spec, device, jobs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    source = find(spec).in_memory()
    for number, (recipe, seed, folder) in enumerate(jobs):
        out = Path(folder)
        begun = runs.is_begun(out)
        training = resume(out, source) if begun else train(recipe, source, seed=seed, out=out, device=device)
        evaluate_run(training.run, source, training.finish(), corrupted_images=0)
        if number:
            run = Run(out)
            run.result = {key: value for key, value in run.result.items() if key != "cold_seconds"}
        del training
        gc.collect()
        print(json.dumps({"recipe": recipe, "seed": seed}), flush=True)


if __name__ == "__main__":
    main()
