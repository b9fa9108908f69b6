"""Mistakes in the words of a command, told as every error is: found, expected, remedy.

Typer would tell them in a frame, and in words of its own and of pydantic's.
"""

from __future__ import annotations

import re
from typing import Any

import typer

from thirtytwo import mistakes

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises where the words of a command are wrong; it has no public name for all of it."""


def told(error: Any) -> str:
    """What is wrong with the words of a command; empty where its help has been shown instead.

    Args:
        error: a `UsageError`; only the name of its class tells of which kind.
    """
    context, said = error.ctx, error.format_message()
    command = context.command_path if context else "thirtytwo"
    explained = f"`{command} --help` explains it"
    match type(error).__name__:
        case "NoArgsIsHelpError":
            return ""
        case "NoSuchOption":
            expected, remedy = f"one that `{command} --help` lists", _other_option(error)
            return f"{error.option_name}: no such option; expected {expected}; {remedy}"
        case "BadOptionUsage" if "requires" in said:
            return f"{error.option_name}: no value follows; expected one; give it, or leave {error.option_name} out"
        case "BadOptionUsage":
            return f"{error.option_name}: a value follows; expected none; leave the value out"
        case "MissingParameter":
            return f"{_name(error.param)}: missing; expected {_form(context)}; {explained}"
        case "BadParameter":
            return _bad_value(error, explained)
    # "No such command 'tarin'. Did you mean 'train'?"
    found, _, suggested = said.partition(". Did you mean")
    commands = getattr(context.command, "commands", None)
    expected = mistakes.either(list(commands)) if commands else _form(context)
    remedy = f"did you mean{suggested}" if suggested else explained
    return f"{_lowered(found.rstrip('.'))}; expected {expected}; {remedy}"


def _other_option(error: Any) -> str:
    """What to do about an option that there is not: another one, or a setting of the recipe."""
    takes = {option for parameter in error.ctx.command.params for option in parameter.opts}
    if "--set" in takes:
        from thirtytwo.recipe import keys

        if settings := mistakes.named(error.option_name.lstrip("-"), keys()):
            return f"did you mean --set {settings[0]}=…?"
    return f"did you mean {error.possibilities[0]}?" if error.possibilities else "leave it out"


def _bad_value(error: Any, explained: str) -> str:
    """What is wrong with the value of an option or an argument."""
    name = _name(error.param)
    # Of several words to choose from, Typer and Click say: 'val' is not one of 'test', 'validation'.
    if listed := re.search(r"['\"](.*)['\"] is not one of (.*)", error.message, re.DOTALL):
        choices = re.findall(r"'([^']*)'", listed[2])
        near = mistakes.near(listed[1], choices)
        remedy = f"did you mean {near}?" if near else "choose one of these"
        return f"{name} {listed[1]}: expected {mistakes.either(choices)}; {remedy}"
    if details := getattr(error.__cause__, "errors", None):  # pydantic's
        detail = details()[0]
        return f"{name} {detail['input']}: expected {mistakes.expected(detail)}; {explained}"
    return f"{name}: {_lowered(error.message.rstrip('.'))}; {explained}"


def _name(parameter: Any) -> str:
    """``--split`` for an option, ``MODEL`` for an argument."""
    option = parameter.opts[0]
    return str(option if option.startswith("-") else parameter.metavar or option.upper())


def _form(context: Any) -> str:
    """``thirtytwo evaluate [OPTIONS] {MODEL}``."""
    return " ".join(context.get_usage().removeprefix("Usage: ").split())


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
