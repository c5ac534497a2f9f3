"""The Grafana dashboard as code, its files, and two ways to bring it to a server."""
