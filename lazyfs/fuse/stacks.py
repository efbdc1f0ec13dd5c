"""What every thread and every trio task of this process is doing."""

from __future__ import annotations

import sys
import threading
import traceback
from types import FrameType

import trio


def dump_stacks() -> str:
    """Stacks of all threads and tasks; to be called in the event loop."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        _format(f"thread {names.get(ident, ident)}", traceback.extract_stack(frame))
        for ident, frame in sys._current_frames().items()
    ]
    return "\n".join(parts + [_format(f"task {task.name}", _stack(task)) for task in _tasks()])


def _format(title: str, stack: traceback.StackSummary) -> str:
    return f"{title}:\n{''.join(stack.format())}"


def _tasks() -> list[trio.lowlevel.Task]:
    """All tasks, parents before their children."""
    root = trio.lowlevel.current_root_task()
    found, queue = [], [root] if root is not None else []
    while queue:
        task = queue.pop()
        found.append(task)
        queue += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


def _stack(task: trio.lowlevel.Task) -> traceback.StackSummary:
    frames: list[tuple[FrameType, int]] = list(task.iter_await_frames())
    return traceback.StackSummary.extract(iter(frames))
