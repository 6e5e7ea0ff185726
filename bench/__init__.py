"""Benchmarks: real processes, real PostgreSQL and Valkey, a real sibling. `python -m bench --help` lists them."""
