"""Everything that is measured and too slow for CI, by one command; it refreshes docs/results/.

    python -m tools.results --data-root FOLDER --list
    python -m tools.results --data-root FOLDER [--only latency] [--again]

Each study goes on where it was stopped, and writes its page with date, machine and versions.
"""
