"""Every setting of the service: its name, type, default, bounds and meaning.

A setting `claim_lead` is the environment variable `SCHEDULING_CLAIM_LEAD`; nothing else is read. Durations are a number
with a unit (`500ms`, `30s`, `5m`, `24h`, `7d`), lists are comma-separated, addresses are `host:port`. The address of a
sibling service is `SCHEDULING_<SERVICE>_ADDRESS`. `SCHEDULING_TEST_…` belongs to the test suite and is passed over, as
are the variables that Kubernetes makes for a Service whose name starts with `scheduling`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from scheduling.domain.target import Queue
from scheduling.setting_values import (
    SPIFFE,
    BadValueError,
    a_boolean,
    a_duration,
    a_path,
    a_text,
    a_time_zone,
    a_url,
    a_word,
    an_integer,
    check_address,
    format_duration,
    listening,
    listening_or_off,
    some_addresses,
    some_ip_addresses,
    some_queues,
    some_rates,
    split_address,
)

PREFIX: Final = "SCHEDULING_"
TEST_PREFIX: Final = "SCHEDULING_TEST_"
#: Names only: their values are never told, not even when they are wrong.
SECRET_FIELDS: Final = frozenset({"database_url", "redis_url"})


class SettingsError(Exception):
    """Settings that cannot be used. `problems` has one line for each, and the message is all of them."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class _DisagreementError(ValueError):
    """Settings that are fine one by one and do not go together."""

    def __init__(self, found: Sequence[tuple[tuple[str, ...], str]]) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = tuple(found)


Moment = Annotated[timedelta, a_duration("1ms", "1m")]  # waits of loops, leases and single statements
Span = Annotated[timedelta, a_duration("1s", "3650d")]
Count = Annotated[int, an_integer(1, 1_000_000)]


