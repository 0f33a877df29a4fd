"""What an app declares beside topics and agents: its tables, joins and patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from engine import faustnames
from engine.errors import ConfigError
from engine.expiring import ExpiringTable
from engine.foreignkey import ForeignKeyJoin
from engine.globaltable import GlobalTable
from engine.joins import StreamJoin
from engine.matcher import Matcher
from engine.table import K, Seconds, Table, TableHandle, V
from engine.tablejoins import TableJoin
from engine.topic import Topic
from engine.versioned import VersionedTable
from engine.windowed import SessionTable

if TYPE_CHECKING:
    from engine.pattern import Pattern


class Declarations:
    """The part of :class:`engine.app.App` that makes tables and operators."""

    declared_tables: dict[str, TableHandle]
    _app_id: str

    @overload
    def Table(
        self, name: str | None = None, *, history: Seconds, **options: Any
    ) -> VersionedTable[Any, Any]: ...

    @overload
    def Table(
        self, name: str | None = None, *, key_type: type[K], value_type: type[V], **options: Any
    ) -> Table[K, V]: ...

    @overload
    def Table(self, name: str | None = None, **options: Any) -> Table[Any, Any]: ...

    def Table(  # noqa: N802
        self, name: str | None = None, **options: Any
    ) -> Table[Any, Any]:
        """Declare a keyed table: see :class:`engine.table.Table`.

        With ``history=`` (seconds) it is an :class:`engine.versioned.VersionedTable`, with ``ttl=``
        (seconds) its keys expire: :class:`engine.expiring.ExpiringTable`.

        Args:
            name: may be left out of a table that is a topic (``source=``): it is the topic's.
        """
        if name is None:
            if "source" not in options:
                raise ConfigError("app.Table() needs a name")
            name = options["source"].name
        for option in [option for option in options if option in faustnames.IGNORED]:
            del options[option]
        if "ttl" in options:
            table: Table[Any, Any] = ExpiringTable(name, **options)
        elif "history" in options:
            table = VersionedTable(name, **options)
        else:
            table = _Declaring(self, name, **options)
        self.declare(table)
        return table

    table = Table

    def SessionTable(self, name: str, **options: Any) -> SessionTable:  # noqa: N802
        """Declare a table of sessions: see :class:`engine.windowed.SessionTable`."""
        table = SessionTable(name, **options)
        self.declare(table)
        return table

    def Match(  # noqa: N802
        self, name: str, topic: Topic, pattern: Pattern[Any], **options: Any
    ) -> Matcher:
        """Declare a pattern on a topic: see :class:`engine.matcher.Matcher`."""
        matcher = Matcher(name, topic, pattern, **options)
        self.declare(matcher)
        return matcher

    def GlobalTable(  # noqa: N802
        self, name: str, *, source: Topic | None = None, **options: Any
    ) -> GlobalTable[Any, Any]:
        """Declare a table that each worker has whole: see :mod:`engine.globaltable`."""
        if source is None:
            raise ConfigError(f"global table {name!r} needs source=: the topic that it is")
        held = [t for t in self.declared_tables.values() if t.is_global and t.source is source]
        if held:
            raise ConfigError(f"{name!r} and {held[0].name!r} would be the same global table")
        made: GlobalTable[Any, Any] = GlobalTable(name, source=source, **options)
        self.declare(made)
        return made

    def TableJoin(self, name: str, left: Any, right: Any, **options: Any) -> TableJoin:  # noqa: N802
        """Declare a join of two tables that are topics: see :class:`engine.tablejoins.TableJoin`.

        An agent that reads it gets (left value, right value), or None where a row has gone.
        """
        joined = TableJoin(name, left, right, **options)
        self.declare(joined)
        return joined

    def ForeignKeyJoin(  # noqa: N802
        self, name: str, left: Any, right: Any, *, on: Any, **options: Any
    ) -> ForeignKeyJoin:
        """Declare a foreign-key join of tables: see :class:`engine.foreignkey.ForeignKeyJoin`.

        An agent that reads it gets (left value, right value), or None where a row has gone.
        """
        joined = ForeignKeyJoin(name, left, right, on=on, **options)
        joined.name_topics(self._app_id)
        self.declare(joined)
        return joined

    def Join(self, name: str, left: Topic, right: Topic, **options: Any) -> StreamJoin:  # noqa: N802
        """Declare a join of two topics: see :class:`engine.joins.StreamJoin`."""
        join = StreamJoin(name, left, right, **options)
        self.declare(join)
        return join

    def declare(self, table: TableHandle) -> None:
        """Add a table or an operator to the app, under its name."""
        held = self.declared_tables.get(table.name)
        if held is not None and table.kind not in {"window", "counted"}:
            raise ConfigError(f"there are two tables named {table.name!r}")
        self.declared_tables[table.name] = table


class _Declaring(Table[Any, Any]):
    """A table that tells its app when it becomes a windowed one."""

    def __init__(self, app: Declarations, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._app = app

    def hopping(self, size: Any, step: Any, **options: Any) -> Any:
        """See :meth:`engine.table.Table.hopping`."""
        windowed = super().hopping(size, step, **options)
        self._app.declare(windowed)
        return windowed

    def sliding(self, size: Any, **options: Any) -> Any:
        """See :meth:`engine.table.Table.sliding`."""
        windowed = super().sliding(size, **options)
        self._app.declare(windowed)
        return windowed

    def counted(self, size: int, step: int | None = None, **options: Any) -> Any:
        """See :meth:`engine.table.Table.counted`."""
        windowed = super().counted(size, step, **options)
        self._app.declare(windowed)
        return windowed
