"""Values and rules: jobs, schedules, executions, their life, time, retry, limits, errors.

Pure: no I/O, no clock of its own, no knowledge of gRPC, SQL, Dramatiq or Redis. Everything else may import this
room; it imports nothing of ours but itself.
"""
