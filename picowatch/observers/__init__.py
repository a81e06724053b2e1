"""Those who are shown the work: console, hooks, metrics, preview."""
