"""The command line: one verb each, joining what the layers below return."""

from __future__ import annotations

import io
import sys
from typing import NoReturn

import typer

from thirtytwo.cli import commands, study_commands, usage
from thirtytwo.cli.app import app
from thirtytwo.errors import InputError, OutOfMemory, ThirtytwoError

__all__ = ["app", "commands", "main", "study_commands"]


def _fail(message: str, code: int) -> NoReturn:
    from thirtytwo.cli import launch

    typer.echo(f"error: {launch.who()}{message}", err=True)
    sys.exit(code)


def main() -> None:
    """Run the program; every error that the package raises on purpose becomes a message and an exit code."""
    from thirtytwo.cli import launch

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what its encoding has no bytes for
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)  # what is wrong with the words is told here, like everything else
    except usage.UsageError as error:
        if words := usage.told(error):
            _fail(words, InputError.exit_code)
        sys.exit(InputError.exit_code)
    except ThirtytwoError as error:
        _fail(str(error), launch.exit_code(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except (MemoryError, RuntimeError) as error:
        from thirtytwo.environment import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _fail("out of memory; expected room for the data and the network; close other programs", OutOfMemory.exit_code)
    if code:
        sys.exit(code)
