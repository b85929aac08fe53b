"""Files that a user names: devices, pipes, links, a run's own files, places that cannot be."""

import os
import subprocess
import sys

import pytest
from made_run import write_made_run

from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.errors import InputError
from mindspore_cvae.runs import outputs
from mindspore_cvae.runs.outputs import check_folder, check_output, write_output


def test_a_link_stays_and_its_target_is_written(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target.name)
    check_output(link)
    write_output(link, "new\n")
    assert link.is_symlink() and target.read_text() == "new\n"


def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    check_output(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_output(path, "words\n")
    assert path.is_fifo() and os.read(reader, 100) == b"words\n"
    os.close(reader)


def test_a_device_is_written_into(monkeypatch):
    written = []
    monkeypatch.setattr(outputs, "write_atomically", lambda *given: written.append(given))
    check_output("/dev/null")
    write_output("/dev/null", "words")
    assert not written
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_output("/dev/full", "words")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_an_open_descriptor_is_gone_on_with(tmp_path, name):
    (tmp_path / "link").symlink_to("/dev/stdout")
    program = (
        "import sys; from mindspore_cvae.runs.outputs import *; print('before', flush=True);"
        "check_output(sys.argv[1]); write_output(sys.argv[1], 'words\\n')"
    )
    with open(tmp_path / "kept", "w") as file:
        command = [sys.executable, "-c", program, name]
        subprocess.run(command, check=True, stdout=file, cwd=tmp_path)
    assert (tmp_path / "kept").read_text() == "before\nwords\n"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    "name",
    [
        *("config.yaml", "vocab.txt", "log.jsonl", "lock", "ngram.json", "metrics-test.json"),
        *("report.html", "checkpoints/best.json", "export/vocab.txt", "profile/a/b"),
    ],
)
def test_a_runs_own_files_are_refused_even_through_a_link(tmp_path, name):
    run = write_made_run(tmp_path / "run")
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "link").symlink_to(run / name)
    for path in (run / name, tmp_path / "link"):
        with pytest.raises(InputError, match="is one of the files of the run"):
            check_output(path)
        with pytest.raises(InputError, match="is one of the files of the run"):
            write_output(path, "words")
    check_output(run / "sentences.txt")


def test_places_that_cannot_be_are_refused_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is a folder"):
        check_output(tmp_path)
    with pytest.raises(InputError, match="--per_sentence .* folder does not exist"):
        check_output(tmp_path / "no" / "file", "--per_sentence")
    (tmp_path / "round").symlink_to("round")
    for name in ("round", "x" * 300 + "/y", "a\0b"):
        with pytest.raises(InputError, match="--output"):
            check_output(tmp_path / name)
    for folder in ("/proc", "/sys"):
        with pytest.raises(InputError, match=f"nothing can be written to {folder}"):
            check_folder(folder, "--run")
    check_output(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["round"]


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_the_permissions_of_a_file_stay(tmp_path, mode):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    write_output(path, "new")
    assert path.stat().st_mode & 0o777 == mode
    write_atomically(path, "newer")
    assert path.stat().st_mode & 0o777 == mode and path.read_text() == "newer"
