"""The figures that take a GPU, measured in minutes on a machine that is lent bare.

`pack` gathers what such a machine lacks, `run` runs the parts there in the order of their worth,
`merge` takes what they recorded into docs/results. docs/guide/gpu.md says how they are called.
"""
