"""Pauses of the whole service, of a queue, or of a target: they hold, and skip nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Scope(StrEnum):
    """What a pause stops."""

    SERVICE = "SERVICE"
    QUEUE = "QUEUE"
    TARGET = "TARGET"

    def held_by(self, name: str) -> str:
        """What an execution that such a pause stops is held by."""
        return f"{self}_PAUSED:{name}" if name else f"{self}_PAUSED"


@dataclass(frozen=True, slots=True)
class Pause:
    """Who paused what, when and why. `name` is a queue, a gRPC service or one of its methods
    (`package.Service/Method`), and empty for the whole service.
    """

    scope: Scope
    name: str
    principal: str
    note: str
    time: datetime

    @property
    def resource(self) -> str:
        """The resource name of what is paused."""
        return resource_of(self.scope, self.name)


def resource_of(scope: Scope, name: str) -> str:
    """The resource name of what a pause stops: `service`, `queues/{queue}`, `targets/{target}`."""
    match scope:
        case Scope.SERVICE:
            return "service"
        case Scope.QUEUE:
            return f"queues/{name.lower()}"
        case Scope.TARGET:
            return f"targets/{name.replace('/', '.')}"
