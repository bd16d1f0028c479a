"""A dumb place for named bytes: knows nothing of packs, ids or snapshots."""
