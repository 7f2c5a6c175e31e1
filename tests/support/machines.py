"""Further machines, as far as the network goes: namespaces, each at the other end of a cable from us. Root only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A machine: what it is called, its address, and ours on the cable to it."""

    name: str
    address: str
    ours: str

    @property
    def inside(self) -> list[str]:
        """What goes before a command that is to run there."""
        return ["ip", "netns", "exec", self.name]

    def unplug(self) -> None:
        """Pull the cable out at its end: what we send is lost, and nobody says so."""
        run(*self.inside, "ip", "link", "set", "cable", "down")

    def plug_in(self) -> None:
        run(*self.inside, "ip", "link", "set", "cable", "up")
        run(*self.inside, "ip", "route", "add", "default", "via", self.ours)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def machines(number: int) -> Iterator[list[Machine]]:
    """Yield so many machines, which see us, by any of our addresses, and not each other."""
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
