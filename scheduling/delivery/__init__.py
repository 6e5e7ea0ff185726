"""Calls siblings: the target table, channels, and the engine that claims, calls at the moment, and records.

The room knows the generated stubs and gRPC's client side, the domain and the ports of the operations. It knows
nothing of SQL, Redis or Dramatiq: what it needs of the store is a Protocol here, and ids are handed to it.
"""
