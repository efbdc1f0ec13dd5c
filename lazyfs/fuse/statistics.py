"""What a mount counts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Statistics:
    """Counters of one mount, changed by the event loop alone."""

    started: float = field(default_factory=time.time)
    lookups: int = 0
    opens: int = 0
    opendirs: int = 0
    reads: int = 0
    bytes_read: int = 0
    errors: int = 0
    """Answers with EIO."""
    last_error: int = 0
    """Unix time of the last one."""
    open_files: int = 0
    open_directories: int = 0
    prefetched: int = 0
    """Objects fetched ahead of a reader."""
    remounts: int = 0
    """Revisions applied since the start."""
