"""The command against what happens to commands: run twice, killed at any moment, given nonsense.

    python -m tools.selfcheck [--only kills] [--kills 100] [--out docs/results/selfcheck.jsonl]
    python -m tools.selfcheck table docs/results/selfcheck.jsonl --out docs/results/selfcheck.md

*determinism*: two processes, two folders, the same bytes. *kills*: SIGKILL at random moments and at
every change of a file; what is there is whole, and going on ends the same. *refusals*: every bad
input of a table is refused clearly and leaves nothing. *fuzz*: damaged results and files are
refused or give an equal network. One line per check; a second run goes on where the first stopped.
"""
