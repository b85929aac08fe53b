"""The commands train and eval up to the point where mindspore is needed, and their exit codes."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindspore_cvae.commands import evaluate, train
from mindspore_cvae.commands.evaluate import eval_main
from mindspore_cvae.commands.train import train_main
from mindspore_cvae.config.keys import OPTIONS
from mindspore_cvae.config.layers import load
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.errors import DeviceError, InputError, TrainingError, run_command
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs import folder as runs_folder

ROOT = Path(__file__).resolve().parents[2]
TEXT = "the cat sat\nthe dog ran\na bird sang\n"


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(TEXT)
    return folder


@pytest.fixture
def run(tmp_path, corpus):
    """A run whose checkpoint belongs to another training."""
    folder = tmp_path / "run"
    with runs_folder.Run(folder) as run:
        config = load("ptb", data_dir=str(corpus), system="vae")
        run.write_inputs(config, Vocabulary(["<pad>", "<unk>", "<s>", "</s>", "the", "cat"]))
        run.open_log().close()
        fingerprints = {"config": config.fingerprint(), "vocabulary": "other", "data": "other"}
        state = {"system": "vae", "step": 1, "epoch": 1, "batch": 1, "log_rows": 0}
        checkpoints.save(run.checkpoints, 1, {"x": np.zeros(1)}, state, fingerprints)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs that a test forgets to place fall into its own folder."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def no_training(monkeypatch):
    """Everything up to the reading of the corpus, and nothing after it."""

    def stop(config, run):
        raise InputError("stopped before training")

    monkeypatch.setattr(train, "corpus_of_run", stop)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(main, capsys, *argv: object) -> str:
    """The one line that a command prints when it refuses its input."""
    assert main([str(word) for word in argv]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ") and output.err.count("\n") == 1
    return output.err


def command(*argv: object, **options) -> subprocess.CompletedProcess:
    """A command as a user runs it."""
    return subprocess.run(
        [sys.executable, ROOT / argv[0], *map(str, argv[1:])],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["train.py", "--help"], 0),
        (["eval.py", "--help"], 0),
        (["train.py", "--set", "train.epoch=1"], 2),
        (["train.py", "--config", "missing.yaml"], 2),
        (["train.py", "--bogus"], 2),
        (["train.py", "--set", "model.decoder_dropout=-0.5"], 2),
        (["eval.py", "--run", "missing"], 2),
    ],
)
def test_help_and_configuration_errors_answer_within_a_second(argv, code):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = command(*argv)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == code
    assert ("usage:" in result.stdout) == (code == 0)
    assert result.stderr.count("error: ") == (code == 2) and "Traceback" not in result.stderr
    # Processor time, since the clock also counts whatever else the machine is busy with.
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1


def test_mindspore_is_not_imported_before_it_is_needed(corpus):
    program = (
        "import sys\n"
        "from mindspore_cvae.devices import choosing\n"
        "from mindspore_cvae.commands.train import train_main\n"
        "class Stop(Exception): pass\n"
        "def stop(precision): raise Stop(sorted(m for m in sys.modules if 'mindspore' == m[:9]))\n"
        "choosing.apply_precision = stop\n"
        f"train_main(['--data_dir', {str(corpus)!r}])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    modules = result.stderr.splitlines()[-1]
    assert "Stop" in modules and "mindspore_cvae.data" in modules and "'mindspore'" not in modules


@pytest.mark.parametrize("main", [train_main, eval_main])
def test_help_lists_the_keys(main, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "eval.samples" in text
    assert all(key in text for key in OPTIONS) == (main is train_main)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--system", "gpt"], "system must be one of lstm_lm, ae, vae"),
        (
            ["--set", "model.decoder_dropout=-0.5"],
            "model.decoder_dropout must be a number in [0, 1)",
        ),
        (["--set", "train.epoch=3"], "did you mean train.epochs?"),
        (["--set", "train.epochs"], "--set takes KEY=VALUE"),
        (["--set"], "--set"),
        (["--seed", "x"], "--seed"),
        (["--seed", "-1"], "seed must be an integer in"),
        (["--device_target", "TPU"], "device_target must be one of auto, CPU, GPU, Ascend"),
        (["--device_target", "gpu"], "did you mean GPU?"),
        (["--precision", "half"], "precision must be one of strict, fast"),
        (["--amp_level", "O1"], "model.amp_level must be one of O0, O2"),
        (["--resume", "--overwrite"], "choose one"),
        (["--config", "pbt"], "did you mean ptb?"),
        (["extra"], "unrecognized arguments: extra"),
        (["--res"], "unrecognized arguments: --res"),
        (["--data_dir", ""], "data.dir must be"),
        (["--data_dir", "missing"], "missing: cannot be read"),
    ],
)
def test_bad_options_of_train_are_refused(capsys, elsewhere, argv, expected):
    assert expected in refused(train_main, capsys, *argv)
    assert snapshot(elsewhere) == {}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "--run"),
        (["--run", "missing"], "missing does not exist"),
        (["--run", "."], ". is not a run"),
        (["--run", "RUN", "--split", "train"], "--split"),
        (["--run", "RUN", "--checkpoint", "first"], "--checkpoint"),
        (["--run", "RUN", "--samples", "0"], "eval.samples must be an integer in"),
        (["--run", "RUN", "--samples", "many"], "--samples"),
        (["--run", "RUN", "--iw_samples", "0"], "--iw_samples"),
        (
            ["--run", "RUN", "--per_sentence", "missing/file"],
            "missing/file: its folder does not",
        ),
        (["--run", "RUN", "--output", "missing/file"], "missing/file: its folder does not"),
        (["--run", "RUN", "--set", "model.hidden_size=3"], "model.hidden_size is 256"),
        (["--run", "RUN", "--data_dir", "missing"], "missing: cannot be read"),
    ],
)
def test_bad_options_of_eval_are_refused(capsys, run, argv, expected):
    before = snapshot(run)
    argv = [str(run) if word == "RUN" else word for word in argv]
    assert expected in refused(eval_main, capsys, *argv)
    assert snapshot(run) == before


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("train.txt", None, "no train.txt"),
        ("valid.txt", None, "no valid.txt or val.txt"),
        ("train.txt", b"", "no sentence left"),
        ("test.txt", b"\n \n\n", "no sentence left"),
        ("train.txt", b"the cat\n\xff\xfe\n", "line 2: bytes that are not UTF-8"),
        ("train.txt", b"the cat\0\n", "line 1: a NUL byte"),
        ("valid.txt", b"word " * 101, "no sentence left"),
    ],
)
def test_bad_corpora_are_refused_and_nothing_is_written(
    capsys, corpus, elsewhere, name, content, expected
):
    (corpus / name).unlink() if content is None else (corpus / name).write_bytes(content)
    message = refused(train_main, capsys, "--data_dir", corpus, "--output_dir", "run")
    assert expected in message and str(corpus) in message
    assert snapshot(elsewhere) == {}


def test_what_is_a_run_already_is_refused(capsys, run, corpus, no_training):
    before = snapshot(run)
    message = refused(train_main, capsys, "--output_dir", run, "--data_dir", corpus)
    assert "already a run: --resume continues it, --overwrite deletes it" in message
    assert "stopped" in refused(train_main, capsys, "--output_dir", run, "--overwrite")
    assert snapshot(run) == before
    message = refused(train_main, capsys, "--output_dir", corpus, "--overwrite")
    assert "not empty and not a run" in message


def test_the_default_folder_is_named_after_what_is_trained(capsys, elsewhere, no_training):
    for name, argv in {
        "quickstart-cvae_plus_mi-0": [],
        "ptb-vae-7": ["--config", "ptb", "--system", "vae", "--seed", "7"],
    }.items():
        folder = elsewhere / "runs" / name
        with runs_folder.Run(folder) as run:
            run.write_inputs(load("ptb"), Vocabulary(["<pad>", "<unk>", "<s>", "</s>"]))
        assert f"runs/{name} is already a run" in refused(train_main, capsys, *argv)


def test_a_resumed_run_keeps_what_decides_its_steps(capsys, run, no_training):
    resume = ["--output_dir", run, "--resume"]
    assert "stopped" in refused(train_main, capsys, *resume)
    assert "stopped" in refused(train_main, capsys, *resume, "--set", "train.epochs=99")
    for argv, key in (
        (["--set", "model.hidden_size=128"], "model.hidden_size was 256"),
        (["--set", "slots.encoder_dropout=0.2"], "slots.encoder_dropout was 0.0"),
        (["--system", "ivae"], "system was 'vae'"),
        (["--seed", "3"], "seed was 0"),
        (["--config", "yahoo"], "system was 'vae'"),
        (["--precision", "fast"], "precision was 'strict'"),
    ):
        assert key in refused(train_main, capsys, *resume, *argv)
        assert "stopped" in refused(train_main, capsys, *resume, *argv, "--force")


def test_options_may_be_repeated_and_the_last_value_wins(capsys, run, monkeypatch):
    seen = []
    for command in (train, evaluate):
        monkeypatch.setattr(
            command, "corpus_of_run", lambda config, run: seen.append(config) or 1 / 0
        )
    pairs = ["--set", "train.epochs=3", "seed=1", "--set", "train.epochs=4", "--set", "seed=2"]
    assert train_main(pairs) == 1
    assert (seen[0].train.epochs, seen[0].seed) == (4, 2)
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert eval_main(["--run", str(run), "--set", "eval.samples=3", "--samples", "5"]) == 1
    assert seen[1].eval.samples == 5


def test_a_device_that_is_not_there_is_one_error_and_leaves_nothing(corpus, tmp_path):
    folder = tmp_path / "run"
    argv = ["train.py", "--data_dir", corpus, "--output_dir", folder, "--device_target", "Ascend"]
    result = command(*argv)
    if "device Ascend," in result.stdout:
        pytest.skip("there is an Ascend here")
    assert result.returncode == 1
    loading, error = result.stderr.splitlines()
    assert loading == "loading MindSpore" and error.startswith("error: device Ascend is not there")
    assert not folder.exists()


def test_a_vocabulary_that_does_not_fit_the_checkpoint_is_one_error(run):
    before = snapshot(run)
    for argv in (
        ["train.py", "--output_dir", run, "--resume"],
        ["eval.py", "--run", run, "--checkpoint", "last"],
    ):
        result = command(*argv)
        assert result.returncode == 2, result.stderr
        assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr
        assert "step-00000001.safetensors" in result.stderr
        after = snapshot(run)
        after["lock"] = before["lock"]
        assert after == before


ERRORS = [
    (InputError("bad input"), 2, "error: bad input\n"),
    (InputError("two\nlines"), 2, "error: two; lines\n"),
    (DeviceError("no device"), 1, "error: no device\n"),
    (TrainingError("not finite"), 1, "error: not finite\n"),
    (
        OSError(errno.ENOSPC, "No space left on device", "f"),
        1,
        "error: f: No space left on device\n",
    ),
    (MemoryError(), 1, "error: out of memory"),
    (KeyboardInterrupt(), 130, "error: interrupted\n"),
]


@pytest.mark.parametrize(("error", "code", "text"), ERRORS, ids=lambda value: type(value).__name__)
def test_exit_codes(capsys, error, code, text):
    def main():
        raise error

    assert run_command(main) == code
    output = capsys.readouterr().err
    assert output.startswith(text) and output.count("\n") == 1


def test_exit_codes_of_what_is_no_error(capsys):
    assert run_command(lambda: None) == 0
    assert run_command(lambda: 143) == 143
    with pytest.raises(SystemExit) as end:
        run_command(lambda: sys.exit(130))
    assert end.value.code == 130


def test_a_fault_of_the_program_shows_where(capsys):
    assert run_command(lambda: {}["missing"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "error: KeyError: 'missing'"


def test_a_reader_that_goes_away_is_no_fault():
    reader, pipe = os.pipe()
    os.close(reader)
    program = "import sys; from mindspore_cvae import errors; sys.exit(errors.run_command(main))"
    program = "def main():\n    print('x' * 100000)\n" + program
    result = subprocess.run(
        [sys.executable, "-c", program], stdout=pipe, stderr=subprocess.PIPE, cwd=ROOT
    )
    os.close(pipe)
    assert result.returncode == 1 and result.stderr == b""


WORDS = st.sampled_from(
    [
        *(
            "--config",
            "--system",
            "--seed",
            "--output_dir",
            "--data_dir",
            "--resume",
            "--overwrite",
        ),
        *("--set", "--force", "--device_target", "--device_id", "--precision", "--run", "--split"),
        "--amp_level",
        *(
            "--samples",
            "--checkpoint",
            "ptb",
            "vae",
            "0",
            "-1",
            "1e9",
            "null",
            "seed=1",
            "a=b",
            "=",
        ),
        *("train.epochs=3", "slots.views=1", "slots.divergence=none", "/dev/null", "/", "x" * 300),
    ]
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(argv=st.lists(WORDS | st.text(st.characters(codec="utf-8"), max_size=6), max_size=6))
def test_fuzzed_command_lines_are_refused_in_one_line(capsys, no_training, elsewhere, argv):
    if "--help" in argv or "-h" in argv:
        return
    for main in (train_main, eval_main):
        assert main(argv) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ") and message.count("\n") == 1
    assert snapshot(elsewhere) == {}


def test_a_mistyped_folder_has_nothing_to_resume(elsewhere, capsys):
    assert train_main(["--output_dir", "runs/ptp", "--resume"]) == 2
    assert "runs/ptp holds no run, so there is nothing to resume" in capsys.readouterr().err
    assert not any(elsewhere.iterdir())
