"""The whole catalogue, in the order in which it is run: rows on the same kind of cluster together.

Importing a module of scenarios enters them.
"""

import tests.faults.access
import tests.faults.brokers
import tests.faults.network
import tests.faults.processes
import tests.faults.records
import tests.faults.standbys
import tests.faults.stores
import tests.faults.topics
import tests.faults.versions  # noqa: F401
from tests.faults.catalogue import catalogue

ROWS = sorted(catalogue, key=lambda row: (row.place.__name__, row.name))
