"""Network namespaces that act as further machines, each connected by its own cable. Root only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A machine: its name, its address, and our address on the cable to it."""

    name: str
    address: str
    ours: str

    @property
    def inside(self) -> list[str]:
        """Return the prefix of a command that runs there."""
        return ["ip", "netns", "exec", self.name]

    def unplug(self) -> None:
        """Cut the cable at its end: packets are lost without an error."""
        run(*self.inside, "ip", "link", "set", "cable", "down")

    def plug_in(self) -> None:
        run(*self.inside, "ip", "link", "set", "cable", "up")
        run(*self.inside, "ip", "route", "add", "default", "via", self.ours)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def machines(number: int) -> Iterator[list[Machine]]:
    """Yield machines that reach us at any of our addresses, and not each other."""
    with ExitStack() as stack:
        yield [stack.enter_context(_machine(index)) for index in range(number)]


@contextmanager
def _machine(index: int) -> Iterator[Machine]:
    name = f"oi{os.getpid()}n{index}"[-13:]
    network = f"10.213.{os.getpid() % 250}.{index * 4}"  # four addresses a cable
    start = network.rpartition(".")[0]
    machine = Machine(name, f"{start}.{index * 4 + 2}", f"{start}.{index * 4 + 1}")
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", f"{name}v", "type", "veth", "peer", "name", "cable", "netns", name)
        run("ip", "addr", "add", f"{machine.ours}/30", "dev", f"{name}v")
        run("ip", "link", "set", f"{name}v", "up")
        run(*machine.inside, "ip", "link", "set", "lo", "up")
        run(*machine.inside, "ip", "addr", "add", f"{machine.address}/30", "dev", "cable")
        run(*machine.inside, "ip", "link", "set", "cable", "up")
        run(*machine.inside, "ip", "route", "add", "default", "via", machine.ours)
        yield machine
    finally:
        subprocess.run(["ip", "link", "del", f"{name}v"], capture_output=True, check=False)
        run("ip", "netns", "del", name)
