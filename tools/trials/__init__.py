"""Trials of choice and repair on trained networks, ours and Torch-Pruning's, without training.

    python -m tools.trials --data-root FOLDER [--only selection] [--out trials.jsonl]
    python -m tools.trials table trials.jsonl --out docs/results/reconstruction.md

What is compared was decided on images kept from the training data; each trial looks at the test
data once.
"""
