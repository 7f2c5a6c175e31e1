"""Shared code of the seven scripts, in rooms; a room may also import what its own imports may import."""

import os
import sys

if sys.platform == "win32":  # before a room imports what Windows lacks, such as fcntl
    name = os.path.basename(sys.argv[0])
    raise SystemExit(f"{name}: Windows is not supported, run it in WSL (Windows Subsystem for Linux)")
