"""Requests that every caller may send and that are refused, with how."""
