"""A run of an experiment: its folder, its record, its workers, how it is stopped."""
