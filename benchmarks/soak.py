"""All seven steps on 50,000 images with faults: memory and open files over time, and the counts.

    .venv/bin/python -m benchmarks.soak
    .venv/bin/python -m benchmarks.soak --docs_directory docs     writes docs/soak.md and docs/soak.svg

Makes a sample of --images images, three in five of them in the train split with boxes, serves it on this
machine in a process of its own, runs make_dataset.sh on it, and measures once a second the processes of the
current step: proportional set size (a page shared by n processes counts as 1/n in each) and file
descriptors. Linux only. About ten minutes and 5 GB of disk on two cores.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from sample.make import main as make_sample

ROOT = Path(__file__).resolve().parent.parent
NAMES = (
    "get_dataset.sh", "translate_class_descriptions.py", "process_metadata.py", "download_images.py",
    "process_images.py", "create_label_map.py", "record_maker.py",
)  # fmt: skip
SECONDS = 1.0  # between two measurements


@dataclass
class Step:
    """One step of the run: a measurement a second of its processes, and its counts."""

    name: str
    begun: float
    looks: list[tuple[float, float, int]] = field(default_factory=list)  # seconds, MB, open files
    ended: float = 0.0
    counts: str = ""


def descendants(pid: int) -> list[int]:
    """Return a process and its descendants, without those that end meanwhile."""
    found = [pid]
    for parent in found:
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                found += map(int, Path(f"/proc/{parent}/task/{thread}/children").read_text().split())
        except OSError:
            pass
    return found


def look(pid: int) -> tuple[float, int]:
    """Return the memory in MB and the open files of a process and its descendants."""
    memory = files = 0
    for process in descendants(pid):
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    memory += int(line.split()[1])
            files += len(os.listdir(f"/proc/{process}/fd"))
        except OSError:
            pass
    return memory / 1024, files


def watch(process: subprocess.Popen[str], steps: list[Step], begun: float) -> None:
    while process.poll() is None:
        memory, files = look(process.pid)
        if steps:
            steps[-1].looks.append((time.monotonic() - begun, memory, files))
        time.sleep(SECONDS)


def run(addresses: dict[str, str], folder: Path) -> list[Step]:
    """Run make_dataset.sh and return its steps."""
    settings = {
        "PYTHON": sys.executable, "DATA": str(folder / "data"), "OUT": str(folder / "out"),
        "GET_FLAGS": "--image_labels",
    }  # fmt: skip
    steps: list[Step] = []
    begun = time.monotonic()
    process = subprocess.Popen(
        ["sh", "make_dataset.sh"], cwd=ROOT, env={**os.environ, **addresses, **settings}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    watcher = threading.Thread(target=watch, args=(process, steps, begun))
    watcher.start()
    assert process.stderr
    said = []
    for line in process.stderr:
        now = time.monotonic() - begun
        said.append(line)
        words = line.split()
        if line.startswith("== step "):
            if steps:
                steps[-1].ended = now
            steps.append(Step(NAMES[int(words[2]) - 1], now))
        elif line.startswith("  step "):
            name = NAMES[int(words[1].rstrip(":")) - 1]
            next(step for step in steps if step.name == name).counts = " ".join(words[2:])
    watcher.join()
    if process.returncode:
        sys.exit("".join(said))
    steps[-1].ended = time.monotonic() - begun
    return steps


def growth(step: Step) -> str:
    """Return the memory of the last quarter of a step divided by that of the second, if it lasts."""
    memory = [megabytes for _, megabytes, _ in step.looks]
    quarter = len(memory) // 4
    if quarter < 5:
        return "-"
    return f"{statistics.median(memory[-quarter:]) / statistics.median(memory[quarter : 2 * quarter]):.2f}"


def table(steps: list[Step]) -> list[str]:
    lines = [
        "| step | seconds | peak MB | last quarter / second quarter | open files, at most |",
        "|---|---:|---:|---:|---:|",
    ]
    for step in steps:
        memory = max((megabytes for _, megabytes, _ in step.looks), default=0)
        files = max((number for _, _, number in step.looks), default=0)
        lines.append(
            f"| `{step.name}` | {step.ended - step.begun:.0f} | {memory:.0f} | {growth(step)} | {files} |"
        )
    return lines


def plot(steps: list[Step], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "soak", "font.size": 9}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True)
        for step in steps:
            if step.looks:
                seconds, memory, files = zip(*step.looks, strict=True)
                top.plot(seconds, memory, label=step.name)
                bottom.plot(seconds, files)
        top.set_ylabel("memory, MB")
        bottom.set_ylabel("open files")
        bottom.set_xlabel("seconds")
        for axes in (top, bottom):
            axes.set_ylim(bottom=0)
            axes.spines[["top", "right"]].set_visible(False)
        top.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=85_000, help="(default: %(default)s)")
    parser.add_argument("--docs_directory", type=Path, help="folder for soak.md and soak.svg")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_sample(["--directory", str(folder / "sample"), "--images", str(args.images)])
        command = [sys.executable, "-m", "sample.serve", str(folder / "sample")]
        with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout
                addresses = dict(server.stdout.readline().strip().split("=", 1) for _ in range(3))
                steps = run(addresses, folder)
            finally:
                server.terminate()
    lines = table(steps)
    counts = [f"{step.name}: {step.counts}" for step in steps if step.name.endswith(".py")]
    machine = (
        f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}"
    )
    print("", *lines, "", "```", *counts, "```", sep="\n")
    if args.docs_directory:
        plot(steps, args.docs_directory / "soak.svg")
        page = f"""# All seven steps on fifty thousand images

`python -m benchmarks.soak --docs_directory docs`, on {machine}, client and server on one machine.
Images of the sample are gone, changed, truncated or in unusual colour modes, as `sample/plan.py` sets.
Measured once a second: 0 MB means that the step was too short to be measured.

{chr(10).join(lines)}

![Memory and open files over time](soak.svg)

The counts of each step:

```
{chr(10).join(counts)}
```
"""
        (args.docs_directory / "soak.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
