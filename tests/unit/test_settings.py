"""Settings: what is read, what is refused, and that everything wrong is told at once."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scheduling.domain.target import Queue
from scheduling.setting_values import format_duration, parse_duration, split_address
from scheduling.settings import (
    Settings,
    SettingsError,
    from_environment,
    load_settings,
    settings_table,
)


def problems(environ: dict[str, str], *services: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, services)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = load_settings({})
    assert (settings.limit_payload_bytes, settings.limit_retries, settings.limit_owner_daily_jobs) == (
        1_000_000,
        5,
        1000,
    )
    assert settings.limit_queue_depth == 10_000
    assert settings.limit_timeout == timedelta(minutes=30)
    assert settings.default_time_zone == "UTC"
    assert settings.database_url is None
    assert settings == Settings()


def test_every_kind_of_value_is_read_from_text() -> None:
    settings = load_settings(
        {
            "SCHEDULING_DATABASE_URL": "postgresql://user:pw@db:5432/scheduling",
            "SCHEDULING_REDIS_URL": "rediss://cache:6380/0",
            "SCHEDULING_DATA_DIR": "/var/lib/scheduling",
            "SCHEDULING_DEFAULT_TIME_ZONE": "Europe/Paris",
            "SCHEDULING_LOG_LEVEL": "WARNING",
            "SCHEDULING_QUEUES": "low, high",
            "SCHEDULING_SLOTS_HIGH": " 128 ",
            "SCHEDULING_LIMIT_PAYLOAD_BYTES": "2_000_000",
            "SCHEDULING_HEARTBEAT": "0.25s",
            "SCHEDULING_GRPC_LISTEN": "[::1]:0",
            "SCHEDULING_METRICS_LISTEN": "",
            "PATH": "/bin",
        }
    )
    assert settings.database_url == "postgresql://user:pw@db:5432/scheduling"
    assert settings.redis_url == "rediss://cache:6380/0"
    assert settings.data_dir == Path("/var/lib/scheduling")
    assert settings.default_time_zone == "Europe/Paris"
    assert settings.log_level == "warning"
    assert settings.queues == (Queue.LOW, Queue.HIGH)
    assert settings.slots(Queue.HIGH) == 128
    assert settings.limit_payload_bytes == 2_000_000
    assert settings.heartbeat == timedelta(milliseconds=250)
    assert split_address(settings.grpc_listen) == ("::1", 0)
    assert settings.metrics_listen == ""


def test_all_problems_are_told_together_one_line_each() -> None:
    told = problems(
        {
            "SCHEDULING_CLAIM_LED": "20ms",
            "SCHEDULING_HEARTBEAT": "20",
            "SCHEDULING_SLOTS_LOW": "0",
            "SCHEDULING_LEADER_RENEW": "2s",
            "SCHEDULING_MESSAGING_ADDRESS": "messaging",
        },
        "messaging",
    )
    assert [line.partition(":")[0] for line in told] == [
        "SCHEDULING_CLAIM_LED",
        "SCHEDULING_HEARTBEAT",
        "SCHEDULING_LEADER_RENEW",
        "SCHEDULING_MESSAGING_ADDRESS",
        "SCHEDULING_SLOTS_LOW",
    ]
    assert "did you mean SCHEDULING_CLAIM_LEAD?" in told[0]
    assert "'20' is not a duration; expected" in told[1]
    assert "leader_renew=2s, leader_ttl=3s" in told[2]
    assert "expected host:port" in told[3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://root:hunter2@db/x"),
        ("DATABASE_URL", "postgresql://"),
        ("DATABASE_URL", "postgresql://[::hunter2"),
        ("REDIS_URL", "http://:hunter2@cache"),
        ("GRPC_LISTEN", "user:hunter2@host:99999"),
        ("DATABSE_URL", "postgresql://user:hunter2@db/x"),
    ],
)
def test_a_secret_is_never_repeated(name: str, value: str) -> None:
    (line,) = problems({f"SCHEDULING_{name}": value})
    assert "hunter2" not in line
    assert line.startswith(f"SCHEDULING_{name}: ")
    assert "hunter2" not in repr(Settings(database_url="postgresql://user:hunter2@db/x"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEFAULT_TIME_ZONE", "Europe"),
        ("DEFAULT_TIME_ZONE", "Mars/Olympus"),
        ("DEFAULT_TIME_ZONE", "../etc/passwd"),
        ("DEFAULT_TIME_ZONE", "x" * 5000),
        ("PRINCIPAL", "root"),
        ("GRPC_LISTEN", "50051"),
        ("GRPC_LISTEN", "localhost:65536"),
        ("METRICS_LISTEN", "localhost"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("QUEUES", ""),
        ("QUEUES", "high,high"),
        ("QUEUES", "high,urgent"),
        ("LIMIT_TIMEOUT", "30"),
        ("LIMIT_TIMEOUT", "-5m"),
        ("LIMIT_TIMEOUT", "999999999999d"),
        ("LIMIT_RETRIES", "5.0"),
        ("LIMIT_RETRIES", "١"),
        ("ENVIRONMENT", "Prod Uction"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(name: str, value: str) -> None:
    (line,) = problems({f"SCHEDULING_{name}": value})
    assert line.startswith(f"SCHEDULING_{name}: ")
    assert "; expected " in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"SCHEDULING_WORKER_CUTOFF": "6s"}, "SCHEDULING_WORKER_CUTOFF"),
        ({"SCHEDULING_HEARTBEAT": "2250ms"}, "SCHEDULING_HEARTBEAT"),
        ({"SCHEDULING_LEADER_TTL": "2s"}, "SCHEDULING_LEADER_RENEW"),
        ({"SCHEDULING_STANDBY_POLL": "3s"}, "SCHEDULING_STANDBY_POLL"),
        ({"SCHEDULING_CLAIM_LEAD": "1s"}, "SCHEDULING_CLAIM_LEAD"),
        ({"SCHEDULING_LIMIT_PAYLOAD_BYTES": "8388608"}, "SCHEDULING_LIMIT_PAYLOAD_BYTES"),
        ({"SCHEDULING_ENGINE_CAPACITY": "95"}, "SCHEDULING_ENGINE_CAPACITY"),
        ({"SCHEDULING_MAINTENANCE_TIMEOUT": "1s"}, "SCHEDULING_HOT_TIMEOUT"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(environ: dict[str, str], variable: str) -> None:
    (line,) = problems(environ)
    assert line.startswith(f"{variable}: does not go with the others (")


def test_a_disagreement_with_a_wrong_value_is_not_told_twice() -> None:
    (line,) = problems(
        {"SCHEDULING_WORKER_CUTOFF": "soon", "SCHEDULING_WORKER_TTL": "4s", "SCHEDULING_HEARTBEAT": "1s"}
    )
    assert line.startswith("SCHEDULING_WORKER_CUTOFF: 'soon'")


def test_siblings_have_an_address_each_and_others_are_unknown() -> None:
    environ = {"SCHEDULING_USER_DATA_ADDRESS": "localhost:7001"}
    settings = load_settings(environ, ["messaging", "user-data"])
    assert dict(settings.addresses) == {
        "messaging": "messaging-service.whispr.svc.cluster.local:50051",
        "user-data": "localhost:7001",
    }
    (line,) = problems(environ, "messaging")
    assert "is not a setting" in line


def test_variables_of_the_tests_and_of_kubernetes_are_passed_over() -> None:
    load_settings(
        {
            "SCHEDULING_TEST_DATABASE_URL": "postgresql://x",
            "SCHEDULING_SERVICE_HOST": "10.0.0.1",
            "SCHEDULING_SERVICE_PORT": "50051",
            "SCHEDULING_SERVICE_SERVICE_PORT_GRPC": "50051",
            "SCHEDULING_PORT": "tcp://10.0.0.1:50051",
            "SCHEDULING_PORT_50051_TCP_ADDR": "10.0.0.1",
        }
    )
    assert len(problems({"SCHEDULING_PORT": "50051"})) == 1


def test_settings_are_frozen_and_checked_when_built_directly() -> None:
    settings = Settings(heartbeat=timedelta(seconds=1))
    with pytest.raises(ValidationError):
        settings.heartbeat = timedelta(seconds=2)
    with pytest.raises(ValidationError):
        Settings(worker_cutoff=timedelta(seconds=7))
    with pytest.raises(ValidationError):
        Settings(slots_high=True)
    with pytest.raises(ValidationError):
        Settings(typo=1)  # type: ignore[call-arg]


def test_the_environment_of_the_process_is_read_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULING_SLOTS_LOW", "3")
    assert from_environment(["auth"]).slots_low == 3


def test_the_table_has_a_row_for_each_setting_and_its_defaults_can_be_set() -> None:
    rows = settings_table(["messaging"])
    assert len({name for name, _, _ in rows}) == len(Settings.model_fields) - 1 + 1
    assert all(description.endswith(".") for _, _, description in rows)
    assert load_settings({name: default for name, default, _ in rows}, ["messaging"]) == load_settings(
        {}, ["messaging"]
    )
    assert ("SCHEDULING_CLAIM_LEAD", "20ms") in [row[:2] for row in rows]
    assert settings_table()[-1][0] == "SCHEDULING_<SERVICE>_ADDRESS"


@given(st.integers(0, 3650 * 86_400_000_000).map(lambda micros: timedelta(microseconds=micros)))
def test_every_duration_survives_its_text(span: timedelta) -> None:
    assert parse_duration(format_duration(span)) == span


@given(st.text(max_size=30))
def test_reading_a_duration_gives_a_span_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= timedelta(0)


@given(st.sampled_from(sorted(Settings.model_fields)), st.text(max_size=30))
def test_no_value_gets_past_the_settings_error(field: str, value: str) -> None:
    count = 1
    try:
        load_settings({f"SCHEDULING_{field.upper()}": value})
    except SettingsError as error:
        count = len(error.problems)
    assert count == 1


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:50051", "scheduling:50051"])
def test_nobody_listens_beyond_this_machine_without_identity_unless_that_is_meant(listen: str) -> None:
    (problem,) = problems({"SCHEDULING_GRPC_LISTEN": listen})
    assert problem.startswith("SCHEDULING_GRPC_LISTEN: ")
    assert "identity=mesh" in problem
    mesh = {"SCHEDULING_IDENTITY": "mesh", "SCHEDULING_POLICY_FILE": "/etc/scheduling/policy.toml"}
    load_settings(mesh | {"SCHEDULING_GRPC_LISTEN": listen})
    load_settings({"SCHEDULING_GRPC_LISTEN": listen, "SCHEDULING_IDENTITY_EXPOSED": "true"})


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_this_machine_alone_needs_no_identity(listen: str) -> None:
    assert load_settings({"SCHEDULING_GRPC_LISTEN": listen}).identity == "development"


def test_mesh_identity_needs_a_policy() -> None:
    (problem,) = problems({"SCHEDULING_IDENTITY": "mesh"})
    assert problem.startswith("SCHEDULING_POLICY_FILE: ")


def test_identity_settings_are_read_and_checked() -> None:
    settings = load_settings({"SCHEDULING_IDENTITY_TRUSTED": "127.0.0.1, 0:0::6", "SCHEDULING_IDENTITY_EXPOSED": "no"})
    assert (settings.identity_trusted, settings.identity_exposed) == (("127.0.0.1", "::6"), False)
    wrong = {
        "SCHEDULING_IDENTITY": "istio",
        "SCHEDULING_IDENTITY_SELF": "scheduling-service",
        "SCHEDULING_IDENTITY_TRUSTED": "localhost",
        "SCHEDULING_IDENTITY_EXPOSED": "maybe",
    }
    assert [problem.partition(":")[0] for problem in problems(wrong)] == sorted(wrong)
