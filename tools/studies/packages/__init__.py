"""Networks that Python packages carry as ONNX files, compressed as their users would do it.

The packages are found, never imported and never shipped: whoever has them installed makes the rows.
"""
