"""The only room that speaks SQL: tables, statements, migrations, and rows turned into values of the domain.

Hot statements are hand-written, set-based and guarded: each says in its docstring which index it uses and what it
locks, and runs as one autocommitted round trip. Everything else is SQLAlchemy Core. The room knows the domain and
the ports of the operations; it knows nothing of gRPC, Dramatiq or Redis.
"""
