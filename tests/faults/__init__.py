"""Faults of every kind: one world of processes for each broker, stopped after the last case, for it would slow the other tests."""
