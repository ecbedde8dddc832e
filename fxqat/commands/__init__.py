"""The CLI's commands, grouped by what they do: an argument list, and a function that prints what the API returns."""
