"""Shaping without privileges: a relay whose rate follows a trace."""
