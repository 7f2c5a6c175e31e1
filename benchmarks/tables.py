"""Tables in Markdown, and the summary of a benchmark that the README shows."""

Rival = tuple[str, float]  # name and figure

IN_SHORT = ("summary", "this", "compared with", "ratio")


def print_head(*names: object) -> None:
    """Print the head of a table; all columns but the first hold numbers."""
    print_row(*names)
    print_row("---", *["---:"] * (len(names) - 1))


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_in_short(figures: list[tuple[str, float, list[Rival]]]) -> None:
    """Print the summary: what was measured, our figure and each rival's.

    Figures are rates: more is better. The ratio is our figure divided by the rival's.
    """
    print()
    print_head(*IN_SHORT)
    for what, ours, rivals in figures:
        for name, theirs in rivals:
            print_row(what, number(ours), f"{name}: {number(theirs)}", f"{ours / theirs:.2f}x")


def number(value: float) -> str:
    """Return a number with as many digits as a measurement on a shared machine supports."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
