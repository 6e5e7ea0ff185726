"""Dramatiq, bare: a message for each call. `enqueue COUNT`, or `dramatiq with_dramatiq` as the worker."""

from __future__ import annotations

import base64
import os
import sys

import calls
import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["PEER_REDIS"]))


@dramatiq.actor(max_retries=0)
def deliver(request: str) -> None:
    """One call."""
    calls.send(base64.b64decode(request))


if __name__ == "__main__":
    for each in range(int(sys.argv[1])):
        deliver.send(base64.b64encode(calls.payload(each)).decode())
