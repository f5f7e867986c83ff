"""Seeded faults in virtual time over the real service, engine, sessions and child protocols."""
