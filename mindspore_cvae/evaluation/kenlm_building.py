"""KenLM's lmplz and query, built without root: source, cmake and ninja come from the package index.

Nothing but the standard library is imported: an interpreter that has pip will do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mindspore_cvae.evaluation.ngram import ProgramError

PROGRAMS = ("lmplz", "query")

SOURCE = "kenlm-ex==0.2.1"
"""What holds KenLM's source on the package index."""

SOURCE_HASH = "6657c2fd8b3650e0c234d1309272041ae4fd712d7fe27b60e3c72f57d5cebb55"
"""SHA-256 of its archive, which pins it: these are programs that will be run here."""

MENDING = (
    (r"^    CLI::App app{.*};$", r"\g<0>\n    app.set_help_flag();"),
    (
        r"^    lm::builder::PipelineConfig pipeline;$",
        "    lm::builder::PipelineConfig pipeline{};",
    ),
    (r"^    bool verbose_header;$", "    bool verbose_header = false;"),
)
"""Lines of lmplz_main.cc and what they are to be. As released, lmplz stops at once (its option -h
clashes with CLI11's own), and options that are not given leave their variables without a value: it
may collapse the backoff weights into the probabilities."""

LINES_SHOWN = 25
"""Of the output of a step that failed, from its end."""


def build_programs(folder: str | os.PathLike, tell: Callable[[str], None] = print) -> Path:
    """Build lmplz and query; programs that are there already are kept.

    Args:
        folder: gets ``bin`` with the programs; made if need be.
        tell: gets a line for each step, and the end of the output of one that fails.

    Returns:
        The folder ``bin``.

    Raises:
        ProgramError: A compiler or pip is missing, or a step failed.
        OSError: The folder cannot be written.
    """
    folder = Path(folder).resolve()
    programs = folder / "bin"
    if all(os.access(programs / name, os.X_OK) for name in PROGRAMS):
        return programs
    compiler = os.environ.get("CXX") or "c++"
    if shutil.which(compiler) is None:
        raise ProgramError("no C++ compiler was found (Debian: apt install g++; or name it by CXX)")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        raise ProgramError(
            f"{sys.executable} -m pip does not work: take an interpreter that has pip (PYTHON "
            "names that of the scripts)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Below the folder rather than in /tmp, which may be small or mounted without exec.
    with tempfile.TemporaryDirectory(prefix="build.", dir=folder) as work:
        built = _build(Path(work), tell)
        programs.mkdir(exist_ok=True)
        for name in PROGRAMS:
            os.replace(built / name, programs / name)
    return programs


def _build(work: Path, tell: Callable[[str], None]) -> Path:
    """Fetch, compile and try; the folder with programs that run."""
    environment = dict(os.environ)

    def step(title: str, *command: str | Path, text: Path | None = None) -> None:
        tell(title)
        _run(title, command, environment, text, tell)

    pip = (sys.executable, "-m", "pip")
    wanted = work / "requirements.txt"
    wanted.write_text(f"{SOURCE} --hash=sha256:{SOURCE_HASH}\n")
    step(
        "fetching KenLM's source",
        *(*pip, "download", "--no-deps", "--no-binary", "kenlm-ex", "--dest", work, "-r", wanted),
    )
    source = work / "kenlm_ex-0.2.1"
    shutil.unpack_archive(f"{source}.tar.gz", work)
    main = source / "lm" / "builder" / "lmplz_main.cc"
    code = main.read_text()
    for old, new in MENDING:
        code = re.sub(old, new, code, flags=re.MULTILINE)
    main.write_text(code)
    tools = work / "tools"
    step(
        "fetching cmake and ninja",
        *(*pip, "install", "--target", tools, "cmake>=3.28,<5", "ninja"),
    )
    # cmake's command is a Python script that imports its package.
    search = [str(tools), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, search))
    cmake = (sys.executable, tools / "bin" / "cmake")
    build = work / "build"
    ninja = f"-DCMAKE_MAKE_PROGRAM={tools}/bin/ninja"
    step(
        "configuring",
        *(*cmake, "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", ninja),
    )
    step("compiling lmplz and query", *cmake, "--build", build, "--target", *PROGRAMS)

    text, model = work / "text", work / "model"
    text.write_text("a b\nb a\n")
    step(
        "trying lmplz",
        *(build / "bin" / "lmplz", "-o", "2", "--discount_fallback", "0.5", "1", "1.5"),
        *("-S", "64M", "-T", work, "--text", text, "--arpa", model),
    )
    step("trying query", build / "bin" / "query", model, text=text)
    return build / "bin"


def _run(
    title: str,
    command: Sequence[str | Path],
    environment: dict[str, str],
    text: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Run a step; what it printed is shown only if it fails."""
    with open(text or os.devnull, "rb") as source:
        done = subprocess.run(
            command,
            env=environment,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        lines = done.stdout.decode(errors="replace").splitlines()
        tell("\n".join(lines[-LINES_SHOWN:]))
        raise ProgramError(f"{title}: failed; the end of its output stands above")
