"""The paper's data sets: fetched whole or not at all, and only the published files."""

from __future__ import annotations

import hashlib
import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mindspore_cvae.commands import get_data, program
from mindspore_cvae.data import published

CONTENT = {
    "train.txt": b"a sentence\n" * 40_000,
    "valid.txt": b"another one\n" * 100,
    "test.txt": "the last, with an \u00e9\n".encode() * 100,
}


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT like a site that can go on in the middle of a file."""

    ranges = True
    spoilt = ()
    cut_after = None
    is_dead_then = is_dead = False

    def do_GET(self):
        if type(self).is_dead or "/none/" in self.path:
            self.send_error(404)
            return
        name = {"val.txt": "valid.txt"}.get(Path(self.path).name, Path(self.path).name)
        body = CONTENT[name]
        if name in type(self).spoilt:
            body = body.replace(b"e", b"E")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and type(self).ranges else 0
        self.server.requests.append((name, start))
        if start and start >= len(body):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end, type(self).cut_after = type(self).cut_after or len(body), None
        type(self).is_dead, type(self).is_dead_then = type(self).is_dead_then, False
        self.wfile.write(body[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The command with the blob ids of CONTENT, and a server for it."""
    handler = type("Handler", (Server,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.requests = []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    files = [
        file._replace(blob=hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())
        for file in published.DATA_SETS["ptb"]
        for content in [CONTENT[file.name]]
    ]
    monkeypatch.setitem(published.DATA_SETS, "ptb", files)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def get(url=f"http://127.0.0.1:{server.server_port}"):
        monkeypatch.setenv(get_data.URL, url)
        return program.main(["data", "get", "ptb", str(tmp_path / "data" / "ptb")])

    yield get, server, handler, tmp_path / "data" / "ptb"
    server.shutdown()
    server.server_close()


def visible(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_data_is_fetched_once(site, capsys):
    get, server, _, folder = site
    assert get() == 0
    assert visible(folder) == CONTENT
    assert len(list(folder.iterdir())) == 3
    assert server.requests == [("train.txt", 0), ("valid.txt", 0), ("test.txt", 0)]
    assert capsys.readouterr().out.endswith(f"train --config ptb --data_dir {folder}\n")
    assert get() == 0
    assert len(server.requests) == 3


def test_a_cut_transfer_goes_on_where_it_stopped(site):
    get, server, handler, folder = site
    handler.cut_after = 123_456
    assert get() == 0
    assert visible(folder) == CONTENT
    assert server.requests[:2] == [("train.txt", 0), ("train.txt", 123_456)]


def test_a_later_call_goes_on_where_the_first_one_ended(site, capsys):
    get, server, handler, folder = site
    handler.cut_after, handler.is_dead_then = 1000, True
    assert get() == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "could not be fetched" in told
    assert visible(folder) == {}
    handler.is_dead = False
    server.requests.clear()
    assert get() == 0
    assert visible(folder) == CONTENT
    assert server.requests[0] == ("train.txt", 1000)


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_a_leftover_that_is_no_beginning_is_fetched_anew(site, has_ranges, size):
    get, _, handler, folder = site
    handler.ranges = has_ranges
    folder.mkdir(parents=True)
    blob = published.DATA_SETS["ptb"][0].blob
    (folder / f".train.txt.{blob}.part").write_bytes(b"x" * size)
    assert get() == 0
    assert visible(folder) == CONTENT
    assert len(list(folder.iterdir())) == 3


def test_a_file_that_is_not_the_published_one_is_refused(site, capsys):
    get, _, handler, folder = site
    handler.spoilt = ("valid.txt",)
    assert get() == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "is not the published file" in told
    assert [path.name for path in folder.iterdir()] == ["train.txt"]
    handler.spoilt = ()
    assert get() == 0


def test_a_file_that_is_there_is_never_overwritten(site, capsys):
    get, server, _, folder = site
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("mine")
    assert get() == 1
    assert "move it away" in capsys.readouterr().err
    assert (folder / "train.txt").read_text() == "mine"
    assert server.requests == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "ftp2://nowhere", "not a URL", "{}/none"])
def test_without_network_it_says_what_to_do(site, capsys, url):
    get, server, _, folder = site
    assert get(url.format(f"http://127.0.0.1:{server.server_port}")) == 1
    told = capsys.readouterr().err
    assert re.match(r"error: .*/lang_model_ptb/data/train.txt could not be fetched \(.+\): ", told)
    assert told.count("\n") == 1 and "DATA_URL" in told
    assert not folder.parent.exists()


def test_a_disk_that_takes_nothing_is_no_fault_of_the_network(site, capsys):
    get, _, _, folder = site
    folder.parent.mkdir()
    folder.write_text("a file")
    assert get() == 1
    assert capsys.readouterr().err == f"error: {folder}: File exists\n"


@pytest.mark.parametrize("given", [["imdb"], [], ["../ptb", "x"]])
def test_an_unknown_data_set_is_exit_code_2(given, capsys):
    assert program.main(["data", "get", *given]) == 2
    assert capsys.readouterr().err == "error: give a data set: ptb, yahoo or yelp\n"


def test_blob_ids_are_those_of_the_shared_texts(shared_data):
    for file in published.DATA_SETS["ptb"][1:]:
        assert published.blob_id(shared_data / "ptb" / file.name) == file.blob


def test_commands_of_two_words_need_the_standard_library_alone():
    """So that data can be fetched, and KenLM built, before anything is installed."""
    code = "from mindspore_cvae.commands import build_kenlm, get_data, program"
    root = Path(program.__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-S", "-c", code], cwd=root, check=True)
