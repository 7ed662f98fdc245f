"""All that is measured in public: `.venv/bin/python -m benchmarks`.

Without arguments it measures everything, which takes more than an hour, and wants an
otherwise idle machine with Linux. Name parts to measure those only. The figures go to
`benchmarks/results/`, from which `benchmarks/page.py` makes the tables and plots of
`docs/costs.md`.
"""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial

from benchmarks.compare import CLIENTS, compare
from benchmarks.grow import GROWTH
from benchmarks.instructions import GUARDS, NONE, count_without, instructions_of
from benchmarks.serving import OURS, PEERS
from benchmarks.workloads import WORKLOADS

PARTS: dict[str, Callable[[], None]] = {
    f"{io}/{workload}/{clients}": partial(compare, io, workload, clients)
    for io in OURS
    for workload in WORKLOADS
    for clients in CLIENTS
}
PARTS |= {
    f"instructions/{io}/{name}": partial(instructions_of, io, name)
    for io in OURS
    for name in (*OURS[io], *PEERS[io])
}
PARTS |= {f"guards/{each}": partial(count_without, each) for each in (NONE, *GUARDS)}
PARTS |= GROWTH


def main() -> None:
    """Measure what is asked for."""
    first = (__doc__ or "").split("\n")[0]
    parser = ArgumentParser(prog="python -m benchmarks", description=first)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], metavar="part")
    parser.add_argument("--list", action="store_true", help="name all parts")
    options = parser.parse_args()
    if options.list:
        print(*PARTS, sep="\n")
        return
    # Whoever ends this by kill leaves no service behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for part in options.part or PARTS:
        print(f"# {part}", flush=True)
        PARTS[part]()


if __name__ == "__main__":
    main()
