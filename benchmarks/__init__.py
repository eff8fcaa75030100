"""What a turn costs: the budgets of the design, measured next to the floor in the same run. See docs/performance.md."""
