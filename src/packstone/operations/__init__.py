"""One verb per file: the only layer that sees both the repository and the file system."""
