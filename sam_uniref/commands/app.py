"""How all commands end: what a user did wrong is one line on stderr and an exit code, a defect is a traceback.

| code | meaning |
|---|---|
| 0 | all done |
| 2 | what was given can't be used: the line says what to change |
| 1 | something is wrong with what was looked at (`data check`, `cache --check`, a video that breaks off); or a defect |
| 75 | of training alone: the machine failed, the same command with --resume goes on |
| 130, 143 | stopped by Ctrl-C, by SIGTERM |
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from sam_uniref.commands.output import complain

REFUSED, INTERRUPTED, TERMINATED = 2, 130, 143
_DEBUG = "--debug"
# click's, which older versions of typer import and newer ones contain.
_UsageError: Any = typer.BadParameter.__base__


class OneLineErrors(TyperGroup):
    """What a user did wrong is told in one line on stderr, with exit code 2; with --debug by its traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take --debug from wherever it stands, since it is every command's."""
        own = args[: args.index("--")] if "--" in args else args
        ctx.meta[_DEBUG] = _DEBUG in own
        _refuse_empty(args)
        rest = [argument for argument in own if argument != _DEBUG] + args[len(own) :]
        try:
            return super().parse_args(ctx, rest)
        except _UsageError as error:
            _refuse_usage(error)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            complain("stopped")
            raise typer.Exit(INTERRUPTED) from None
        except _UsageError as error:
            _refuse_usage(error)
        except (ValueError, OSError, ImportError) as error:  # a package of an extra that is not there
            if ctx.meta[_DEBUG]:
                raise
            complain(str(error))
            raise typer.Exit(REFUSED) from error


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an argument without a letter: as a path it would be the working folder, which nobody meant."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        option = before if argument == "" else argument.removesuffix("=")
        is_empty = argument == "" or (argument.startswith("--") and argument.endswith("="))
        if not is_empty or option == "--text":  # of a sentence the command says more
            continue
        after = f" after {option}" if option.startswith("-") else ""
        complain(f"an argument is empty{after}; give a name or a path, or leave it out ('.' is the working folder)")
        raise typer.Exit(REFUSED)


def _refuse_usage(error: Any) -> NoReturn:
    """A command line that can't be read: in one line, too; a group without a command shows its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        raise error
    command = error.ctx.command_path if error.ctx is not None else "sam-uniref"
    complain(f"{error.format_message().rstrip('.')} (see {command} --help)")
    raise typer.Exit(REFUSED) from error


def examples(*lines: str) -> str:
    """The end of a command's help: command lines to copy, one a line."""
    shown = [line.replace("[", "\\[") for line in lines]
    return "\n\n".join(["Examples:", *shown, "--debug, anywhere, shows the traceback of an error."])


def end_at_sigterm() -> None:
    """Let SIGTERM unwind the stack, so that half-written files go; the exit code is 143."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
