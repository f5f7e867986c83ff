"""`python -m tests.soak.child MODULE ARGUMENTS`: run a module, and end when this one's parent does.

Set here and not between fork and exec: gRPC's threads would make a fork of the soak unsafe.
"""

from __future__ import annotations

import runpy
import sys

from client.linux import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
