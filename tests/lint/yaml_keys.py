"""Finds misspelt keys and blank descriptions in the YAML of the dbt project.

dbt ignores a key it does not know, on PostgreSQL without a word: a misspelt ``data_tests`` is a
test that never runs. It does ship the schema of its files, and checks it for four other adapters;
here the same schema is held against every key, with these differences: ``tests`` is refused
(``data_tests`` is its name now), semantic models and metrics of both forms are known (from dbt's
own classes), and so are the flags and ``selectors.yml``, for which dbt ships no schema.
``config(...)`` in a model's SQL and the arguments of generic tests are read, too.

    python tests/lint/yaml_keys.py [PROJECT]

Prints ``file:line: key: what is wrong`` and fails if there is anything to print.
"""

import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import dbt_common.events  # noqa: F401  (first: dbt's contracts cannot be imported before it)
import jinja2
import yaml
from dbt.contracts.graph.unparsed import UnparsedMetric, UnparsedSemanticModel
from dbt.contracts.project import ProjectFlags
from dbt.graph.selector_methods import MethodName
from dbt.include.global_project import PACKAGE_PATH as DBT_PACKAGE
from dbt.jsonschemas import JSONSCHEMAS_PATH

Schema = dict[str, Any]
Trail = tuple[str, ...]

#: Keys of dbt_project.yml that mirror the folders of a resource: which setting names the folders.
FOLDERS = {
    "models": "model-paths",
    "seeds": "seed-paths",
    "snapshots": "snapshot-paths",
    "data_tests": "test-paths",
    "tests": "test-paths",
    "analyses": "analysis-paths",
    "unit_tests": "model-paths",
    "exposures": "model-paths",
    "sources": "model-paths",
    "metrics": "model-paths",
    "semantic-models": "model-paths",
    "saved-queries": "model-paths",
    "macros": "macro-paths",
}
DESCRIBED = (
    "models",
    "sources",
    "seeds",
    "snapshots",
    "macros",
    "exposures",
    "metrics",
    "semantic_models",
)
SEMANTIC_PARTS = ("entities", "measures", "dimensions")
GENERIC_TEST = re.compile(r"{%-?\s*test\s+(\w+)\s*\(([^)]*)\)")
MACRO = re.compile(r"{%-?\s*macro\s+(\w+)\s*\(")
#: The forms of a dispatched macro are described once, by the macro that dispatches to them.
ENGINE_FORM = re.compile(r"(postgres|spark|default)__")


class Finding(NamedTuple):
    """One thing to mend: where, which key, and what is wrong with it."""

    path: Path
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.key}: {self.message}"


@cache
def resource_schema() -> Schema:
    """dbt's schema of the YAML beside models, seeds, snapshots and macros."""
    schema: Schema = json.loads((Path(JSONSCHEMAS_PATH) / "resources/latest.json").read_text())
    definitions = schema["definitions"]
    for definition in definitions.values():
        if isinstance(definition, dict) and "data_tests" in definition.get("properties", {}):
            definition["properties"].pop("tests", None)
    del schema["properties"]["tests"]
    config = {"$ref": "#/definitions/MetricConfig"}
    semantic_model = UnparsedSemanticModel.json_schema()
    metric = UnparsedMetric.json_schema()
    parts = [semantic_model["properties"][part]["items"] for part in SEMANTIC_PARTS]
    for part in (semantic_model, metric, *parts):
        part["properties"]["config"] = config
    schema["properties"]["semantic_models"] = {"type": "array", "items": semantic_model}
    schema["properties"]["metrics"]["items"] = {
        "anyOf": [{"$ref": "#/definitions/MetricsProperties"}, metric]
    }
    return schema


@cache
def project_schema() -> Schema:
    """dbt's schema of ``dbt_project.yml``, with the flags that it leaves open."""
    schema: Schema = json.loads((Path(JSONSCHEMAS_PATH) / "project/latest.json").read_text())
    schema["properties"]["flags"] = {**ProjectFlags.json_schema(), "additionalProperties": False}
    return schema


