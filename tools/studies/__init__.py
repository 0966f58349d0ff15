"""The studies behind docs/results: the product beside Torch-Pruning, on trained networks.

    python -m tools.studies --data-root FOLDER --list
    python -m tools.studies --data-root FOLDER [--only repair latency]
    python -m tools.studies pages

Our rows are made by `compressor.compress` with the options that a row names, all times by
`compress bench`. Each trial is one line of docs/results/studies.jsonl, known by what it does: a
further run goes on where the last one stopped, and what stands in several tables is made once.
"""
