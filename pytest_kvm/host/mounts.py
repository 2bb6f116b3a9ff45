"""On which kind of file system is a file?"""

from __future__ import annotations

import re
from pathlib import Path


def filesystem(descriptor: int) -> str:
    """Return the type of the file system that an open file is on, as /proc/filesystems has it (proc(5)).

    It is an empty text when the kernel does not tell.
    """
    mount = re.search(r"^mnt_id:\s*(\d+)", Path(f"/proc/self/fdinfo/{descriptor}").read_text(), re.MULTILINE)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if mount is not None and fields[0] == mount[1]:
            return fields[fields.index("-") + 1]
    return ""
