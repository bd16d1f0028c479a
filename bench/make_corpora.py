"""Make the corpora without measuring anything: bench/make_corpora.py --only TINY,SRC."""

from __future__ import annotations

from corpora.catalogue import main

if __name__ == "__main__":
    main()
