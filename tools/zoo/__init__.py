"""A pass over whole zoos of networks: analysed without hints, halved, compared, exported, counted.

    python -m tools.zoo --only timm --name 'resn*' --out zoo.jsonl
    python -m tools.zoo table zoo.jsonl --out zoo.md

Each member runs in a process of its own; what it found is one line of the file. A run that is
started again goes on where the last one stopped.
"""
