"""Torch-Pruning beside us: same networks, weights, data, training code and budget, in one run.

    python -m tools.peers --data-root FOLDER [--only coverage] [--out docs/results/peers.jsonl]
    python -m tools.peers table docs/results/peers.jsonl --out docs/results/peers.md

*coverage*: the zoo's networks with weights drawn at random, each analysed, cut and compared with
its masked twin by both, without hints to either. *accuracy*: trained networks made smaller by both,
repaired where the tool can, and trained alike. One line per trial; a second run goes on where the
first stopped.
"""
