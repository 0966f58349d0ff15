"""Are fewer multiply-adds fewer milliseconds? Trained and well-known networks, timed beside
Torch-Pruning's.

    python -m tools.latency --data-root FOLDER        # resumable; latency.jsonl
    python -m tools.latency table --out docs/results/latency.md
"""
