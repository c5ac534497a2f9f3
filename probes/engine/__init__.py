"""Many targets, one process: ICMP echo by the batch, both kernel stamps, books in columns.

::

    targets ──▶ planner ──▶ packets ──sendmmsg──▶ network
                  │ (due times)              │
                  ▼                          ▼
               flight  ◀──recvmmsg── replies, departures (error queue), ICMP errors
                  │ settled once the loss threshold has passed
                  ▼
                book ──▶ windows ──▶ records

Only this package uses numpy, and nothing outside it imports its numpy modules except inside a function: a
probe without a group of ICMP targets needs none.
"""
