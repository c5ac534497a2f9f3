"""One forecast model per file; forecasting/registry.py lists them."""
