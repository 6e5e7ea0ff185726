"""The command line: help, settings, migrations, and what it says when something is in the way."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scheduling import __version__
from scheduling.cli import WORKER_GRPC
from scheduling.embedded import EmbeddedValkey
from tests.support.processes import environment
from tests.support.service import NOWHERE, PATIENCE, monotonic

COMMANDS = ("up", "server", "worker", "migrate", "settings")


def scheduling(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "scheduling", *arguments],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def taken_port() -> Iterator[int]:
    """A port that something listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_the_help_is_quick_and_lists_the_commands() -> None:
    seconds = []
    for _ in range(3):
        began = monotonic()
        done = scheduling("--help")
        seconds.append(monotonic() - began)
        assert done.returncode == 0
        assert all(f"\n  {command} " in done.stdout for command in COMMANDS)
    assert min(seconds) < 1


def test_grpc_knows_what_a_worker_asks_of_it() -> None:
    """Of what it does not know it complains; another version of it may call it by another name."""
    command = [sys.executable, "-c", "import grpc.aio"]
    told = environment(GRPC_EXPERIMENTS=WORKER_GRPC)
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command: str) -> None:
    done = scheduling(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage:")


def test_the_version_is_told() -> None:
    assert scheduling("--version").stdout.strip().endswith(__version__)


@pytest.mark.parametrize("arguments", [("nope",), ("server", "--nope"), ("worker", "--queues")])
def test_wrong_arguments_are_told_with_exit_code_2(arguments: tuple[str, ...]) -> None:
    done = scheduling(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_all_wrong_settings_are_told_in_one_message() -> None:
    done = scheduling(
        "server",
        databse_url="postgresql://user:geheim@db/scheduling",
        redis_url="http://user:geheim@redis",
        limit_retries="lots",
        heartbeat="5s",
        messaging_address="nowhere",
        default_time_zone="Mars/Olympus",
    )
    assert done.returncode == 2
    *_, told = done.stderr.partition("The settings are wrong:\n")
    assert [line.partition(":")[0] for line in told.splitlines()] == [
        "SCHEDULING_DATABSE_URL",
        "SCHEDULING_DEFAULT_TIME_ZONE",
        "SCHEDULING_HEARTBEAT",
        "SCHEDULING_LIMIT_RETRIES",
        "SCHEDULING_MESSAGING_ADDRESS",
        "SCHEDULING_REDIS_URL",
    ]
    assert "did you mean SCHEDULING_DATABASE_URL?" in told
    assert "geheim" not in done.stderr + done.stdout


@pytest.mark.parametrize("command", ["server", "migrate"])
def test_without_a_database_a_command_says_what_to_do(command: str) -> None:
    done = scheduling(command)
    assert done.returncode == 2
    assert "SCHEDULING_DATABASE_URL is not set" in done.stderr
    assert "scheduling up" in done.stderr


def test_wrong_queues_are_told() -> None:
    done = scheduling("worker", "--queues", "high,urgent", database_url=f"postgresql://{NOWHERE}/x")
    assert done.returncode == 2
    assert "SCHEDULING_QUEUES" in done.stderr


def test_the_settings_are_listed_with_their_defaults() -> None:
    done = scheduling("settings")
    assert done.returncode == 0
    for name in ("SCHEDULING_DATABASE_URL", "SCHEDULING_MESSAGING_ADDRESS", "SCHEDULING_LIMIT_RETRIES"):
        assert f"{name}\n" in done.stdout
    assert "default: 5\n" in done.stdout


def test_migrating_twice_is_as_good_as_once(empty_database_url: str) -> None:
    first, second = (scheduling("migrate", database_url=empty_database_url) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "the database is at revision" in first.stdout
    assert first.stdout == second.stdout


def test_a_database_that_is_not_there_cannot_be_migrated() -> None:
    done = scheduling("migrate", database_url=f"postgresql://user:geheim@{NOWHERE}/x")
    assert done.returncode == 1
    assert done.stderr.startswith("scheduling migrate: ")
    assert "Traceback" not in done.stderr
    assert "geheim" not in done.stderr


def test_a_port_in_use_is_told(database_url: str) -> None:
    with taken_port() as port:
        done = scheduling(
            "server", database_url=database_url, grpc_listen=f"127.0.0.1:{port}", metrics_listen="", server_drain="0s"
        )
    assert done.returncode == 1
    assert f"scheduling server: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_metrics_port_in_use_is_told(database_url: str) -> None:
    with taken_port() as port:
        done = scheduling("worker", database_url=database_url, metrics_listen=f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert "scheduling worker: " in done.stderr
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_up_says_so_when_its_folder_is_in_use(tmp_path: Path, database_url: str) -> None:
    with EmbeddedValkey(tmp_path / "valkey"):
        done = scheduling("up", "--data", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("scheduling up: ")
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


def test_up_says_so_when_its_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = scheduling("up", "--data", str(tmp_path / "file" / "data"))
    assert done.returncode == 1
    assert done.stderr.startswith("scheduling up: ")
    assert "Traceback" not in done.stderr


def test_up_says_so_when_the_named_database_is_not_there(tmp_path: Path) -> None:
    named = {"database_url": f"postgresql://user:geheim@{NOWHERE}/x", "redis_url": f"redis://{NOWHERE}/0"}
    done = scheduling("up", "--data", str(tmp_path), **named)
    assert done.returncode == 1
    assert done.stderr.startswith("scheduling up: the store is not available")
    assert "Traceback" not in done.stderr
    assert "geheim" not in done.stderr
