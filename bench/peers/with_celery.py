"""Celery on Redis. `enqueue COUNT`, or `celery -A with_celery worker` as the worker."""

from __future__ import annotations

import base64
import os
import sys

import calls
from celery import Celery

app = Celery("with_celery", broker=os.environ["PEER_REDIS"])
# Late acknowledgement: a message survives its worker, as everywhere else here.
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=4)


@app.task(name="deliver")
def deliver(request: str) -> None:
    """One call."""
    calls.send(base64.b64decode(request))


if __name__ == "__main__":
    for each in range(int(sys.argv[1])):
        deliver.delay(base64.b64encode(calls.payload(each)).decode())
