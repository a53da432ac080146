"""Outcomes of studies in one SQLite file: each case once, by all that decides it, its circuits as compact arrays.

A row is JSON, as `circuits.records` writes it; a circuit inside it is taken out and kept packed (`circuits.studies.packed`), once
however many rows have it, and put back byte for byte. Every put is one transaction that has reached the disk when it returns:
killed at any moment, the file holds whole outcomes. Several processes may write at once; whoever only looks opens it read-only.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from circuits.circuit import FORMAT as CIRCUIT_FORMAT
from circuits.circuit import CircuitFileError
from circuits.records import Unreadable, digest, from_json, to_json
from circuits.studies.functions import register
from circuits.studies.packed import pack, unpack
from circuits.studies.schema import APPLICATION, VERSION, migrate
from circuits.studies.study import Key, Outcome, Study
from circuits.studies.sweep import Stale

if TYPE_CHECKING:
    import pandas

BUSY_SECONDS = 60.0
"""How long a writer waits for another's."""

_CIRCUIT = "$circuit"
"""Stands in a row for the circuit with that digest."""


class StoreError(ValueError):
    """A file that is no store, or one that cannot do what was asked."""


@dataclass
class Database:
    """A `circuits.studies.sweep.Store` in a file. Made if need be, brought to this version's schema, unless only read.

    Raises:
        StoreError: no store, of a later version, or not there and to be read only; says which.
    """

    path: Path
    read_only: bool = False
    _open: sqlite3.Connection | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.path = Path(self.path)

    def __enter__(self) -> "Database":
        _ = self.connection
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    @property
    def connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = self._connect()
        return self._open

    def _connect(self) -> sqlite3.Connection:
        if self.read_only and not self.path.is_file():
            raise StoreError(f"no store at {self.path}")
        if not self.read_only:
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
        mode = "ro" if self.read_only else "rwc"
        try:
            found = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
            )
            found.row_factory = sqlite3.Row
            register(found)
            self._ready(found)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be opened as a store: {error}") from error
        return found

    def _ready(self, connection: sqlite3.Connection) -> None:
        # Of one moment, though another process may be making the store right now.
        connection.execute("BEGIN")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        connection.execute("COMMIT")
        if application != APPLICATION and (tables or self.read_only):
            raise StoreError(f"{self.path} is no store of kcircuit; name another file")
        if version > VERSION:
            raise StoreError(
                f"{self.path} has schema {version}, this program knows {VERSION}: install a later kcircuit"
            )
        if self.read_only:
            if version < VERSION:
                raise StoreError(
                    f"{self.path} has schema {version}, older than {VERSION}: `kcircuit store check` brings it there"
                )
            connection.execute("PRAGMA query_only = 1")
            return
        connection.execute("PRAGMA journal_mode = WAL")
        # What was put is on the disk: a power cut costs the cases in flight.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = 1")
        if version < VERSION:
            migrate(connection)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be written: {error}") from error

    # ---- outcomes ------------------------------------------------------------------------------------------------

    def asked(self, study: Study[Any, Any, Any, Any], spec: Any) -> None:
        """Keep what a study was asked, beside the digest that its rows are kept under."""
        content = study.decides(spec)
        self.asked_json(study.name, digest(content), content)

    def asked_json(self, study: str, of: str, content: Any) -> None:
        with self._writing() as connection:
            text = json.dumps(content, ensure_ascii=False)
            connection.execute("INSERT OR IGNORE INTO specs VALUES (?, ?, ?)", (of, study, text))

    def get(self, key: Key, row: Any) -> Outcome[Any] | None:
        """See `circuits.studies.sweep.Store`."""
        found = self.connection.execute(
            'SELECT id, row, error, kind, seconds FROM results WHERE (study, algorithm, spec, weights, "case") = (?, ?, ?, ?, ?)',
            _values(key),
        ).fetchone()
        if found is None:
            return None
        try:
            content = None if found["row"] is None else self._whole(json.loads(found["row"]))
            made = None if content is None else from_json(row, content, f"{self.path}, case {key.case!r}")
        except (Unreadable, CircuitFileError) as error:
            raise Stale(f"{self.path} has no whole row of {key.case!r} ({error})") from error
        return Outcome(key.case, made, found["error"], found["kind"], found["seconds"], kept=True)

    def put(self, key: Key, outcome: Outcome[Any]) -> None:
        row = None if outcome.row is None else to_json(outcome.row)
        self.put_json(key, row, outcome.error, outcome.kind, outcome.seconds)

    def put_json(
        self, key: Key, row: Any, error: str | None = None, kind: str | None = None, seconds: float = 0.0
    ) -> None:
        """Keep an outcome whose row is JSON already, in place of what was kept of that case."""
        circuits: dict[str, dict[str, Any]] = {}
        text = None if row is None else json.dumps(_taken_out(row, circuits), ensure_ascii=False, allow_nan=False)
        packed = [(content["digest"], len(content["edges"]), pack(content)) for content in circuits.values()]
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO cases (study, algorithm, spec, weights, name) VALUES (?, ?, ?, ?, ?)",
                _values(key),
            )
            (number,) = connection.execute(
                "SELECT id FROM cases WHERE (study, algorithm, spec, weights, name) = (?, ?, ?, ?, ?)", _values(key)
            ).fetchone()
            connection.execute(
                "INSERT INTO rows (id, row, error, kind, seconds, made) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "row = excluded.row, error = excluded.error, kind = excluded.kind, seconds = excluded.seconds, "
                "made = excluded.made, tries = tries + 1",
                (number, text, error, kind, round(seconds, 3), time.time()),
            )
            connection.execute("DELETE FROM uses WHERE id = ?", (number,))
            connection.executemany("INSERT OR IGNORE INTO circuits VALUES (?, ?, ?)", packed)
            connection.executemany(
                "INSERT INTO uses VALUES (?, ?, ?)",
                [(number, where, content["digest"]) for where, content in circuits.items()],
            )

    def circuit(self, of: str) -> dict[str, Any]:
        """The content of the circuit file with that digest, or the only one whose digest begins so.

        Raises:
            StoreError: there is none, or several, or it is damaged.
        """
        found = self.connection.execute(
            "SELECT digest, content FROM circuits WHERE digest GLOB ?", (of + "*",)
        ).fetchall()
        if len(found) != 1:
            raise StoreError(f"{self.path} has {len(found)} circuits whose digest begins with {of!r}, expected one")
        content = unpack(found[0]["content"])
        if content["digest"] != found[0]["digest"]:
            raise StoreError(f"{self.path}: the circuit {of} was altered")
        return content

    def _whole(self, content: Any) -> Any:
        """A row with its circuits put back."""
        match content:
            case {"$circuit": str(of), **rest} if not rest:
                try:
                    return self.circuit(of)
                except StoreError as error:
                    raise CircuitFileError(str(error)) from error
            case dict():
                return {name: self._whole(part) for name, part in content.items()}
            case list():
                return [self._whole(part) for part in content]
            case _:
                return content

    # ---- looking -------------------------------------------------------------------------------------------------

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[dict[str, Any]]:
        """Rows that a SELECT gives, by column.

        Raises:
            StoreError: SQL that cannot be run, or that would change the store.
        """
        try:
            cursor = self.connection.execute(sql, parameters)
            if cursor.description is None:
                raise StoreError(f"expected SQL that selects, got {sql!r}")
            for row in cursor:
                yield {name: row[name] for name in row.keys()}  # noqa: SIM118
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise StoreError(
                f"{self.path}: {error}; `SELECT sql FROM sqlite_master` says which tables there are"
            ) from error

    def rows(self, study: str) -> Iterator[dict[str, Any]]:
        """Each row of the study on one level: its key, its spec's fields as ``spec.…``, its own as they are named, nested ones
        as JSON; circuits by their digests."""
        sql = (
            'SELECT "case", weights, algorithm, row, error, seconds, content FROM results '
            "LEFT JOIN specs ON digest = spec WHERE results.study = ? ORDER BY results.id"
        )
        for found in self.query(sql, (study,)):
            spec, row = json.loads(found.pop("content") or "{}"), json.loads(found.pop("row") or "{}")
            yield (
                found
                | {f"spec.{name}": _flat(value) for name, value in spec.items()}
                | {n: _flat(v) for n, v in row.items()}
            )

    def frame(self, study: str) -> "pandas.DataFrame":
        """`rows` as a pandas frame. Needs the extra ``kcircuit[frames]``.

        Raises:
            StoreError: pandas is not installed, or there are no rows of that study; says which there are.
        """
        try:
            import pandas
        except ImportError as error:
            raise StoreError("a frame needs pandas: install kcircuit[frames]") from error
        rows = list(self.rows(study))
        if not rows:
            there = [each["study"] for each in self.query("SELECT DISTINCT study FROM cases")]
            raise StoreError(f"{self.path} has no rows of {study!r}; of {', '.join(there) or 'no study'}")
        return pandas.DataFrame(rows)

    def check(self) -> Iterator[str]:
        """What is wrong with the file, a line each: none, if it is whole. Every circuit is unpacked, every row parsed."""
        try:
            for (line,) in self.connection.execute("PRAGMA integrity_check"):
                if line != "ok":
                    yield line
            for table, number, other, _ in self.connection.execute("PRAGMA foreign_key_check"):
                yield f"{table} {number} refers to something of {other} that is not there"
            for of, content in self.connection.execute("SELECT digest, content FROM circuits"):
                try:
                    if unpack(content)["digest"] != of:
                        yield f"circuit {of} was altered"
                except CircuitFileError as error:
                    yield f"circuit {of}: {error}"
            for number, row in self.connection.execute("SELECT id, row FROM rows WHERE row IS NOT NULL"):
                try:
                    json.loads(row)
                except (ValueError, RecursionError) as error:
                    yield f"row {number} is no JSON: {error}"
        except sqlite3.DatabaseError as error:
            yield str(error)


def _values(key: Key) -> tuple[str, int, str, str, str]:
    return key.study, key.algorithm, key.spec, key.weights, key.case


def _taken_out(content: Any, circuits: dict[str, dict[str, Any]], where: str = "") -> Any:
    """The row with a digest for each circuit, which goes into ``circuits`` by the path of its field."""
    if isinstance(content, Mapping):
        if content.get("format") == CIRCUIT_FORMAT:
            circuits[where] = dict(content)
            return {_CIRCUIT: content["digest"]}
        return {name: _taken_out(part, circuits, f"{where}.{name}".lstrip(".")) for name, part in content.items()}
    if isinstance(content, list):
        return [_taken_out(part, circuits, f"{where}.{i}".lstrip(".")) for i, part in enumerate(content)]
    return content


def _flat(value: Any) -> Any:
    """A nested value as JSON; a circuit as its digest."""
    match value:
        case {"$circuit": of, **rest} if not rest:
            return of
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return value
