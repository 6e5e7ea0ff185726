"""Repeats of calls: the first answer comes back, also when the same words would be refused by now."""

from __future__ import annotations

from datetime import timedelta

import pytest
from whispr.siblings import messaging_pb2

from scheduling.delivery.targets import TargetTable
from scheduling.domain.errors import AlreadyExists, InvalidRequest
from scheduling.domain.limits import Limits
from scheduling.operations import jobs, schedules
from scheduling.operations.drafts import AtTime, CreateDraft, JobDraft, Payload, Repeat, ScheduleDraft
from scheduling.operations.ports import Ports
from tests.support.run import run
from tests.support.stores import Stores, open_stores

PRINCIPAL = "spiffe://cluster.local/ns/whispr/sa/messaging-service"
REPEAT = Repeat("order-17", b"digest")


class RedisDown:
    async def is_up(self) -> bool:
        return False


def ports_of(stores: Stores, targets: TargetTable) -> Ports:
    return Ports(
        store=stores.store,
        targets=targets,
        clock=stores.clock,
        limits=Limits(),
        redis=RedisDown(),
        default_time_zone="UTC",
        environment="test",
        version="test",
    )


def draft(stores: Stores, ahead: timedelta) -> CreateDraft:
    request = messaging_pb2.SendScheduledMessageRequest(
        message_id="m-1", conversation_id="c-1", sender_id="u-1", content="hello"
    )
    payload = Payload(request.DESCRIPTOR.full_name, request.SerializeToString())
    job = JobDraft(target="messaging.MessagingService/SendScheduledMessage", request=payload, owner="u-1")
    return CreateDraft(job, schedule=ScheduleDraft(AtTime(stores.clock.now() + ahead)))


def test_a_creation_repeated_after_its_moment_gets_the_job_of_the_first_call(
    database_url: str, targets: TargetTable
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            asked = draft(stores, timedelta(seconds=5))
            first = await jobs.create_job(ports, PRINCIPAL, asked, REPEAT)
            stores.clock.advance(timedelta(minutes=10))
            again = await jobs.create_job(ports, PRINCIPAL, asked, REPEAT)
            assert again.uid == first.uid
            with pytest.raises(InvalidRequest, match="in the past"):
                await jobs.create_job(ports, PRINCIPAL, asked, Repeat("order-18", b"digest"))
            with pytest.raises(AlreadyExists) as caught:
                await jobs.create_job(ports, PRINCIPAL, asked, Repeat("order-17", b"another body"))
            assert caught.value.reason == "REQUEST_ID_REUSED"
            assert await stores.count("jobs") == 1

    run(scenario())


def test_a_run_and_a_schedule_repeated_after_the_job_was_cancelled_get_their_first_answers(
    database_url: str, targets: TargetTable
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            job = await jobs.create_job(ports, PRINCIPAL, draft(stores, timedelta(hours=1)), Repeat())
            ran = await jobs.run_job(ports, PRINCIPAL, job.job_id, None, None, Repeat("run", b"r"))
            later = ScheduleDraft(AtTime(stores.clock.now() + timedelta(hours=2)))
            added = await schedules.schedule_job(ports, PRINCIPAL, job.job_id, later, "", Repeat("add", b"s"))
            await jobs.cancel_job(ports, job.job_id)
            again = await jobs.run_job(ports, PRINCIPAL, job.job_id, None, None, Repeat("run", b"r"))
            assert again.uid == ran.uid
            same = await schedules.schedule_job(ports, PRINCIPAL, job.job_id, later, "", Repeat("add", b"s"))
            assert same.uid == added.uid

    run(scenario())


def test_a_repeat_whose_answer_was_deleted_is_told_so_and_makes_nothing(
    database_url: str, targets: TargetTable
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            asked = draft(stores, timedelta(seconds=5))
            job = await jobs.create_job(ports, PRINCIPAL, asked, REPEAT)
            await stores.store.delete_job(job, force=True)
            stores.clock.advance(timedelta(minutes=10))
            with pytest.raises(AlreadyExists) as caught:
                await jobs.create_job(ports, PRINCIPAL, asked, REPEAT)
            assert caught.value.reason == "REQUEST_ANSWER_DELETED"
            assert await stores.count("jobs") == 0

    run(scenario())
