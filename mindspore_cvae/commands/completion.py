"""What the shell is told when somebody presses Tab, by argcomplete (the extra ``completion``).

argcomplete runs the program with the typed line in the environment; nothing is computed then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from mindspore_cvae.errors import COMPLETING, CommandParser


def complete(commands: Sequence[str], run: Callable[[str], object]) -> None:
    """Answers with the commands, or lets the parser of the typed one answer; does not return.

    Args:
        commands: all names.
        run: calls the command of a name, whose parser sees what is asked for.
    """
    name = typed_command(os.environ)
    if name in commands:
        # argcomplete then takes the command for the program.
        os.environ[COMPLETING] = str(int(os.environ[COMPLETING]) + 1)
        run(name)
    parser = CommandParser()
    parser.add_argument("--version", action="store_true")
    parser.add_argument("command", choices=commands)
    parser.parse_args([])


def typed_command(environment: Mapping[str, str]) -> str:
    """The word after the program, once another word was begun; else an empty one."""
    line = environment["COMP_LINE"][: int(environment["COMP_POINT"])]
    words = line.split(" ")[int(environment[COMPLETING]) :]
    return words[0] if len(words) > 1 else ""
