"""Which DNNs a worker keeps on its device."""

from __future__ import annotations


def nearest_dnns(planned: int, dnns: int, count: int) -> list[int]:
    """Return the DNNs to keep loaded, most urgent first: `planned`, then its nearest neighbours.

    Plans move by steps; of two equally near, the smaller comes first, since a lack of it costs
    deadlines and a lack of the larger costs accuracy only.

    Args:
        planned: index of the DNN that the plan names.
        dnns: number of DNNs in the zoo.
        count: how many a device keeps, at least 1.
    """
    by_distance = sorted(range(dnns), key=lambda m: (abs(m - planned), m))
    return by_distance[: max(1, count)]
