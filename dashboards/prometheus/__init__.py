"""Alert rules for Prometheus, generated from the metric catalog."""
