"""Errors that a user meets, and the exit codes of every command.

Exit codes: 0 done, 2 bad input or configuration, 130 interrupted at the keyboard, 1 anything else.
"""

from __future__ import annotations

import _thread
import argparse
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mindspore_cvae.common import streams


class InputError(Exception):
    """Bad input or configuration; the message is one sentence: what, where, and what to do."""


class TrainingError(Exception):
    """Training cannot go on: a loss, or all gradients for many steps, are not finite."""


class DeviceError(Exception):
    """A device that was asked for cannot be used."""


class UserNotice(UserWarning):
    """What a program that uses the package is warned of; commands print it instead."""


def checkout() -> Path | None:
    """The checkout that the package is used from; None where it is installed without one."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def typed(command: str) -> str:
    """A command as the user typed it, or would type another one, for usage lines and hints:
    ``train.py`` or ``mindspore-cvae train``.
    """
    program = Path(sys.argv[0])
    if program.name == f"{command}.py":
        return program.name
    package = Path(__file__).resolve().parent
    # Beside the package lie the scripts of a checkout, which need not be installed.
    is_module = program.resolve() == package / "__main__.py" or (
        program.suffix == ".py" and program.resolve().parent == package.parent
    )
    return f"python -m {package.name} {command}" if is_module else f"mindspore-cvae {command}"


COMPLETING = "_ARGCOMPLETE"
"""Set by argcomplete, to the place of the program in the typed line, where only completions are
asked for."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser that raises :class:`InputError`: commands report all bad input alike."""

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """argparse's; where a shell asks for completions, these, and the process ends."""
        if COMPLETING in os.environ:
            import argcomplete

            argcomplete.autocomplete(self, default_completer=argcomplete.FilesCompleter())
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise :class:`InputError` with argparse's message and where to find help."""
        raise InputError(f"{message} ({self.prog} --help lists the options)")


def keep_interrupts() -> None:
    """Brings SIGINT to Python's handler, whatever mindspore makes of it.

    Every call of a compiled graph replaces the process's handler by one that sends SIGTERM. So the
    signal is blocked here, and in all threads that this one starts, but for one that waits for it.
    Call it before numpy is imported, which starts threads.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def forward() -> None:
        while True:
            _thread.interrupt_main(signal.Signals(signal.sigwait({signal.SIGINT})))

    threading.Thread(target=forward, daemon=True).start()


_PACKAGE = str(Path(__file__).parent) + os.sep
_COMMANDS: list[Callable[[], object]] = []
"""The commands under way in this process."""


def is_command() -> bool:
    """Whether a command is under way in this process, which tells people what it does."""
    return bool(_COMMANDS)


def warn_user(message: str) -> None:
    """Tell of something that may not be as it should: a command prints one line ``warning: ...`` on
    stderr; in any other program it is a :class:`UserNotice` of Python's ``warnings``, at the line
    that called the package."""
    if _COMMANDS:
        print(f"warning: {_one_line(message)}", file=sys.stderr)
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(_one_line(message), UserNotice, stacklevel=level)


def _one_line(message: str) -> str:
    line = "; ".join(line.strip() for line in message.splitlines() if line.strip())
    return streams.without_controls(line)


OUT_OF_MEMORY = (
    "out of memory (a smaller data.batch_size, eval.rows or eval.tokens needs less, and so do "
    "shorter sentences: data.max_words)"
)
"""What is said where memory ends."""
_MEMORY = re.compile(r"out of memory|bad_alloc|(alloc\w* .*memory|memory .*alloc)", re.IGNORECASE)


def _refuse_deleted_directory() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("the working directory was deleted: change to another one") from None


def run_command(main: Callable[[], object]) -> int:
    """Run a command and turn how it ended into an exit code.

    An expected error (bad input, no device, the operating system's) becomes one line ``error: ...``
    on stderr. An unexpected one is a fault of the program: its traceback comes before that line.

    Args:
        main: the command, without arguments. An ``int`` that it returns is the exit code.

    Returns:
        The exit code: ``main``'s own or 0; 2 for :class:`InputError`; 130 for an interrupt; else 1.
        A ``SystemExit`` (argparse's ``--help``, the end of a signal handler) keeps its own code.
    """
    # Streams that the caller closed are None: what is told has nowhere to go, and work goes on.
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    if hasattr(sys.stdout, "reconfigure"):
        # Names of files may hold bytes that are no text.
        sys.stdout.reconfigure(errors="backslashreplace")
    _COMMANDS.append(main)
    try:
        with streams.whole_output(), streams.legible_output():
            return _exit_code(main)
    finally:
        _COMMANDS.pop()


def _exit_code(main: Callable[[], object]) -> int:
    try:
        _refuse_deleted_directory()
        result = main()
        # A closed pipe shows itself only when buffered text is written.
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except InputError as error:
        message, code = str(error), 2
    except BrokenPipeError:
        # The reader went away (`... | head`): nothing to say, and nothing more to write at exit.
        streams.drop_unwritten()
        return 1
    except (DeviceError, TrainingError) as error:
        message, code = str(error), 1
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        code = 1
        try:
            sys.stdout.flush()
        except OSError:
            streams.drop_unwritten()
    except MemoryError:
        message, code = OUT_OF_MEMORY, 1
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except Exception as error:
        code = 1
        if isinstance(error, RuntimeError) and _MEMORY.search(str(error)):
            # MindSpore's own, of many lines.
            message = OUT_OF_MEMORY
        else:
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}"
    print(f"error: {_one_line(message)}", file=sys.stderr)
    return code
