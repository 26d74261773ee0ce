"""Finals, runs, reports and e-mail."""
