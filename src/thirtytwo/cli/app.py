"""The program itself: what its commands have in common.

Nothing heavy is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thirtytwo import __version__

if TYPE_CHECKING:
    from thirtytwo.cli.show import Screen

app = typer.Typer(
    name="thirtytwo",
    help="Train and judge classifiers of small images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A run folder, an ensemble's folder, a model file, or pretrained: the model in the package, for CIFAR-10.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")]
DATA_HELP = "cifar10, cifar100, shapes, or a path. Default: $THIRTYTWO_DATA, then cifar10."
DataOption = Annotated[str | None, typer.Option("--data", metavar="SPEC", help=DATA_HELP)]
CORRUPTED_HELP = "Also score N of the images with noise, blur, JPEG, changed brightness and contrast, and shifts."
DeviceOption = Annotated[str, typer.Option("--device", help="auto (a GPU if there is one), cpu or cuda.")]


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the recipe, such as optimizer.learning_rate=0.01. May be given more than once; "
        "docs/settings.md lists all settings.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"thirtytwo {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Train and judge classifiers of small images."""


def screen_for(as_json: bool, *, silent: bool = False) -> Screen:
    """What a person sees; beside JSON on stdout it goes to stderr."""
    from thirtytwo.cli.show import Screen

    return Screen(to_stderr=as_json, silent=silent)


def print_json(value: object) -> None:
    """A result, on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