@cache
def selector_schema() -> Schema:
    """``selectors.yml``, as dbt's documentation describes it."""
    part = {"$ref": "#/definitions/Part"}
    either = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    parts = {"type": "array", "items": part}
    words = (
        "method",
        "value",
        "children",
        "parents",
        "children_depth",
        "parents_depth",
        "childrens_parents",
        "indirect_selection",
    )
    return {
        "type": "object",
        "properties": {
            "selectors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "description": {"type": "string"},
                        "default": {"type": ["boolean", "string"]},
                        "definition": part,
                    },
                    "additionalProperties": False,
                },
            }
        },
        "additionalProperties": False,
        "definitions": {
            "Part": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "object",
                        "properties": {
                            **dict.fromkeys(words, True),
                            **{str(method.value): either for method in MethodName},
                            **dict.fromkeys(("union", "intersection", "exclude"), parts),
                        },
                        "additionalProperties": False,
                    },
                ]
            }
        },
    }


class Project:
    """A dbt project on disk, each YAML file read once.

    Attributes:
        folder: Where ``dbt_project.yml`` is.
        name: The project's name.
        files: Path (relative to the folder), schema and content of each YAML file.
        unreadable: One finding for each file that is not YAML.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings: Schema = yaml.safe_load((folder / "dbt_project.yml").read_text())
        self.name = str(self._settings.get("name", ""))
        self.files: list[tuple[Path, Schema, yaml.Node]] = []
        self.unreadable: list[Finding] = []
        self._read(folder / "dbt_project.yml", project_schema())
        if (folder / "selectors.yml").exists():
            self._read(folder / "selectors.yml", selector_schema())
        for suffix in ("*.yml", "*.yaml"):
            for path in self.paths(suffix, "models", "seeds", "snapshots", "macros", "tests"):
                self._read(path, resource_schema())

    def roots(self, resource: str) -> list[Path]:
        """The folders that hold a kind of resource, which has a ``*-paths`` setting."""
        setting = FOLDERS[resource]
        given = self._settings.get(setting, [resource])
        return [self.folder / each for each in given if (self.folder / each).is_dir()]

    def paths(self, pattern: str, *resources: str) -> list[Path]:
        """The files that match ``pattern`` in the folders of ``resources``, sorted."""
        roots = (root for resource in resources for root in self.roots(resource))
        return sorted({path for root in roots for path in root.rglob(pattern)})

    def resources(self) -> Iterator[tuple[Path, yaml.Node]]:
        """The files that describe models, seeds, snapshots, macros and the like."""
        for path, schema, root in self.files:
            if schema is resource_schema():
                yield path, root

    def _read(self, path: Path, schema: Schema) -> None:
        relative = path.relative_to(self.folder)
        try:
            root = yaml.compose(path.read_text())
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.unreadable.append(Finding(relative, line, "not YAML", str(error.problem)))
            return
        if root is not None:
            self.files.append((relative, schema, root))


def lint(folder: Path) -> list[Finding]:
    """All findings in the dbt project in ``folder``, in the order of the files."""
    project = Project(folder)
    findings = [*project.unreadable]
    for path, schema, root in project.files:
        checker = _Checker(project, path, schema)
        checker.check(root, [schema], ())
        findings += checker.findings
    tests = _generic_tests(project)
    for path, root in project.resources():
        findings += _blank_descriptions(path, root)
        findings += _test_arguments(path, root, tests)
    if not project.unreadable:  # else what those describe would be missed
        findings += _undescribed(project)
    findings += _sql_configs(project)
    return sorted(set(findings))


class _Checker:
    """Holds one file's keys against a schema."""

    def __init__(self, project: Project, path: Path, schema: Schema) -> None:
        self.findings: list[Finding] = []
        self._project = project
        self._path = path
        self._schema = schema

    def check(self, node: yaml.Node, schemas: list[Any], trail: Trail) -> None:
        """Looks at ``node`` and all below it; ``schemas`` are the forms that it may have."""
        forms = list(self._forms(schemas))
        if any(form is True or not set(form) - {"description", "default"} for form in forms):
            return
        if isinstance(node, yaml.SequenceNode):
            items = [form["items"] for form in forms if "items" in form]
            for each in node.value:
                self.check(each, items, trail)
        elif isinstance(node, yaml.MappingNode):
            self._mapping(node, forms, trail)

    def _forms(self, schemas: Iterable[Any]) -> Iterator[Any]:
        for schema in schemas:
            if schema is True:
                yield True
            elif isinstance(schema, dict):
                if "$ref" in schema:
                    name = schema["$ref"].rsplit("/", 1)[-1]
                    yield from self._forms([self._schema["definitions"][name]])
                for word in ("anyOf", "oneOf", "allOf"):
                    yield from self._forms(schema.get(word, []))
                if "type" in schema or not set(schema) & {"$ref", "anyOf", "oneOf", "allOf"}:
                    yield schema

    def _mapping(self, node: yaml.MappingNode, forms: list[Any], trail: Trail) -> None:
        objects = [form for form in forms if "properties" in form or "additionalProperties" in form]
        if not objects:
            return  # dbt itself refuses a mapping where it wants something else
        named: dict[str, list[Any]] = {}
        for form in objects:
            for key, value in form.get("properties", {}).items():
                named.setdefault(key, []).append(value)
        others = [f["additionalProperties"] for f in objects if f.get("additionalProperties")]
        seen: set[str] = set()
        for key_node, value in _pairs(node):
            key = str(key_node.value)
            if key in seen:
                self._report(key_node, "stands here twice; only the last one counts")
            seen.add(key)
            if key in named:
                self.check(value, named[key], (*trail, key))
            elif self._is_folder(trail):
                if self._folder(key_node, named, (*trail, key)):
                    self.check(value, others, (*trail, key))
            elif others:
                self.check(value, others, (*trail, key))
            else:
                self._report(key_node, _unknown(key, named))

    def _is_folder(self, trail: Trail) -> bool:
        inside_setting = any(part.startswith("+") for part in trail)
        tree = self._schema is project_schema() and bool(trail) and trail[0] in FOLDERS
        return tree and not inside_setting

    def _folder(self, node: yaml.Node, named: Iterable[str], trail: Trail) -> bool:
        """True if a key under ``models:`` and its like names a folder or a file."""
        key = trail[-1]
        if key.startswith("+") or f"+{key}" in named:
            self._report(node, _unknown(key, named))
            return False
        inside = trail[1:]
        if inside[0] == self._project.name:
            inside = inside[1:]
        roots = self._project.roots(trail[0])
        if any(
            root.joinpath(*inside).is_dir() or list(root.glob("/".join([*inside[:-1], f"{key}.*"])))
            for root in roots
        ):
            return True
        self._report(node, f"is neither a setting (these begin with +) nor in {trail[0]}/")
        return False

    def _report(self, node: yaml.Node, message: str) -> None:
        line = node.start_mark.line + 1
        self.findings.append(Finding(self._path, line, str(node.value), message))


