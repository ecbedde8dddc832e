"""Showing: what a rule thought of a site, and everything known about one model on a single HTML page."""
