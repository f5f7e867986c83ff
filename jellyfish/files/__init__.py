"""Formats on disk: the door between the decisions and files."""
