"""The questions that an atlas answers: what circuits of single facts, found under one setting, show together.

Each is SQL over the store of a sweep of ``discover``, as `circuits.studies.queries` has others; ``:setting`` stands for the setting, as
the view ``discovered`` words it. A relation holds an edge, or a head, to a share: that of its circuits which have it.
"""

from circuits.studies.queries import Query

SETTINGS = Query(
    "settings",
    "Which settings are in the store?",
    """
SELECT setting, count(*) AS circuits, count(DISTINCT relation) AS relations, substr(min(weights), 1, 12) AS weights
FROM discovered GROUP BY 1 ORDER BY circuits DESC, setting""",
)

RELATIONS = Query(
    "relations",
    "How large are the circuits of each relation, and what are they worth?",
    """
SELECT kind(model, relation) AS kind, relation, count(*) AS circuits, avg(edges) AS edges, min(edges) AS least, max(edges) AS most,
    avg(nodes) AS nodes, avg(nll_model) AS nll_model, avg(nll_circuit) AS nll_circuit, avg(rank_circuit = 1) AS "first",
    avg(certificate ->> '$.grades.sufficiency' = 'passed') AS sufficient,
    avg(certificate ->> '$.grades.specificity' = 'passed') AS specific,
    avg(certificate ->> '$.grades.necessity' = 'passed') AS necessary, avg(verdict = 'passed') AS all_three
FROM discovered WHERE setting = :setting GROUP BY 1, 2 ORDER BY 1, 2""",
)

SIZES = Query(
    "sizes",
    "How many edges do circuits have, by kind of knowledge?",
    """
WITH ranked AS (
    SELECT kind(model, relation) AS kind, edges, percent_rank() OVER (PARTITION BY kind(model, relation) ORDER BY edges) AS below
    FROM discovered WHERE setting = :setting)
SELECT kind, count(*) AS circuits, min(edges) AS least, max(edges) FILTER (WHERE below <= 0.25) AS quarter,
    max(edges) FILTER (WHERE below <= 0.5) AS half, max(edges) FILTER (WHERE below <= 0.75) AS three_quarters, max(edges) AS most
FROM ranked GROUP BY 1 ORDER BY 1""",
)

SPREAD = Query(
    "spread",
    "What share of each kind's circuits has so many edges, or up to 19 more?",
    """
WITH drawn AS (SELECT kind(model, relation) AS kind, edges FROM discovered WHERE setting = :setting),
    counted AS (SELECT kind, count(*) AS circuits FROM drawn GROUP BY 1)
SELECT kind, edges / 20 * 20 AS from_edges, count(*) * 1.0 / circuits AS share
FROM drawn JOIN counted USING (kind) GROUP BY 1, 2 ORDER BY 1, 2""",
)

NODES = Query(
    "nodes",
    "On which heads and MLPs do most facts hang, and most relations (half of whose circuits hold it)?",
    """
WITH asked AS (SELECT relation, count(*) AS facts FROM discovered WHERE setting = :setting GROUP BY 1),
    held AS (
        SELECT relation, value AS node, count(*) AS facts
        FROM discovered JOIN circuits ON digest = circuit, json_each(node_names(content)) WHERE setting = :setting GROUP BY 1, 2)
SELECT node, sum(held.facts) AS facts, sum(held.facts) * 1.0 / (SELECT sum(facts) FROM asked) AS share,
    sum(2 * held.facts >= asked.facts) AS relations, count(*) AS relations_with_any
FROM held JOIN asked USING (relation) GROUP BY 1 ORDER BY facts DESC, node""",
)

ROLES = Query(
    "roles",
    "Which heads have which role, in how many relations, and do the circuits of their facts hold them?",
    """
SELECT value ->> 'head' AS head, value ->> 'role' AS role, count(DISTINCT relation) AS relations, count(*) AS facts,
    avg(value ->> 'in_circuit') AS in_circuit
FROM discovered, json_each(heads) WHERE setting = :setting
GROUP BY 1, 2 ORDER BY relations DESC, facts DESC, head, role""",
)

LAYERS = Query(
    "layers",
    "How many heads of each layer does a circuit hold, and how often the layer's MLP?",
    """
WITH drawn AS (
        SELECT kind(model, relation) AS kind, content
        FROM discovered JOIN circuits ON digest = circuit WHERE setting = :setting),
    counted AS (SELECT kind, count(*) AS circuits FROM drawn GROUP BY 1)
SELECT kind, CAST(substr(value, 2) AS INTEGER) AS layer, sum(value LIKE 'a%') * 1.0 / circuits AS heads,
    sum(value LIKE 'm%') * 1.0 / circuits AS mlp
FROM drawn JOIN counted USING (kind), json_each(node_names(content)) GROUP BY 1, 2 ORDER BY 1, 2""",
)

