"""The hint that something is due soon. It is speed, never correctness: without it the next poll finds the work."""

from __future__ import annotations

from datetime import timedelta

#: The channel of NOTIFY.
CHANNEL = "whispr_due"
#: What the notification says when the leader has resigned: others need not wait for their next look.
LEADERLESS = "leaderless"
#: Only what is due this soon is worth a hint: a notification costs a lock that all commits share.
NEAR = timedelta(seconds=2)
