"""``python -m thirtytwo`` is the command ``thirtytwo``."""

from thirtytwo.cli import main

main()
