"""Studies: many trainings that answer one question. They return values; what people see is drawn elsewhere."""

from thirtytwo.study.audit import audit
from thirtytwo.study.compare import Comparison, Needed, Pair, Unpaired, compare
from thirtytwo.study.distil import Student, distil, students
from thirtytwo.study.ensemble import Addition, Chosen, Gain, Member, as_seen, ensemble, shared_validation
from thirtytwo.study.findings import Audit, BrokenFile, LabelIssue, OddImage, Overview
from thirtytwo.study.pool import Local, OnRay, Pool, Watcher
from thirtytwo.study.spread import Spread
from thirtytwo.study.task import Interrupted
from thirtytwo.study.trials import Repeated, Trial, Trials, repeat
from thirtytwo.study.tune import Tuned, TuningTrial, tune

__all__ = [
    "Addition",
    "Audit",
    "BrokenFile",
    "Chosen",
    "Comparison",
    "Gain",
    "Interrupted",
    "LabelIssue",
    "Local",
    "Member",
    "Needed",
    "OddImage",
    "OnRay",
    "Overview",
    "Pair",
    "Pool",
    "Repeated",
    "Spread",
    "Student",
    "Trial",
    "Trials",
    "Tuned",
    "TuningTrial",
    "Unpaired",
    "Watcher",
    "as_seen",
    "audit",
    "compare",
    "distil",
    "ensemble",
    "repeat",
    "shared_validation",
    "students",
    "tune",
]
