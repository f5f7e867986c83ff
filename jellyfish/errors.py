"""Errors, one tree:

JellyfishError
├── ConfigError      a config, zoo, host or trace file says something that cannot be used
├── DataError        an asset, video, weights or result file is missing, wrong or cut short
├── ProtocolError    a message off the wire cannot be understood
├── RejectedError    the server refuses a registration or a token
├── DeviceError      a device or its worker process failed
└── RunError         a run on the testbed failed: server, client, host or lock

The text of each names the file, key, host or client, and says what to do.
"""


class JellyfishError(Exception):
    """Base of every error that Jellyfish raises on purpose."""


class ConfigError(JellyfishError):
    """A configuration value cannot be used; the text names the file and key."""


class DataError(JellyfishError):
    """An input or result file is missing, wrong or cut short; the text names it."""


class ProtocolError(JellyfishError):
    """A message off the wire cannot be understood."""


class RejectedError(JellyfishError):
    """The server refuses a registration or a token; the text says why."""


class DeviceError(JellyfishError):
    """A device or its worker process failed."""


class RunError(JellyfishError):
    """A run on the testbed failed; the text names the process or host and the cause."""
