"""All of Nhịp on one machine: a lab, its server, its probes, a collector and forecasts of its links."""
