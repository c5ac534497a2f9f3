"""A network in miniature whose truth is known: operators, access links, an exchange, a server, a site abroad.

``Lab`` in :mod:`nhip.lab.lifecycle` builds it from network namespaces (root), ``RelayLab`` in
:mod:`nhip.lab.relay` from loopback relays (no privilege, fewer effects). Both read the same
:class:`nhip.lab.topology.Topology` and both answer with the same :class:`nhip.lab.report.Truth`.
"""
