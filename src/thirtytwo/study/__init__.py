"""Studies: many trainings that answer one question. They return values; what people see is drawn elsewhere."""

from thirtytwo.study.compare import Comparison, Pair, compare
from thirtytwo.study.spread import Spread
from thirtytwo.study.trials import Trial, Trials, repeat

__all__ = ["Comparison", "Pair", "Spread", "Trial", "Trials", "compare", "repeat"]
