"""Studies: many trainings that answer one question. They return values; what people see is drawn elsewhere."""

from thirtytwo.study.audit import audit
from thirtytwo.study.compare import Comparison, Pair, compare
from thirtytwo.study.findings import Audit, LabelIssue, OddImage, Overview
from thirtytwo.study.spread import Spread
from thirtytwo.study.trials import Trial, Trials, repeat

__all__ = [
    "Audit",
    "Comparison",
    "LabelIssue",
    "OddImage",
    "Overview",
    "Pair",
    "Spread",
    "Trial",
    "Trials",
    "audit",
    "compare",
    "repeat",
]
