"""Errors as callers see them."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

import scheduling.domain.filters
import scheduling.domain.paging
import scheduling.rpc.server  # noqa: F401 - every class must be known before they are walked
from scheduling.domain import errors as domain
from scheduling.domain.errors import SchedulingError, Violation
from scheduling.rpc import errors
from scheduling.rpc.errors import clean, describe, row_for

SECOND = timedelta(seconds=1)
#: One of each, and the details that it must carry beside ErrorInfo.
EXAMPLES = [
    (domain.invalid("job.timeout", "too long"), "INVALID_ARGUMENT", ["BadRequest"]),
    (errors.MalformedMessage([Violation("", "no", "MALFORMED_MESSAGE")]), "INVALID_ARGUMENT", ["BadRequest"]),
    (domain.NotFound("Job", "jobs/a"), "NOT_FOUND", ["ResourceInfo"]),
    (domain.AlreadyExists("taken", resource_type="Job", name="jobs/a"), "ALREADY_EXISTS", ["ResourceInfo"]),
    (domain.WrongState("cancelled", subject="jobs/a"), "FAILED_PRECONDITION", ["PreconditionFailure"]),
    (domain.Conflict("changed"), "ABORTED", []),
    (
        domain.QuotaExceeded("full", subject="u-1", limit="L1", retry_after=SECOND),
        "RESOURCE_EXHAUSTED",
        ["QuotaFailure", "RetryInfo"],
    ),
    (domain.PermissionDenied("no"), "PERMISSION_DENIED", []),
    (domain.Overloaded("busy", retry_after=SECOND), "RESOURCE_EXHAUSTED", ["RetryInfo"]),
    (domain.StoreUnavailable(), "UNAVAILABLE", ["RetryInfo"]),
    (errors.DeadlineExceeded("late"), "DEADLINE_EXCEEDED", []),
    (errors.ResponseTooLarge("big"), "RESOURCE_EXHAUSTED", []),
    (errors.ShuttingDown(), "UNAVAILABLE", ["RetryInfo"]),
    (errors.Unauthenticated("who?"), "UNAUTHENTICATED", []),
]


def all_classes(base: type[SchedulingError] = SchedulingError) -> Iterator[type[SchedulingError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from all_classes(kind)


def unpacked(status: Any) -> Any:
    kinds = {name: getattr(error_details_pb2, name) for name in error_details_pb2.DESCRIPTOR.message_types_by_name}
    found = {}
    for detail in status.details:
        name = detail.type_url.rpartition(".")[2]
        found[name] = kinds[name].FromString(detail.value)
    return found


def test_every_error_class_has_a_code() -> None:
    classes = {kind for kind in all_classes() if kind.__module__.startswith("scheduling.")}
    assert len(classes) >= 14
    assert [kind for kind in classes if row_for(kind) is None] == []


def test_every_row_of_the_table_has_an_example() -> None:
    assert {type(error) for error, _, _ in EXAMPLES} == set(errors.ERRORS)


@pytest.mark.parametrize(("error", "code", "details"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_has_its_code_its_reason_and_its_details(error: Any, code: Any, details: Any) -> None:
    answered, status = describe(error, "r-1")
    assert answered is grpc.StatusCode[code]
    assert status.code == answered.value[0]
    assert status.message == error.message
    found = unpacked(status)
    assert list(found) == ["ErrorInfo", *details]
    info = found["ErrorInfo"]
    assert (info.domain, info.reason, info.metadata["request_id"]) == ("scheduling.whispr", error.reason, "r-1")
    assert error.metadata.items() <= dict(info.metadata).items()


def test_field_violations_have_path_description_and_reason() -> None:
    _, status = describe(domain.invalid("job.retry_policy.max_attempts", "at most 6", "TOO_MANY"), "r")
    (violation,) = unpacked(status)["BadRequest"].field_violations
    assert (violation.field, violation.description, violation.reason) == (
        "job.retry_policy.max_attempts",
        "at most 6",
        "TOO_MANY",
    )


def test_resources_quotas_and_pauses_are_told() -> None:
    assert unpacked(describe(EXAMPLES[2][0], "r")[1])["ResourceInfo"].resource_type == "scheduling.whispr/Job"
    quota = unpacked(describe(EXAMPLES[6][0], "r")[1])
    assert quota["QuotaFailure"].violations[0].subject == "u-1"
    assert quota["RetryInfo"].retry_delay.ToTimedelta() == SECOND


@pytest.mark.parametrize("error", [RuntimeError("password=hunter2"), SchedulingError("secret"), KeyError("secret")])
def test_what_is_not_in_the_table_is_internal_and_shows_nothing_of_itself(error: Any) -> None:
    code, status = describe(error, "r-9")
    assert code is grpc.StatusCode.INTERNAL
    assert status.message == errors.INTERNAL_MESSAGE
    assert b"secret" not in status.SerializeToString()
    assert b"hunter2" not in status.SerializeToString()
    assert unpacked(status)["ErrorInfo"].metadata["request_id"] == "r-9"


def test_many_violations_are_told_as_twenty_and_a_number() -> None:
    _, status = describe(domain.InvalidRequest([Violation(f"f[{i}]", "no") for i in range(1000)]), "r")
    violations = unpacked(status)["BadRequest"].field_violations
    assert [v.field for v in violations[:20]] == [f"f[{i}]" for i in range(20)]
    assert (len(violations), violations[20].description) == (21, "and 980 more")


def trailing_bytes(status: Any) -> int:
    """As large as it gets on the way: details in base64, the message percent-encoded, 32 bytes for each entry."""
    details = len(base64.b64encode(status.SerializeToString()))
    return details + len(quote(status.message)) + len(errors.DETAILS_KEY) + 200 + 32 * 6


TEXTS = st.text(max_size=50).map(lambda text: text * 40)


@given(st.lists(st.builds(Violation, TEXTS, TEXTS, TEXTS), min_size=1, max_size=60), TEXTS)
def test_an_answer_fits_into_the_metadata_that_clients_take(violations: Any, text: Any) -> None:
    for error in (
        domain.InvalidRequest(violations, message=text),
        domain.AlreadyExists(text, resource_type=text, name=text, reason=text),
        domain.WrongState(text, subject=text, reason=text),
        domain.Conflict(text, metadata={f"key_{i}": text for i in range(100)} | {text: text}),
        domain.QuotaExceeded(text, subject=text, limit=text, retry_after=SECOND),
    ):
        _, status = describe(error, "r" * 128)
        assert trailing_bytes(status) < 8192


def test_the_longest_violations_still_leave_one_to_read() -> None:
    _, status = describe(domain.InvalidRequest([Violation("ä" * 5000, "ö" * 5000, "R" * 500)] * 30), "r")
    violations = unpacked(status)["BadRequest"].field_violations
    assert len(violations) >= 2
    assert violations[-1].description == f"and {30 - len(violations) + 1} more"
    assert trailing_bytes(status) < 8192


@given(st.text(), st.integers(10, 100))
def test_cleaned_text_is_printable_utf8_within_its_limit(text: Any, limit: Any) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned.encode("utf-8")) <= limit
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in cleaned)
    assert cleaned == clean(cleaned, limit)


def test_half_a_surrogate_pair_and_line_breaks_are_replaced() -> None:
    assert clean("a\r\n\x00b\ud800c\u202e", 100) == "a b?c "
