"""The store's tables, by version: what leads from each version of the schema to the next."""

import sqlite3
from collections.abc import Iterator

APPLICATION = 0x6B636973
"""``kcis``: marks the file as a store."""
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE specs (digest TEXT PRIMARY KEY, study TEXT NOT NULL, content TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE cases (
        id INTEGER PRIMARY KEY, study TEXT NOT NULL, algorithm INTEGER NOT NULL, spec TEXT NOT NULL, weights TEXT NOT NULL,
        name TEXT NOT NULL, UNIQUE (study, algorithm, spec, weights, name));
    CREATE TABLE rows (
        id INTEGER PRIMARY KEY REFERENCES cases, row TEXT, error TEXT, kind TEXT, seconds REAL NOT NULL,
        tries INTEGER NOT NULL DEFAULT 1, CHECK ((row IS NULL) <> (error IS NULL)));
    CREATE TABLE circuits (digest TEXT PRIMARY KEY, edges INTEGER NOT NULL, content BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE uses (
        id INTEGER NOT NULL REFERENCES cases, field TEXT NOT NULL, circuit TEXT NOT NULL REFERENCES circuits,
        PRIMARY KEY (id, field)) WITHOUT ROWID;
    """,
    """
    ALTER TABLE rows ADD COLUMN made REAL;
    CREATE INDEX uses_circuit ON uses (circuit);
    CREATE VIEW results AS
        SELECT cases.id, study, algorithm, spec, weights, name AS "case", row, error, kind, seconds, tries, made
        FROM cases JOIN rows USING (id);
    """,
    """
    CREATE TABLE edits (digest TEXT PRIMARY KEY, name TEXT NOT NULL, file TEXT NOT NULL, content BLOB NOT NULL) WITHOUT ROWID;
    CREATE VIEW discovered AS
        SELECT results.id, weights, "case", specs.content ->> 'relation' AS relation, specs.content ->> 'seed' AS seed,
            row ->> 'model' AS model, row ->> 'method' AS method, row ->> 'tau' AS tau, row ->> 'fact' AS fact,
            row ->> 'edges_kept' AS edges, row ->> 'nodes_kept' AS nodes, row ->> 'rank_model' AS rank_model,
            row ->> 'rank_circuit' AS rank_circuit, row ->> 'nll_model' AS nll_model, row ->> 'nll_circuit' AS nll_circuit,
            row ->> '$.certificate.verdict' AS verdict, row -> 'certificate' AS certificate, row -> 'heads' AS heads,
            seconds, made
        FROM results LEFT JOIN specs ON specs.digest = results.spec
        WHERE results.study = 'discover' AND row IS NOT NULL;
    """,
    """
    DROP TABLE edits;
    CREATE TABLE heads (
        head TEXT NOT NULL, role TEXT NOT NULL, spec TEXT NOT NULL, id INTEGER NOT NULL REFERENCES rows,
        PRIMARY KEY (head, role, spec, id)) WITHOUT ROWID;
    CREATE TRIGGER row_put AFTER INSERT ON rows BEGIN
        INSERT OR IGNORE INTO heads SELECT value ->> 'head', value ->> 'role', spec, cases.id
        FROM cases, json_each(new.row, '$.heads') WHERE cases.id = new.id AND study = 'discover';
    END;
    CREATE TRIGGER row_replaced AFTER UPDATE OF row ON rows BEGIN
        DELETE FROM heads WHERE (head, role, spec, id) IN (SELECT value ->> 'head', value ->> 'role', spec, cases.id
            FROM cases, json_each(old.row, '$.heads') WHERE cases.id = old.id);
        INSERT OR IGNORE INTO heads SELECT value ->> 'head', value ->> 'role', spec, cases.id
        FROM cases, json_each(new.row, '$.heads') WHERE cases.id = new.id AND study = 'discover';
    END;
    INSERT OR IGNORE INTO heads SELECT value ->> 'head', value ->> 'role', spec, cases.id
        FROM cases JOIN rows USING (id), json_each(row, '$.heads') WHERE study = 'discover';
    CREATE VIEW roles AS
        SELECT head, role, specs.content ->> 'relation' AS relation, spec, count(*) AS facts
        FROM heads LEFT JOIN specs ON digest = spec GROUP BY head, role, spec;
    """,
    """
    DROP VIEW discovered;
    CREATE VIEW discovered AS
        SELECT results.id, weights, "case", specs.content ->> 'relation' AS relation, specs.content ->> 'seed' AS seed,
            row ->> 'model' AS model, row ->> 'method' AS method, row ->> 'tau' AS tau, row ->> 'fact' AS fact,
            row ->> 'edges_kept' AS edges, row ->> 'nodes_kept' AS nodes, row ->> 'rank_model' AS rank_model,
            row ->> 'rank_circuit' AS rank_circuit, row ->> 'nll_model' AS nll_model, row ->> 'nll_circuit' AS nll_circuit,
            row ->> '$.certificate.verdict' AS verdict, row -> 'certificate' AS certificate, row -> 'heads' AS heads,
            seconds, made,
            (row ->> 'model') || ' ' || (row ->> 'method') || coalesce(' ' || (specs.content ->> 'metric'), '')
                || coalesce(' ' || (specs.content ->> 'ablation'), '') || coalesce(' ' || (specs.content ->> 'granularity'), '')
                || coalesce(' tau ' || (row ->> 'tau'), ' edges ' || (row ->> 'edges_asked'), '')
                || coalesce(' seed ' || (specs.content ->> 'seed'), '')
                || coalesce(' wording ' || nullif(specs.content ->> 'wording', 0), '')
                || coalesce(' with ' || (specs.content ->> 'with_edit'), '') AS setting,
            row ->> '$.circuit."$circuit"' AS circuit
        FROM results LEFT JOIN specs ON specs.digest = results.spec
        WHERE results.study = 'discover' AND row IS NOT NULL;
    """,
)
"""What leads from each version of the schema to the next; the last is this program's."""
VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, to: int = VERSION) -> None:
    """Bring the schema to a version, step by step; each step is whole or not done."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it meanwhile.
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in MIGRATIONS[version:to]:
            for statement in _statements(step):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {max(version, to)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """The script's statements; a trigger has semicolons of its own."""
    statement = ""
    for part in script.split(";")[:-1]:
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