_OVERLAPS = """
WITH halves AS MATERIALIZED (
        SELECT kind(model, relation) AS kind, relation, content, row_number() OVER (PARTITION BY relation ORDER BY fact) % 2 AS half
        FROM discovered JOIN circuits ON digest = circuit WHERE setting = :setting),
    counted AS (SELECT kind, relation, half, count(*) AS circuits FROM halves GROUP BY 1, 2, 3),
    held AS MATERIALIZED (
        SELECT relation, half, value AS edge, count(*) * 1.0 / circuits AS share
        FROM halves JOIN counted USING (relation, half), json_each(edge_names(content)) GROUP BY 1, 2, 3),
    whole AS (SELECT kind, relation, half, sum(share) AS edges FROM held JOIN counted USING (relation, half) GROUP BY 1, 2, 3),
    both AS (
        SELECT a.relation AS one, b.relation AS other, sum(min(a.share, b.share)) AS edges
        FROM held AS a JOIN held AS b USING (edge) WHERE a.half = 0 AND b.half = 1 GROUP BY 1, 2),
    overlaps AS MATERIALIZED (
        SELECT a.kind AS kind, one, b.kind AS other_kind, other, both.edges / (a.edges + b.edges - both.edges) AS overlap
        FROM both JOIN whole AS a ON a.relation = one AND a.half = 0 JOIN whole AS b ON b.relation = other AND b.half = 1)"""

MAP = Query(
    "map",
    "How far do the circuits of two relations overlap?",
    f"{_OVERLAPS}\nSELECT kind, one, other_kind, other, overlap FROM overlaps ORDER BY 1, 2, 3, 4",
)

NEAREST = Query(
    "nearest",
    "Which other relation's circuits are most like each relation's?",
    f"""{_OVERLAPS},
    mean AS (
        SELECT a.kind AS kind, a.one AS one, a.other AS other, (a.overlap + b.overlap) / 2 AS overlap
        FROM overlaps AS a JOIN overlaps AS b ON a.one = b.other AND a.other = b.one),
    ranked AS (
        SELECT kind, one, other, overlap, row_number() OVER (PARTITION BY one ORDER BY overlap DESC, other) AS place
        FROM mean WHERE one <> other)
SELECT ranked.kind, ranked.one AS relation, ranked.other AS nearest, ranked.overlap, own.overlap AS with_itself
FROM ranked JOIN mean AS own ON own.one = ranked.one AND own.other = ranked.one WHERE place = 1 ORDER BY 1, 2""",
)

KINDS = Query(
    "kinds",
    "Are relations of one kind more alike than those of two?",
    f"""{_OVERLAPS}
SELECT min(kind, other_kind) AS kind, max(kind, other_kind) AS other, count(*) / 2 AS pairs, avg(overlap) AS overlap
FROM overlaps WHERE one <> other GROUP BY 1, 2 ORDER BY 1, 2""",
)

_BY_STATED = """GROUP BY 1
ORDER BY stated = 'other words', stated = 'every epoch', stated <> 'never stated', stated <> 'once', CAST(stated AS INTEGER)"""

TAUGHT = Query(
    "taught",
    "Does it matter how often training stated the fact?",
    f"""
SELECT taught(model, relation, fact) AS stated, count(*) AS circuits, avg(nll_model) AS nll_model, avg(edges) AS edges,
    avg(rank_circuit = 1) AS "first", avg(certificate ->> '$.grades.sufficiency' = 'passed') AS sufficient,
    avg(certificate ->> '$.grades.specificity' = 'passed') AS specific,
    avg(certificate ->> '$.grades.necessity' = 'passed') AS necessary
FROM discovered WHERE setting = :setting {_BY_STATED}""",
)

SURE = Query(
    "sure",
    "Are circuits larger where the model is less sure? (a tenth of the facts a line, by the model's NLL)",
    """
WITH sorted AS (SELECT ntile(10) OVER (ORDER BY nll_model, fact) AS tenth, * FROM discovered WHERE setting = :setting)
SELECT tenth, count(*) AS circuits, avg(nll_model) AS nll_model, avg(edges) AS edges, avg(rank_circuit = 1) AS "first",
    avg(verdict = 'passed') AS all_three
FROM sorted GROUP BY 1 ORDER BY 1""",
)

WORDINGS = Query(
    "wordings",
    "How much of a circuit stays in other words, beside another fact of the relation in the same words? (Jaccard of edges)",
    f"""
WITH own AS MATERIALIZED (
        SELECT relation, subject(model, relation, fact) AS subject, taught(model, relation, fact) AS stated, content,
            lead(content) OVER (PARTITION BY relation ORDER BY fact) AS next
        FROM discovered JOIN circuits ON digest = circuit WHERE setting = :setting),
    others AS MATERIALIZED (
        SELECT relation, subject(model, relation, fact) AS subject, content AS reworded
        FROM discovered JOIN circuits ON digest = circuit WHERE setting LIKE :setting || ' wording %')
SELECT stated, count(*) AS facts, avg(jaccard(content, reworded)) AS other_words, avg(jaccard(content, next)) AS other_fact
FROM own JOIN others USING (relation, subject)
{_BY_STATED}""",
)

ATLAS: tuple[Query, ...] = (
    RELATIONS,
    SIZES,
    SPREAD,
    NODES,
    ROLES,
    LAYERS,
    MAP,
    NEAREST,
    KINDS,
    TAUGHT,
    SURE,
    WORDINGS,
)
"""In the order of the page."""


def of_setting(query: Query, setting: str) -> str:
    """The query's SQL for the circuits of one setting, to be asked as it stands."""
    quoted = setting.replace("'", "''")
    return query.sql.replace(":setting", f"'{quoted}'").strip()
