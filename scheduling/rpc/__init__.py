"""The API server: gRPC on one side, `operations` on the other.

A call travels through the interceptors (`interceptors.py`: one tuple, outermost first) to a servicer method of three to
five lines: read the request (`reading.py`, proto to domain), call one operation, write the answer (`mapping.py`, domain
to proto). Both have a part of their own for schedules, calendars and backfills. What goes wrong on the way is raised as
a `SchedulingError` and turned into a code with google.rpc details in one table (`errors.py`). `server.py` builds the
server with health, reflection and channelz, and stops it politely.

- `call.py` is what is known about the call that is being served; `authentication.py` says who makes it.
- `names.py` and `values.py` read resource names, instants, durations, dates, enums and packed messages; `masks.py`
  reads update masks, `timing_reading.py` everything that a schedule can say about when.
- `rules.py` checks the field rules of the protos; `wire.py` finds what parsing hides: two members of one oneof.

It must not know how anything is stored, when it is dispatched or how a target is called: of the other rooms it imports
`domain`, `operations` and `telemetry`, and `generated` for the messages; never `storage`, `dispatch` or `delivery`. It
decides nothing that needs the database, the clock or the catalogue of targets: such checks stand in `operations`.
"""
