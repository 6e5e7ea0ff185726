"""Use cases of shared calendars."""

from __future__ import annotations

from dataclasses import replace

from scheduling.domain import recurrence
from scheduling.domain.calendar import SharedCalendar
from scheduling.domain.errors import AlreadyExists, Conflict, NotFound, Violation
from scheduling.domain.etag import etag as etag_of
from scheduling.domain.ids import is_valid_id, uuid7
from scheduling.domain.paging import PageToken, page_size
from scheduling.operations import checks
from scheduling.operations.drafts import CalendarDraft
from scheduling.operations.ports import CalendarChange, Page, Ports

RESOURCE = "Calendar"
_BOUND = {"calendars": ""}


async def create_calendar(
    ports: Ports, calendar_id: str, draft: CalendarDraft, *, validate_only: bool = False
) -> SharedCalendar:
    """Stores a calendar. Raises InvalidRequest, AlreadyExists."""
    now = ports.clock.now()
    calendar = SharedCalendar(
        uid=uuid7(now),
        calendar_id=calendar_id,
        display_name=draft.display_name,
        exclusions=draft.exclusions,
        time_zone=draft.time_zone or None,
        revision=1,
        create_time=now,
        update_time=now,
    )
    violations = _check(calendar)
    if not is_valid_id(calendar_id):
        violations.append(
            Violation("calendar_id", "expected a to z first, then a to z, 0 to 9 and -, at most 63", "INVALID_ID")
        )
    checks.raise_if(violations)
    if not validate_only:
        return await ports.store.create_calendar(calendar)
    if await ports.store.get_calendar(calendar_id) is not None:
        raise AlreadyExists(f"{calendar.name} exists already", resource_type=RESOURCE, name=calendar.name)
    return calendar


async def get_calendar(ports: Ports, calendar_id: str) -> SharedCalendar:
    """The calendar. Raises NotFound."""
    calendar = await ports.store.get_calendar(calendar_id)
    if calendar is None:
        raise NotFound(RESOURCE, f"calendars/{calendar_id}")
    return calendar


async def list_calendars(ports: Ports, size: int, token_text: str) -> Page[SharedCalendar]:
    """A page of the calendars, by id. Raises InvalidRequest."""
    token = PageToken.decode(token_text, _BOUND)
    after = "" if token is None else token.read(lambda position: str(position[0]))
    found, position = await ports.store.list_calendars(after, page_size(size))
    return Page(found, "" if position is None else PageToken(position).encode(_BOUND))


async def update_calendar(
    ports: Ports,
    calendar_id: str,
    draft: CalendarDraft,
    mask: frozenset[str],
    etag: str = "",
    *,
    validate_only: bool = False,
) -> SharedCalendar:
    """Changes a calendar; the plans of schedules that use it follow. Raises InvalidRequest, NotFound, Conflict."""
    for _ in range(3):
        calendar = await get_calendar(ports, calendar_id)
        _check_etag(calendar, etag)
        change = CalendarChange(
            display_name=draft.display_name if "display_name" in mask else None,
            exclusions=draft.exclusions if "exclusions" in mask else None,
            time_zone=draft.time_zone if "time_zone" in mask else None,
        )
        changed = replace(
            calendar,
            display_name=calendar.display_name if change.display_name is None else change.display_name,
            exclusions=calendar.exclusions if change.exclusions is None else change.exclusions,
            time_zone=calendar.time_zone if change.time_zone is None else change.time_zone or None,
        )
        checks.raise_if(_check(changed))
        if validate_only:
            return changed
        updated = await ports.store.update_calendar(calendar, change)
        if updated is not None:
            return updated
    raise Conflict(f"calendars/{calendar_id} is being changed by others; read it again and repeat")


async def delete_calendar(ports: Ports, calendar_id: str, etag: str = "", *, force: bool = False) -> None:
    """Deletes a calendar. Raises NotFound, Conflict, WrongState while it is used, unless `force` takes it out."""
    for _ in range(3):
        calendar = await get_calendar(ports, calendar_id)
        _check_etag(calendar, etag)
        if await ports.store.delete_calendar(calendar, force=force):
            return
    raise Conflict(f"calendars/{calendar_id} is being changed by others; read it again and repeat")


def _check_etag(calendar: SharedCalendar, etag: str) -> None:
    if etag and etag != etag_of(calendar.uid, calendar.revision):
        raise Conflict(f"{calendar.name} has changed since it was read; read it again and repeat")


def _check(calendar: SharedCalendar) -> list[Violation]:
    return recurrence.check_shared_calendar(calendar.as_exclusion())
