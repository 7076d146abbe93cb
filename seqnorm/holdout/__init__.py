"""The chromosome hold-out experiment: spec -> run -> table -> report."""
