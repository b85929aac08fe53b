"""What all tests share: the folder of data sets, the choice of slow tests, repeatable examples."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# A busy machine must not fail a test, nor a lucky draw pass one.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def keep_to_own_cores() -> None:
    """Gives each of the processes that share the tests its own cores.

    The threads of a small graph wait for each other in busy loops: two processes on the same two
    cores take longer together than one after the other.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    number, workers = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number::workers] or cores)


keep_to_own_cores()


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="slow: run with --slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder ../shared/data beside the repository, with ptb and yahoo."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the data sets are not there: no folder {folder}")
    return folder
