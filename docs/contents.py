"""What is in the site, in the order in which it is read: parts, and in each the files of the repository with their short titles.

What these pages link to is in the site too, without being listed.
"""

from collections.abc import Mapping

START = "README.md"
COMMANDS = "docs/commands.md"
"""No file: made of the commands' own help."""

CONTENTS: Mapping[str, Mapping[str, str]] = {
    "Start": {
        START: "Start and tour",
        "notebooks/quickstart.ipynb": "Quickstart notebook",
    },
    "Concepts": {
        "docs/concepts/graph.md": "The graph",
        "docs/concepts/circuits.md": "Circuits and their search",
        "docs/concepts/reading.md": "Ranks and the logit lens",
        "docs/concepts/roles.md": "Roles of heads",
        "docs/concepts/certificate.md": "The certificate",
        "docs/concepts/edits.md": "Edits and diffs",
    },
    "How to": {
        "docs/howto/own-fact.md": "Discover your own fact",
        "docs/howto/own-model.md": "Use your own model",
        "docs/howto/edit.md": "Edit and compare",
        "docs/howto/wrong-answer.md": "Explain a wrong answer",
        "docs/howto/python.md": "Work in Python",
        "docs/howto/claims.md": "Test a claim",
        "docs/sweeps.md": "Sweep over many facts",
        "CONTRIBUTING.md": "Extend kcircuit",
    },
    "Notebooks": {
        "notebooks/running_example.ipynb": "The paper’s running example",
        "notebooks/circuit_quality.ipynb": "Is it the circuit?",
        "notebooks/editing_diff.ipynb": "What an edit does",
        "notebooks/hallucination_and_icl.ipynb": "Hallucination and demonstrations",
    },
    "Results": {
        "data/results/table.md": "Circuits of all relations",
        "data/results/criteria.md": "What circuits are worth",
        "data/results/atlas.md": "The circuits of many facts",
        "benchmarks/groundtruth.md": "Known circuits",
        "data/results/two-hops.md": "Two hops",
        "data/results/two-hops-smollm2.md": "Two hops, SmolLM2-135M",
        "data/results/roles.md": "Stability of roles",
        "data/results/role-errors.md": "Roles given in error",
        "data/results/claims.md": "The papers’ claims",
        "data/results/editing.md": "Edits compared",
        "data/results/diff.md": "What edits do to circuits",
        "data/results/edit-layers.md": "Where to edit",
        "data/results/prune.md": "Many edits",
        "data/results/prune-ability.md": "Abilities after many edits",
        "data/results/ability.md": "What models are able to do",
        "data/results/ability-smollm2.md": "What SmolLM2-135M is able to do",
        "data/results/smollm2.md": "SmolLM2-135M",
        "benchmarks/README.md": "Speed and memory",
        "benchmarks/reliability.md": "Reliability",
    },
    "Models and data": {
        "data/models/factlm/README.md": "factlm",
        "data/facts/README.md": "The bundled facts",
    },
    "Reference": {
        COMMANDS: "Commands",
        "circuits/__init__.py": "Python",
        "CHANGELOG.md": "Changes",
    },
}
