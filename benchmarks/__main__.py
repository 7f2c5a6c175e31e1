"""Run all benchmarks in turn; write their output to benchmarks/RESULTS.md and a summary to the README.

    make bench-packages     nginx, from Debian's packages (root)
    make bench              all of them: an hour
    .venv/bin/python -m benchmarks --only metadata     one; the results of the others are kept

Use an idle machine: the ways of one benchmark run in turn, but other work slows them all.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.tables import IN_SHORT

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
README = ROOT / "README.md"
RUNS = {
    "metadata": ("Step 3: boxes and index to JSON", "metadata --full"),
    "download": (
        "Step 4: images over HTTPS, compared with pycurl",
        "download --photos 10000 --servers https,slow --ways download_images.py,pycurl",
    ),
    "download-all": (
        "Step 4: images over HTTPS, all clients",
        "download --photos 2000 --servers https --rounds 1",
    ),
    "download-memory": ("Step 4: a resumed run", "download_memory"),
    "images": ("Step 5: verify and resize", "images"),
    "masks": ("Step 5: instance masks", "masks"),
    "records": ("Step 7: records", "records --photos 20000"),
    "scaling": ("Steps 4, 5 and 7 by threads and workers", "scaling --docs_directory docs"),
    "cluster": ("A Dask cluster compared with processes", "cluster"),
    "store": ("An object store compared with folders", "store"),
    "soak": ("All seven steps, 50,000 images", "soak --docs_directory docs"),
}
PACKAGES = (
    "aiohttp", "boto3", "distributed", "opencv-python-headless", "pillow", "pyarrow", "pycurl", "pyvips",
    "requests", "simplejpeg", "tensorflow", "urllib3",
)  # fmt: skip
BEGIN, END = "<!-- drawn from benchmarks/RESULTS.md by `make bench` -->", "<!-- end -->"


def run(name: str) -> str:
    """Run a benchmark and return its section."""
    title, words = RUNS[name]
    module, *flags = words.split()
    shown = f".venv/bin/python -m benchmarks.{words}"
    print(f"== {shown}", file=sys.stderr)
    begun, load = time.monotonic(), os.getloadavg()[0]
    command = [sys.executable, "-m", f"benchmarks.{module}", *flags]
    lines: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            sys.stderr.write(line)
    if process.returncode:
        sys.exit(f"{shown}: exit code {process.returncode}")
    when = (
        f"{time.strftime('%Y-%m-%d')}, {(time.monotonic() - begun) / 60:.0f} minutes, load before {load:.1f}"
    )
    return f"## {title}\n\n`{shown}`\n\n{when}\n\n{''.join(lines).strip()}\n"


def sections(text: str) -> dict[str, str]:
    """Return the sections of a page, by title."""
    found = re.split(r"^(?=## )", text, flags=re.M)[1:]
    return {section.partition("\n")[0].removeprefix("## "): section.strip() + "\n" for section in found}


def in_short(page: str) -> str:
    """Return the summary tables at the ends of a page's sections as one table, headed by the machine."""
    where = re.findall(r"^[0-9]+ cores of .*?, [0-9]+ GB", page, re.M)[0]
    head = f"| {' | '.join(IN_SHORT)} |"
    rows: list[str] = []
    for section in sections(page).values():
        rows += section.partition(head)[2].strip().split("\n\n")[0].splitlines()[1:]
    return "\n".join([f"On {where}:", "", head, "| --- | ---: | ---: | ---: |", *rows])


def machine() -> str:
    """Return a description of the machine and the versions."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    found = {each.name.lower(): each.version for each in distributions()}
    versions = [f"{name} {found[name]}" for name in PACKAGES if name in found]
    if nginx := shutil.which("nginx"):
        output = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
        versions.append(output.strip().rpartition(" ")[2].replace("/", " "))
    model = cpu[1] if cpu else platform.machine()
    return (
        f"{len(os.sched_getaffinity(0))} cores of {model}, {memory:.0f} GB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}; {', '.join(versions)}."
    )


def write(found: dict[str, str]) -> None:
    """Write the page, and its summary to the README."""
    titles = [title for title, _ in RUNS.values() if title in found]
    page = (
        "# What was measured\n\n"
        "`make bench` wrote this page. Clients and servers shared one machine: the figures compare ways\n"
        "with each other in one run; they do not predict the rates of another machine.\n\n"
        f"{machine()}\n\n" + "\n".join(found[title] for title in titles)
    )
    RESULTS.write_text(page, encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n{in_short(page)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=RUNS, nargs="+", default=list(RUNS), metavar="NAME",
        help=f"only these, out of {' '.join(RUNS)}",
    )  # fmt: skip
    args = parser.parse_args()
    for name in args.only:
        section = run(name)
        found = sections(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        write(found | sections(section))


if __name__ == "__main__":
    main()
