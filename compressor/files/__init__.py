"""Write files and folders that appear whole or not at all, and check that they are unchanged."""