def _pairs(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Keys and values, those of a merged anchor (``<<: *name``) included."""
    for key, value in node.value:
        if key.value != "<<":
            yield key, value
            continue
        for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            yield from _pairs(merged)


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in _pairs(node) if name.value == key), None)


def _entries(node: yaml.Node | None, key: str) -> list[yaml.Node]:
    value = _value(node, key)
    return list(value.value) if isinstance(value, yaml.SequenceNode) else []


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return "unknown key" + (f"; did you mean {near[0]}?" if near else "")


def _blank_descriptions(path: Path, root: yaml.Node) -> Iterator[Finding]:
    def described(entry: yaml.Node, kind: str) -> Iterator[Finding]:
        text, name = _value(entry, "description"), _value(entry, "name")
        if isinstance(entry, yaml.MappingNode) and not (
            text is not None and str(text.value).strip()
        ):
            label = str(name.value) if name is not None else kind
            yield Finding(path, entry.start_mark.line + 1, label, f"this {kind} has no description")

    for section in DESCRIBED:
        kind = section.removesuffix("s").replace("_", " ")
        for entry in _entries(root, section):
            yield from described(entry, kind)
            for column in _entries(entry, "columns"):
                if _value(column, "include") is None:
                    yield from described(column, "column")
            for table in _entries(entry, "tables"):
                yield from described(table, "table")
                for column in _entries(table, "columns"):
                    yield from described(column, "column")


def _generic_tests(project: Project) -> dict[str, set[str]]:
    """The arguments of each generic test, by its name: dbt's own and the project's."""
    found: dict[str, set[str]] = {}
    for path in [*Path(DBT_PACKAGE).rglob("*.sql"), *project.paths("*.sql", "macros", "tests")]:
        for name, arguments in GENERIC_TEST.findall(path.read_text()):
            found[name] = {part.split("=")[0].strip() for part in arguments.split(",")}
    return found


def _test_arguments(path: Path, node: yaml.Node, known: dict[str, set[str]]) -> Iterator[Finding]:
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _test_arguments(path, each, known)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in _pairs(node):
        yield from _test_arguments(path, value, known)
        if key.value != "data_tests" or not isinstance(value, yaml.SequenceNode):
            continue
        for test in value.value:
            for name, inner in _pairs(test) if isinstance(test, yaml.MappingNode) else ():
                given = _value(inner, "arguments")
                takes = known.get(str(name.value))
                if takes is None or not isinstance(given, yaml.MappingNode):
                    continue  # dbt itself refuses a test that does not exist
                for argument, _ in _pairs(given):
                    if argument.value not in takes:
                        line, word = argument.start_mark.line + 1, str(argument.value)
                        yield Finding(path, line, word, _unknown(word, takes))


def _undescribed(project: Project) -> Iterator[Finding]:
    """Models, seeds and macros that no YAML names."""
    named: dict[str, set[str]] = {section: set() for section in DESCRIBED}
    for _, root in project.resources():
        for section in DESCRIBED:
            names = (_value(entry, "name") for entry in _entries(root, section))
            named[section] |= {str(name.value) for name in names if name is not None}
    for section, pattern in (("models", "*.sql"), ("seeds", "*.csv")):
        for path in project.paths(pattern, section):
            if path.stem not in named[section]:
                message = f"no YAML describes this {section.removesuffix('s')}"
                yield Finding(path.relative_to(project.folder), 1, path.stem, message)
    for path in project.paths("*.sql", "macros"):
        text = path.read_text()
        for match in MACRO.finditer(text):
            name = match.group(1)
            if name not in named["macros"] and not ENGINE_FORM.match(name):
                line = text.count("\n", 0, match.start()) + 1
                message = "no YAML describes this macro"
                yield Finding(path.relative_to(project.folder), line, name, message)


def _sql_configs(project: Project) -> Iterator[Finding]:
    """The keys of ``config(...)`` in the SQL of models."""
    known = set(resource_schema()["definitions"]["ModelConfig"]["properties"])
    environment = jinja2.Environment(extensions=["jinja2.ext.do"])  # noqa: S701  (parses, never renders)
    for path in project.paths("*.sql", "models"):
        for call in environment.parse(path.read_text()).find_all(jinja2.nodes.Call):
            if not (isinstance(call.node, jinja2.nodes.Name) and call.node.name == "config"):
                continue
            for argument in call.kwargs:
                if argument.key not in known:
                    where, message = path.relative_to(project.folder), _unknown(argument.key, known)
                    yield Finding(where, argument.lineno, argument.key, message)


def main() -> int:
    """Prints the findings of a project; 1 if there are any."""
    project = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    findings = lint(project)
    for finding in findings:
        print(finding)
    print(f"{len(findings)} to mend" if findings else "no misspelt key, no blank description")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
