"""The user's files: walking and reading the source, writing the target. Knows no repository."""