class Settings(BaseModel):
    """All settings, frozen. Each value is within its bounds and they agree with each other, or there is no Settings.

    Building one directly raises pydantic's ValidationError; `load_settings` reads text and reports everything together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: Annotated[str | None, a_url("postgresql", "postgresql+psycopg")] = Field(
        default=None,
        repr=False,
        description="PostgreSQL. `up` starts an embedded one without it; server, worker, migrate need it.",
    )
    redis_url: Annotated[str | None, a_url("redis", "rediss", "unix")] = Field(
        default=None,
        repr=False,
        description="Redis or Valkey. `up` starts an embedded one without it; server and worker run without it, "
        "each firing up to three quarters of a second late.",
    )
    data_dir: Annotated[Path | None, PlainValidator(a_path)] = Field(
        default=None, description="Folder of the embedded servers; without it one in the user's data directory."
    )
    environment: Annotated[str, a_text("[a-z][a-z0-9-]{0,30}", "lower-case letters, digits and hyphens")] = Field(
        default="development", description="Name of the environment, such as production."
    )
    deployment: Annotated[str, a_text("[A-Za-z0-9._-]{0,100}", "letters, digits, dots, hyphens and underscores")] = (
        Field(
            default="",
            description="Names this deployment of the service; the version when empty. Each fires its schedules once.",
        )
    )
    enabled: Annotated[bool, PlainValidator(a_boolean)] = Field(
        default=True, description="false pauses the service whenever a worker starts; ResumeService ends the pause."
    )
    default_time_zone: Annotated[str, PlainValidator(a_time_zone)] = Field(
        default="UTC", description="Zone of schedules that name none."
    )
    principal: Annotated[str, a_text(SPIFFE, "spiffe://<trust domain>/<path>")] = Field(
        default="spiffe://cluster.local/ns/whispr/sa/development",
        description="Principal of callers whose identity no mesh vouches for.",
    )

    identity: Annotated[str, a_word("development", "mesh")] = Field(
        default="development",
        description="Who calls: mesh takes the sidecar's word for it, development takes everybody for one principal.",
    )
    identity_self: Annotated[str, a_text(SPIFFE, "spiffe://<trust domain>/<path>")] = Field(
        default="spiffe://cluster.local/ns/whispr/sa/scheduling-service",
        description="Our own identity in the mesh: only a sidecar that has it is believed.",
    )
    identity_trusted: Annotated[tuple[str, ...], PlainValidator(some_ip_addresses)] = Field(
        default=("127.0.0.6", "::6"),
        description="Addresses that the sidecar connects from. Istio's uses these, nobody else in the pod does.",
    )
    policy_file: Annotated[Path | None, PlainValidator(a_path)] = Field(
        default=None, description="Who may do what, as TOML; read again when it changes. Mesh identity needs it."
    )
    identity_exposed: Annotated[bool, PlainValidator(a_boolean)] = Field(
        default=False, description="Listen beyond this machine without mesh identity, on purpose: anyone may do all."
    )

    grpc_listen: Annotated[str, PlainValidator(listening)] = Field(
        default="127.0.0.1:50051", description="Where the API listens; port 0 takes any free one."
    )
    metrics_listen: Annotated[str, PlainValidator(listening_or_off)] = Field(
        default="127.0.0.1:9464",
        description="Where /metrics and /healthz are served; port 0 takes any free one, empty is off.",
    )
    log_level: Annotated[str, a_word("debug", "info", "warning", "error")] = Field(
        default="info", description="Least level that is logged: debug, info, warning, error."
    )
    log_format: Annotated[str, a_word("json", "console")] = Field(
        default="json", description="json for machines, console for people."
    )
    server_drain: Annotated[timedelta, a_duration("0s", "5m")] = Field(
        default=timedelta(seconds=5),
        description="Between NOT_SERVING and the end of taking RPCs when the server stops.",
    )
    max_message_bytes: Annotated[int, an_integer(65_536, 67_108_864)] = Field(
        default=8 * 1024 * 1024, description="Largest request that the API receives, in bytes."
    )
    database_pool_size: Annotated[int, an_integer(1, 200)] = Field(
        default=10, description="Connections to PostgreSQL per process, at most."
    )

    limit_payload_bytes: Annotated[int, an_integer(1, 67_108_864)] = Field(
        default=1_000_000, description="L2: largest request to a target, in bytes."
    )
    limit_retries: Annotated[int, an_integer(0, 100)] = Field(
        default=5, description="L4: most retries that a job may ask for."
    )
    limit_timeout: Annotated[timedelta, a_duration("1s", "24h")] = Field(
        default=timedelta(minutes=30), description="L5: longest timeout of one call that a job may ask for."
    )
    limit_owner_daily_jobs: Annotated[int, an_integer(1, 1_000_000_000)] = Field(
        default=1_000, description="L1: jobs created per owner and UTC day."
    )
    limit_owner_running: Count = Field(
        default=10, description="L3: executions of one owner that are released and running at once; the rest wait."
    )
    limit_rates: Annotated[tuple[tuple[str, float], ...], PlainValidator(some_rates)] = Field(
        default=(), description="Calls a second that sibling services take, such as `media=50,user=2.5`."
    )
    limit_queue_depth: Count = Field(
        default=10_000, description="L6: due executions handed out per queue; the rest wait."
    )
    past_tolerance: Annotated[timedelta, a_duration("0s", "24h")] = Field(
        default=timedelta(seconds=60), description="How far in the past a requested instant may lie."
    )
    message_retention: Annotated[timedelta, a_duration("1d", "40d")] = Field(
        default=timedelta(days=30), description="How long finished executions of messages and notifications are kept."
    )
    failed_retention: Annotated[timedelta, a_duration("1d", "365d")] = Field(
        default=timedelta(days=30),
        description="How long failed executions stay to be looked at and redriven. Those of messages and notifications "
        "stay until they are sent or cancelled.",
    )

    queues: Annotated[tuple[Queue, ...], PlainValidator(some_queues)] = Field(
        default=(Queue.HIGH, Queue.MEDIUM, Queue.LOW), description="Queues that this worker serves."
    )
    slots_high: Annotated[int, an_integer(1, 10_000)] = Field(
        default=64, description="Calls at once per process from queue high."
    )
    slots_medium: Annotated[int, an_integer(1, 10_000)] = Field(
        default=16, description="Calls at once per process from queue medium."
    )
    slots_low: Annotated[int, an_integer(1, 10_000)] = Field(
        default=16, description="Calls at once per process from queue low."
    )
    engine_capacity: Count = Field(
        default=10_000, description="Ids that the delivery engine holds before its actors wait."
    )
    claim_lead: Moment = Field(
        default=timedelta(milliseconds=20), description="How long before its moment an execution is claimed."
    )
    claim_ahead: Annotated[timedelta, a_duration("0s", "1s")] = Field(
        default=timedelta(milliseconds=100),
        description="How much work, in time at the present pace, is claimed before a slot is free for it.",
    )
    record_gap: Annotated[timedelta, a_duration("0s", "1s")] = Field(
        default=timedelta(milliseconds=50),
        description="While outcomes come one after the other, those of so long are recorded together.",
    )
    look_ahead: Moment = Field(
        default=timedelta(seconds=1), description="How early plans are advanced and may be released."
    )
    sweep_after: Moment = Field(
        default=timedelta(milliseconds=250),
        description="How late a queued execution is before any worker takes it without message.",
    )
    heartbeat: Moment = Field(default=timedelta(milliseconds=1500), description="Between two heartbeats of a worker.")
    worker_ttl: Moment = Field(
        default=timedelta(seconds=6), description="Without a heartbeat for so long a worker counts as lost."
    )
    worker_cutoff: Moment = Field(
        default=timedelta(milliseconds=4500),
        description="Without a renewal for so long a worker cancels its running calls.",
    )
    leader_ttl: Moment = Field(default=timedelta(seconds=3), description="How long leadership lasts without renewal.")
    leader_renew: Moment = Field(default=timedelta(seconds=1), description="Between two renewals of the leader.")
    standby_poll: Moment = Field(
        default=timedelta(milliseconds=500), description="How often a standby looks whether to lead."
    )
    poll_interval: Moment = Field(
        default=timedelta(milliseconds=100),
        description="How often the database is looked at when no notification comes.",
    )
    hot_timeout: Moment = Field(
        default=timedelta(seconds=2), description="Statement timeout of what dispatch waits for."
    )
    maintenance_timeout: Annotated[timedelta, a_duration("1s", "1h")] = Field(
        default=timedelta(seconds=60), description="Statement timeout of everything else."
    )
    redis_timeout: Moment = Field(default=timedelta(milliseconds=200), description="Timeout of a command to Redis.")
    worker_drain: Annotated[timedelta, a_duration("0s", "1h")] = Field(
        default=timedelta(seconds=10), description="How long running calls may end by themselves when a worker stops."
    )

    addresses: Annotated[Mapping[str, str], PlainValidator(some_addresses)] = Field(
        default_factory=dict, description="Address of each sibling service by its name."
    )

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        found = [(names, text) for names, text, holds in _AGREEMENTS if not holds(self)]
        if found:
            raise _DisagreementError(found)
        return self

    def slots(self, queue: Queue) -> int:
        """Calls at once per process from `queue`."""
        return {Queue.HIGH: self.slots_high, Queue.MEDIUM: self.slots_medium, Queue.LOW: self.slots_low}[queue]


def _is_local(address: str) -> bool:
    """Whether only this machine can reach what listens on a checked `host:port`."""
    host, _ = split_address(address)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


#: Settings that have to go together: which, what is expected, and whether it holds.
_AGREEMENTS: Final[tuple[tuple[tuple[str, ...], str, Callable[[Settings], bool]], ...]] = (
    (
        ("heartbeat", "worker_cutoff"),
        "expected less than half of worker_cutoff, so that one lost heartbeat cuts nobody off",
        lambda s: s.heartbeat * 2 < s.worker_cutoff,
    ),
    (
        ("worker_cutoff", "worker_ttl"),
        "expected less than worker_ttl, so that a worker stops before others take over its executions",
        lambda s: s.worker_cutoff < s.worker_ttl,
    ),
    (
        ("leader_renew", "leader_ttl"),
        "expected less than half of leader_ttl, so that one lost renewal changes no leader",
        lambda s: s.leader_renew * 2 < s.leader_ttl,
    ),
    (("standby_poll", "leader_ttl"), "expected less than leader_ttl", lambda s: s.standby_poll < s.leader_ttl),
    (("claim_lead", "look_ahead"), "expected less than look_ahead", lambda s: s.claim_lead < s.look_ahead),
    (
        ("limit_payload_bytes", "max_message_bytes"),
        "expected less than max_message_bytes, since the payload travels inside a message",
        lambda s: s.limit_payload_bytes < s.max_message_bytes,
    ),
    (
        ("engine_capacity", "slots_high", "slots_medium", "slots_low"),
        "expected at least slots_high + slots_medium + slots_low",
        lambda s: s.engine_capacity >= s.slots_high + s.slots_medium + s.slots_low,
    ),
    (
        ("hot_timeout", "maintenance_timeout"),
        "expected at most maintenance_timeout",
        lambda s: s.hot_timeout <= s.maintenance_timeout,
    ),
    (
        ("grpc_listen", "identity", "identity_exposed"),
        "expected a loopback address, or identity=mesh, since whoever reaches it may do all; identity_exposed=true if "
        "that is meant",
        lambda s: s.identity == "mesh" or s.identity_exposed or _is_local(s.grpc_listen),
    ),
    (
        ("policy_file", "identity"),
        "expected the path of a policy, since nobody may do anything without one",
        lambda s: s.identity != "mesh" or s.policy_file is not None,
    ),
)


# --- reading ----------------------------------------------------------------------------------------------------------

#: What Kubernetes sets for a Service (docker links): none of it is meant for us.
_SERVICE_LINK = re.compile(r".*_SERVICE_HOST|.*_SERVICE_PORT(_[A-Z0-9_]+)?|.*_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?")


def env_name(field: str) -> str:
    """The variable of a field of Settings, which is also how the field is called in messages."""
    return PREFIX + field.upper()


def address_variable(service: str) -> str:
    """The variable that holds the address of a sibling."""
    return f"{PREFIX}{service.upper().replace('-', '_')}_ADDRESS"


def default_address(service: str) -> str:
    """Where a sibling is found when no setting says otherwise."""
    return f"{service}-service.whispr.svc.cluster.local:50051"


def load_settings(environ: Mapping[str, str], services: Sequence[str] = ()) -> Settings:
    """The settings that `environ` holds, with the address of each of `services`, such as `messaging`.

    Raises SettingsError with every problem that there is: unknown names (with the nearest known one), values that are
    malformed or out of bounds, and settings that do not go together. Values that may hold a secret are not repeated.
    """
    fields = {env_name(field): field for field in Settings.model_fields if field != "addresses"}
    siblings = {address_variable(service): service for service in services}
    problems: list[str] = []
    values: dict[str, Any] = {}
    addresses = {service: default_address(service) for service in services}
    for name, value in sorted(environ.items()):
        if name in fields:
            values[fields[name]] = value.strip()
        elif name in siblings:
            try:
                addresses[siblings[name]] = check_address(value.strip(), 1)
            except BadValueError as bad:
                problems.append(_told(name, value, bad))
        elif name.startswith(PREFIX) and not _is_foreign(name, value):
            problems.append(_unknown(name, (*fields, *siblings)))
    settings, wrong = _validated(values | {"addresses": addresses}, environ)
    problems += wrong
    for service, _ in () if settings is None or not services else settings.limit_rates:
        if service not in services:
            problems.append(f"{env_name('limit_rates')}: {service} is not a sibling service")
    if settings is None or problems:
        raise SettingsError(sorted(problems))
    return settings


def from_environment(services: Sequence[str] = ()) -> Settings:
    """As load_settings, from the environment of this process."""
    return load_settings(os.environ, services)  # noqa: TID251 - this is the one place that reads the environment


def settings_table(services: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """Every variable with its default as it would be written (empty for none) and its meaning, for the documentation.

    Without `services`, one row stands for all addresses.
    """
    rows = [
        (env_name(name), _written(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
        if name != "addresses"
    ]
    if not services:
        rows.append((f"{PREFIX}<SERVICE>_ADDRESS", default_address("<service>"), "Address of that sibling service."))
    rows += [(address_variable(s), default_address(s), f"Address of the {s} service.") for s in services]
    return rows


def _validated(values: dict[str, Any], environ: Mapping[str, str]) -> tuple[Settings | None, list[str]]:
    """The settings, or what is wrong. Where single values are wrong, the others are still held against each other."""
    problems: list[str] = []
    bad_fields: set[str] = set()
    try:
        return Settings.model_validate(values), []
    except ValidationError as error:
        for item in error.errors():
            cause = item.get("ctx", {}).get("error")
            if item["loc"]:
                field = str(item["loc"][0])
                bad_fields.add(field)
                bad = cause if isinstance(cause, BadValueError) else BadValueError("is not usable", item["msg"])
                problems.append(_told(env_name(field), environ.get(env_name(field), ""), bad))
    try:
        Settings.model_validate({field: value for field, value in values.items() if field not in bad_fields})
    except ValidationError as error:
        for item in error.errors():
            cause = item.get("ctx", {}).get("error")
            if isinstance(cause, _DisagreementError):
                problems += _disagreements(cause, values, bad_fields)
    return None, problems


def _disagreements(cause: _DisagreementError, values: Mapping[str, Any], bad_fields: set[str]) -> list[str]:
    told = []
    for names, text in cause.found:
        if bad_fields.intersection(names):
            continue  # one of them is wrong by itself, and that is told already
        now = ", ".join(f"{name}={_written(values.get(name, Settings.model_fields[name].default))}" for name in names)
        told.append(f"{env_name(names[0])}: does not go with the others ({now}); {text}")
    return told


def _told(name: str, value: str, bad: BadValueError) -> str:
    # Whatever holds an @ may be a URL with a password, in whichever variable it was put by mistake.
    secret = name.removeprefix(PREFIX).lower() in SECRET_FIELDS or "@" in value
    shown = "the value (not shown)" if secret else repr(value if len(value) <= 60 else value[:57] + "…")
    return f"{name}: {shown} {bad.problem}; expected {bad.expected}"


def _unknown(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only needed when something is wrong

    near = get_close_matches(name.upper(), known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else "expected a documented setting"
    return f"{name}: is not a setting; {hint}"


def _is_foreign(name: str, value: str) -> bool:
    if name.startswith(TEST_PREFIX) or _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and re.match("(tcp|udp|sctp)://", value) is not None


def _written(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case timedelta():
            return format_duration(value)
        case tuple():
            return ",".join(str(item).lower() for item in value)
        case _:
            return str(value)
