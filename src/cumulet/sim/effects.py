"""Deaths: what a test kills before or after each lasting effect of the code under test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Crash(BaseException):
    """The process died.  A BaseException, so that no code under test survives it."""


class Impossible(BaseException):
    """A law was broken: a server on two hosts, a guest on a port that is not wired.  No loop tries that again."""


class Effects:
    """Counts every lasting change; dies before or after the chosen one; runs something in between."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.crash_at: tuple[int, str] | None = None
        self.interrupt_at: int | None = None
        self.interrupt: Callable[[], None] = lambda: None
        self.quiet = False

    @contextmanager
    def effect(self, name: str) -> Iterator[None]:
        self.before(name)
        yield
        self.after(name)

    def before(self, name: str) -> None:
        if not self.quiet and self.crash_at == (len(self.log), "before"):
            self.crash_at = None
            raise Crash(name)

    def after(self, name: str) -> None:
        if self.quiet:
            return
        number = len(self.log)
        self.log.append(name)
        if self.crash_at == (number, "after"):
            self.crash_at = None
            raise Crash(name)
        if self.interrupt_at == number:
            self.interrupt_at = None
            self.interrupt()
