"""Hand over what a run made: files, the report's contents, the result that comes back."""
