"""Regulatory indicators: profiles as data, formulas as pure functions, verdicts that never flatter."""
