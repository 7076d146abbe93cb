"""Puts the short form of ``norms_cpu.md`` into ``docs/norms.md``: a line a norm.

Run it from the repository root after ``norms_cpu.py``::

    python benchmarks/norms_cpu_page.py
"""

import re
from collections import defaultdict
from pathlib import Path

RESULTS = Path(__file__).with_name("norms_cpu.md")
PAGE = Path(__file__).parents[1] / "docs" / "norms.md"
BEGIN, END = "<!-- table of norms_cpu.md -->", "<!-- end of table -->"


def measured() -> dict[str, dict[str, list[float]]]:
    """Ratios eager / ours of each norm, by pass, over the shapes."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in RESULTS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 12 and cells[1].startswith("("):
            found[cells[0]][cells[2]].append(float(cells[7]))
    return found


def short_table() -> str:
    """The table as Markdown."""
    lines = ["| norm | forward | forward + backward |", "|---|---|---|"]
    for norm, passes in measured().items():
        spans = [f"{min(r):.1f} to {max(r):.1f}" for r in passes.values()]
        lines.append(f"| {norm} | {' | '.join(spans)} |")
    held = re.search(r"Goals held: \d+ of \d+", RESULTS.read_text())
    return "\n".join([*lines, "", f"{held[0]}." if held else ""])


def main() -> None:
    """Write the page."""
    text = PAGE.read_text()
    block = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    if not block.search(text):
        raise SystemExit(f"{PAGE}: the marks of the table are missing")
    PAGE.write_text(block.sub(f"{BEGIN}\n{short_table()}\n{END}", text))


if __name__ == "__main__":
    main()
