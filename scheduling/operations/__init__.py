"""What the service can do: one function per use case.

Each takes the ports it works with and values of the domain, and returns values of the domain or raises one of
`domain.errors`. Nothing here knows of gRPC, SQL, Dramatiq or Redis.
"""
