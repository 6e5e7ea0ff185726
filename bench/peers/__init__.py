"""The same work done by other tools, for comparison: a message or row for each call, and a handler that makes it."""
