"""Further commands, each on the pipeline that compresses."""
