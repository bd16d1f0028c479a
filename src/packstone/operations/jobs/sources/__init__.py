"""Where the bytes of a job come from, and how they go back: databases, commands."""
