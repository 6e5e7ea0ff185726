"""Rings and runs the scheduler, and passes ids on: the only room that knows Dramatiq and Redis.

Redis is an accelerator here and never the truth: every message may be lost, late or double. When, and whether again, is
decided in PostgreSQL only. The room knows the domain and Protocols of what it drives; it never calls a sibling.
"""
