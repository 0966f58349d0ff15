"""Networks made smaller and trained again: ours, Torch-Pruning's and controls, the same training.

    python -m tools.training --data-root FOLDER [--only cpu] [--out docs/results/training.jsonl]
    python -m tools.training --data-root FOLDER --only gpu --device cuda
    python -m tools.training table docs/results/training.jsonl --out docs/results/training.md

CIFAR-10 is split into 45 000 images to train on, 5 000 to compare epochs on, and the 10 000 test
images, which decide nothing. Each epoch of a trial is kept: a run that was stopped goes on there.
"""
