"""What a run hands over: files, the report's contents, the result that comes back."""
