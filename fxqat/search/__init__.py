"""Search: the fastest policy within a budget of accuracy."""
