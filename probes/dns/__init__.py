"""The dns probe: one question over four transports; its manual page is :mod:`probes.dns.probe`."""
