"""Tables in Markdown, and the few figures of a benchmark that the README shows."""

Rival = tuple[str, float]  # what is compared with, and its figure

IN_SHORT = ("in short", "this", "beside it", "this is")


def print_head(*names: object) -> None:
    """Print the head of a table; all columns but the first are numbers."""
    print_row(*names)
    print_row("---", *["---:"] * (len(names) - 1))


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_in_short(figures: list[tuple[str, float, list[Rival]]]) -> None:
    """Print what a reader of one page should know: what was measured, our figure, and the rivals'.

    Figures are rates: more is better, and "this is" says how many times the rival ours is.
    """
    print()
    print_head(*IN_SHORT)
    for what, ours, rivals in figures:
        for name, theirs in rivals:
            print_row(what, number(ours), f"{name}: {number(theirs)}", f"{ours / theirs:.2f}x")


def number(value: float) -> str:
    """Return a number with the digits that a measurement on a shared machine deserves."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
