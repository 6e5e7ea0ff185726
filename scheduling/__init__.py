"""Whispr scheduling: decides when things happen for a family of microservices, and makes them happen."""

__version__ = "0.1.0"
