"""Who may be asked now: at most so many connections to a host, pauses it asks for, retries that are due.

Threads take the next task that may start; a task that has to wait holds no thread, and other hosts' go on.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

Task = TypeVar("Task")


@dataclass(slots=True)
class Host:
    """One host (with scheme and port): its limit, its pause, and the tasks that wait for it."""

    limit: int
    allowed: float  # connections now; after a pause 1, and one more a round until the limit
    active: int = 0
    asked_before: int = 0  # of those, the ones that began before the last pause
    paused_until: float = 0.0
    closed: bool = False  # it asked for a pause longer than we wait: nothing is asked of it any more

    def may_start(self, now: float) -> bool:
        return self.closed or (self.active < int(self.allowed) and now >= self.paused_until)

    def done(self, *, well: bool) -> None:
        """Let the rate come back: one connection more after each round of good answers."""
        self.active -= 1
        if self.asked_before:
            self.asked_before -= 1
        elif well:
            self.allowed = min(self.limit, self.allowed + 1 / self.allowed)

    def pause(self, until: float) -> None:
        """Ask nothing until then, and begin again with a single connection."""
        self.paused_until = max(self.paused_until, until)
        self.allowed = 1.0
        self.asked_before = self.active


@dataclass(slots=True)
class _Line(Generic[Task]):
    host: Host
    ready: deque[Task] = field(default_factory=deque)


class Schedule(Generic[Task]):
    """The tasks of one process, by host; safe to use from many threads. Times are time.monotonic()."""

    def __init__(self, max_per_host: int) -> None:
        self.max_per_host = max_per_host
        self.changed = threading.Condition()
        self.lines: dict[str, _Line[Task]] = {}  # every host met
        self.waiting: dict[str, _Line[Task]] = {}  # those with tasks that are ready
        self.later: list[tuple[float, int, str, Task]] = []  # a heap of tasks that are due at a time
        self.numbers = count()
        self.is_closed = False

    def put(self, name: str, task: Task, delay: float = 0.0, *, only_now: bool = False) -> float:
        """Add a task for the host `name`, to start after `delay` seconds at the earliest.

        With `only_now` one that has to wait, also for a pause to end, is not added; return for how long.
        """
        with self.changed:
            now = time.monotonic()
            if only_now:
                host = self._line(name).host
                wait = max(delay, 0.0 if host.closed else host.paused_until - now)
                if wait > 0:
                    return wait
            if delay > 0:
                heappush(self.later, (now + delay, next(self.numbers), name, task))
            else:
                self._ready(name, task)
            self.changed.notify()
            return 0.0

    def close(self) -> None:
        """Have no task taken any more."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def take(self) -> tuple[Host, Task] | None:
        """Return the next task that may start and its host, whose connections it counts against.

        None when the schedule is closed.
        """
        with self.changed:
            while not self.is_closed:
                now = time.monotonic()
                while self.later and self.later[0][0] <= now:
                    _, _, name, task = heappop(self.later)
                    self._ready(name, task)
                for name, line in self.waiting.items():
                    if line.host.may_start(now):
                        task = line.ready.popleft()
                        line.host.active += 1
                        del self.waiting[name]
                        if line.ready:
                            self.waiting[name] = line  # to the end: hosts take turns
                        return line.host, task
                self.changed.wait(self._seconds_to_next(now))
            return None

    def done(self, host: Host, *, well: bool) -> None:
        """Give back the connection that `take` counted."""
        with self.changed:
            host.done(well=well)
            self.changed.notify()

    def pause(self, name: str, until: float) -> None:
        """Pause a host for everyone; an infinite time closes it."""
        with self.changed:
            host = self._line(name).host
            if until == float("inf"):
                host.closed = True
            else:
                host.pause(until)
            self.changed.notify_all()

    def take_paused(self, name: str) -> list[Task]:
        """Return the tasks that wait for a host, unless it is closed: those are soon over."""
        with self.changed:
            if self._line(name).host.closed or name not in self.waiting:
                return []
            line = self.waiting.pop(name)
            tasks = list(line.ready)
            line.ready.clear()
            return tasks

    def _line(self, name: str) -> _Line[Task]:
        line = self.lines.get(name)
        if line is None:
            line = self.lines[name] = _Line(Host(self.max_per_host, float(self.max_per_host)))
        return line

    def _ready(self, name: str, task: Task) -> None:
        line = self._line(name)
        line.ready.append(task)
        self.waiting[name] = line

    def _seconds_to_next(self, now: float) -> float | None:
        times = [line.host.paused_until for line in self.waiting.values() if line.host.paused_until > now]
        if self.later:
            times.append(self.later[0][0])
        return max(0.0, min(times) - now) if times else None
