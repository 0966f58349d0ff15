"""Commands for the developers of compressor; nothing here is installed."""
