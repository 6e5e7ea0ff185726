"""The policy as people write it: a TOML file, checked as a whole, and read again when it changes."""

from __future__ import annotations

import difflib
import logging
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from scheduling.domain.policy import CALLING, Access, Globs, Grant, Policy
from scheduling.telemetry.logs import log_event

#: Seconds between two looks at the file.
LOOK_PAUSE: Final = 5.0
#: The largest file that is read, in bytes.
MAX_BYTES: Final = 1_000_000

_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]+(?:/[A-Za-z0-9._-]+)+")
_GLOB = re.compile(r"[A-Za-z0-9._/*-]{1,200}")
_KEYS: Final = ("principals", "rpcs", "targets", "owners", "jobs", "raise_queue")

_log = logging.getLogger(__name__)


class PolicyError(Exception):
    """A policy that cannot be used. `problems` has one line for each thing that is wrong."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def parse_policy(text: str, rpcs: Collection[str], targets: Collection[str]) -> Policy:
    """The policy in a TOML document. `rpcs` are those that exist, as `Service/Method`, `targets` those methods that
    may be scheduled. Raises PolicyError with all that is wrong.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError([f"is not TOML: {error}"]) from None
    reader = _Reader(rpcs, targets)
    grants = reader.read(document)
    if reader.problems:
        raise PolicyError(reader.problems)
    return Policy(grants)


class _Reader:
    def __init__(self, rpcs: Collection[str], targets: Collection[str]) -> None:
        self._rpcs = {name for rpc in rpcs for name in (rpc, rpc.rpartition("/")[2])}
        self._targets = targets
        self._names: dict[str, str] = {}
        self.problems: list[str] = []

    def read(self, document: Mapping[str, Any]) -> list[Grant]:
        self._refuse_unknown(document, ("principals", "grants"), "")
        names = document.get("principals", {})
        if not isinstance(names, dict):
            self._wrong("principals", "expected a table of names and identities")
            names = {}
        for name, identity in names.items():
            if isinstance(identity, str) and _SPIFFE.fullmatch(identity):
                self._names[name] = identity
            else:
                self._wrong(f"principals.{name}", "expected spiffe://<trust domain>/<path>")
        grants = document.get("grants", [])
        if not isinstance(grants, list) or not grants:
            self._wrong("grants", "expected at least one [[grants]]")
            return []
        return [self._grant(each, f"grants[{number}]") for number, each in enumerate(grants)]

    def _grant(self, given: Any, path: str) -> Grant:
        if not isinstance(given, dict):
            self._wrong(path, "expected a table")
            given = {}
        self._refuse_unknown(given, _KEYS, f"{path}.")
        rpcs = self._globs(given, "rpcs", path, self._rpcs, "RPC", required=True)
        called = [rpc for rpc in sorted(CALLING & self._rpcs) if rpc in rpcs]
        targets = self._globs(given, "targets", path, self._targets, "target")
        if called and not targets.patterns and "targets" not in given:
            self._wrong(f"{path}.targets", f"is missing; {called[0]} needs to know which may be called")
        jobs = given.get("jobs", "own")
        scope: frozenset[str] | None = frozenset()
        if jobs == "all":
            scope = None
        elif jobs != "own":
            scope = self._identities(jobs, f"{path}.jobs", '"own", "all" or a list of principals')
        raise_queue = given.get("raise_queue", False)
        if not isinstance(raise_queue, bool):
            self._wrong(f"{path}.raise_queue", "expected true or false")
        return Grant(
            principals=self._principals(given.get("principals"), f"{path}.principals"),
            rpcs=rpcs,
            targets=targets,
            owners=self._globs(given, "owners", path, None, "owner"),
            jobs=scope,
            raise_queue=raise_queue is True,
        )

    def _principals(self, given: Any, path: str) -> frozenset[str] | None:
        # Everybody whom the mesh vouches for: said by itself, never as one among others.
        return None if given == "*" else self._identities(given, path, '"*" or a list of principals')

    def _identities(self, given: Any, path: str, expected: str) -> frozenset[str]:
        found = set()
        for each in self._texts(given, path, expected):
            if each in self._names:
                found.add(self._names[each])
            elif _SPIFFE.fullmatch(each):
                found.add(each)
            else:
                self._wrong(path, f"{each!r} is not in [principals]{_hint(each, self._names)}")
        return frozenset(found)

    def _globs(
        self,
        given: Mapping[str, Any],
        key: str,
        path: str,
        known: Collection[str] | None,
        kind: str,
        *,
        required: bool = False,
    ) -> Globs:
        if key not in given and not required:
            return Globs(())
        globs = []
        for each in self._texts(given.get(key), f"{path}.{key}", "a list of texts, * stands for any characters"):
            if known is not None and not _GLOB.fullmatch(each):
                self._wrong(f"{path}.{key}", f"{each!r} is no pattern: only * stands for other characters")
            elif known is not None and not any(one in Globs((each,)) for one in known):
                self._wrong(f"{path}.{key}", f"there is no {kind} {each!r}{_hint(each, known)}")
            elif known is None and ("**" in each or len(each) > 200):
                self._wrong(f"{path}.{key}", f"{each[:50]!r} is no {kind} or pattern of owners")
            else:
                globs.append(each)
        return Globs(globs)

    def _texts(self, given: Any, path: str, expected: str) -> list[str]:
        if isinstance(given, list) and given and all(isinstance(each, str) and each for each in given):
            return given
        self._wrong(path, f"expected {expected}")
        return []

    def _refuse_unknown(self, given: Mapping[str, Any], known: Collection[str], path: str) -> None:
        for key in given:
            if key not in known:
                self._wrong(f"{path}{key}", f"is not known{_hint(key, known)}")

    def _wrong(self, path: str, what: str) -> None:
        self.problems.append(f"{path}: {what}")


def _hint(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


class PolicyFile:
    """The policy in a file. What was read last and was right stays in force until the file is right again."""

    def __init__(
        self,
        path: Path,
        rpcs: Collection[str],
        targets: Collection[str],
        on_stale: Callable[[bool], None] = lambda stale: None,  # noqa: ARG005 - a no-op with the signature
    ) -> None:
        """Reads the file. Raises PolicyError, also when it cannot be read."""
        self._path = path
        self._rpcs = tuple(rpcs)
        self._targets = tuple(targets)
        self._on_stale = on_stale
        self._seen = self._look()
        self._policy = self._read()
        #: Whether the file is not what is in force.
        self.stale = False
        on_stale(False)

    def access(self, principal: str, rpc: str) -> Access:
        """What `principal` may do by `rpc`, as the policy in force says."""
        return self._policy.access(principal, rpc)

    async def tick(self) -> float:
        """Reads the file if it has changed; the seconds until the next look."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._policy = self._read()
            except PolicyError as error:
                self.stale = True
                for problem in error.problems[:20]:
                    log_event(_log, logging.ERROR, "policy_refused", problem=problem)
            else:
                self.stale = False
                log_event(_log, logging.INFO, "policy_loaded", path=str(self._path))
            self._on_stale(self.stale)
        return LOOK_PAUSE

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        # A mounted ConfigMap changes by another file in the place of the link.
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> Policy:
        try:
            if self._path.stat().st_size > MAX_BYTES:
                raise PolicyError([f"is larger than {MAX_BYTES} bytes"])
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError([f"cannot be read: {type(error).__name__}"]) from None
        return parse_policy(text, self._rpcs, self._targets)
