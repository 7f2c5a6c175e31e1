"""The figures in the README are those of benchmarks/RESULTS.md, made by the current commands."""

import re

import pytest

from benchmarks.__main__ import BEGIN, END, README, RESULTS, RUNS, in_short, sections

PAGE = RESULTS.read_text(encoding="utf-8")


def test_the_readme_has_the_figures_of_the_page():
    shown = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == in_short(PAGE)
    assert len(shown.splitlines()) > 10


@pytest.mark.parametrize("name", RUNS)
def test_each_benchmark_was_run_by_its_current_command(name):
    title, words = RUNS[name]
    assert f"`.venv/bin/python -m benchmarks.{words}`" in sections(PAGE)[title]


def test_ratios_are_those_of_the_figures():
    for row in re.findall(r"^\| .*x \|$", in_short(PAGE), re.M):
        _, ours, rival, ratio = (cell.strip() for cell in row.strip("|").split("|"))
        expected = float(ours.replace(",", "")) / float(rival.rpartition(": ")[2].replace(",", ""))
        assert float(ratio.rstrip("x")) == pytest.approx(expected, rel=0.02, abs=0.006)
