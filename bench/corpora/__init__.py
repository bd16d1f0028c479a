"""The corpora of the benchmark, each made once and kept in a cache directory outside git."""
