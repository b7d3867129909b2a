"""The project's own checks can fail: each planted mistake is found, and a sound project is not."""

import importlib.util
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import pytest
from sqlfluff.core import FluffConfig, Linter

ROOT = Path(__file__).resolve().parents[2]


def check(name: str) -> ModuleType:
    """The script ``tests/lint/<name>.py`` as a module."""
    spec = importlib.util.spec_from_file_location(f"lint_{name}", ROOT / f"tests/lint/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


yaml_keys = check("yaml_keys")
engine_sql = check("engine_sql")
tracked_files = check("tracked_files")
systemd_units = check("systemd_units")

PROJECT = {
    "dbt_project.yml": """
        name: shop
        version: "1.0.0"
        profile: shop
        model-paths: [models]
        test-paths: [tests/data]
        flags:
          require_generic_test_arguments_property: true
        vars:
          as_of: ""
        models:
          shop:
            +persist_docs:
              columns: true
            kpis:
              +materialized: table
              +meta:
                any word: is fine here
              orders_daily:
                +tags: [daily]
    """,
    "selectors.yml": """
        selectors:
          - name: hourly
            description: What is built every hour
            definition:
              union:
                - method: tag
                  value: hourly
                  children: true
                - exclude:
                    - tag: daily
    """,
    "models/kpis/_kpis__models.yml": """
        version: 2
        models:
          - name: orders_daily
            description: One row per day.
            config:
              contract:
                enforced: true
              indexes:
                - columns: [order_date]
                  unique: true
              meta:
                owner: sales
            constraints:
              - type: check
                expression: orders >= 0
            data_tests:
              - unique_pair:
                  arguments:
                    columns: [order_date, shop_id]
                  config:
                    severity: warn
            columns:
              - name: order_date
                description: The day.
                data_type: date
                constraints:
                  - type: not_null
                data_tests:
                  - not_null
                  - relationships:
                      arguments:
                        to: ref('days')
                        field: day
              - name: shop_id
                description: The shop.
                config:
                  tags: [key]
                data_tests:
                  - accepted_values:
                      name: known_shops
                      arguments:
                        values: [a, b]
                        quote: true
        unit_tests:
          - name: counts_orders
            model: orders_daily
            overrides:
              vars:
                as_of: "2024-01-01"
            given:
              - input: ref('orders')
                rows:
                  - {order_id: 1}
            expect:
              rows:
                - {orders: 1}
        exposures:
          - name: dashboard
            type: dashboard
            description: What sales looks at.
            maturity: high
            url: https://example.com
            owner:
              name: Sales
              email: sales@example.com
            depends_on:
              - ref('orders_daily')
            config:
              meta:
                criticality: high
        semantic_models:
          - name: orders
            description: Orders, by day.
            model: ref('orders_daily')
            defaults:
              agg_time_dimension: order_date
            entities:
              - name: shop
                type: primary
                expr: shop_id
            measures:
              - name: orders
                agg: sum
                expr: orders
            dimensions:
              - name: order_date
                type: time
                type_params:
                  time_granularity: day
        metrics:
          - name: orders
            label: Orders
            description: How many orders there were.
            type: simple
            type_params:
              measure:
                name: orders
                fill_nulls_with: 0
            config:
              enabled: true
          - name: orders_of_the_new_form
            label: Orders
            description: How many orders there were.
            type: simple
            agg: count
            expr: order_id
    """,
    "models/kpis/orders_daily.sql": """
        {{ config(
            materialized='incremental',
            unique_key='order_date',
            on_schema_change='fail',
        ) }}

        select * from {{ ref('orders') }}
    """,
    "models/staging/_shop__sources.yml": """
        sources:
          - name: shop
            description: The shop's own tables.
            schema: raw_shop
            config:
              freshness:
                warn_after: {count: 1, period: day}
              loaded_at_field: loaded_at
            tables:
              - name: orders
                description: One row per order.
                identifier: orders_v2
                columns:
                  - name: order_id
                    description: The order.
                    data_tests: [unique]
    """,
    "seeds/_seeds.yml": """
        seeds:
          - name: days
            description: One row per day.
            config:
              column_types:
                day: date
            columns:
              - name: day
                description: The day.
    """,
    "seeds/days.csv": "day\n2024-01-01\n",
    "snapshots/_snapshots.yml": """
        snapshots:
          - name: orders_history
            description: One row per order and version.
            relation: ref('orders')
            config:
              strategy: check
              check_cols: all
              unique_key: order_id
              hard_deletes: new_record
            columns:
              - name: order_id
                description: The order.
    """,
    "macros/_macros.yml": """
        macros:
          - name: pct
            description: A share, 0-100.
            arguments:
              - name: part
                type: number
                description: The part.
    """,
    "macros/pct.sql": "{% macro pct(part) %} 100 * {{ part }} {% endmacro %}",
    "macros/engine/time.sql": """
        {% macro default__month(day) %} date_trunc('month', {{ day }}) {% endmacro %}
        {% macro spark__month(day) %} trunc({{ day }}, 'MM') {% endmacro %}
    """,
    "tests/data/generic/unique_pair.sql": """
        {% test unique_pair(model, columns, where=none) %} select 1 {% endtest %}
    """,
}
MODELS = "models/kpis/_kpis__models.yml"
SOURCES = "models/staging/_shop__sources.yml"
SNAPSHOTS = "snapshots/_snapshots.yml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small dbt project with something of every kind and nothing wrong."""
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text).lstrip("\n"))
    return tmp_path


def change(project: Path, name: str, old: str, new: str) -> int:
    """Replaces the first ``old`` in a file of the project; the line where it stood."""
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


def test_a_sound_project_has_nothing_to_mend(project: Path) -> None:
    assert yaml_keys.lint(project) == []


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        pytest.param("dbt_project.yml", "model-paths", "models-paths", id="project"),
        pytest.param("dbt_project.yml", "+materialized", "+materialised", id="project: setting"),
        pytest.param("dbt_project.yml", "+persist_docs", "persist_docs", id="project: plus"),
        pytest.param("dbt_project.yml", "columns: true", "column: true", id="project: inside"),
        pytest.param("dbt_project.yml", "kpis:", "kpi:", id="project: folder"),
        pytest.param("dbt_project.yml", "orders_daily:", "order_daily:", id="project: model"),
        pytest.param(
            "dbt_project.yml",
            "require_generic_test_arguments_property",
            "require_generic_test_argument_property",
            id="project: flag",
        ),
        pytest.param("selectors.yml", "definition", "defintion", id="selector"),
        pytest.param("selectors.yml", "children", "childrens", id="selector: method"),
        pytest.param("selectors.yml", "tag: daily", "tags: daily", id="selector: short form"),
        pytest.param(MODELS, "models:", "model:", id="top level"),
        pytest.param(MODELS, "data_tests:", "data_test:", id="model"),
        pytest.param(MODELS, "data_tests:", "tests:", id="model: old name"),
        pytest.param(MODELS, "config:", "configs:", id="model: config"),
        pytest.param(MODELS, "contract:", "contracts:", id="model: in config"),
        pytest.param(MODELS, "enforced:", "enforce:", id="model: contract"),
        pytest.param(MODELS, "unique: true", "uniqe: true", id="model: index"),
        pytest.param(MODELS, "expression:", "expresion:", id="model: constraint"),
        pytest.param(MODELS, "severity:", "severty:", id="test: config"),
        pytest.param(MODELS, "arguments:", "argument:", id="test: arguments"),
        pytest.param(
            MODELS, "columns: [order_date, shop_id]", "column: []", id="test: own argument"
        ),
        pytest.param(MODELS, "field:", "feild:", id="test: dbt's argument"),
        pytest.param(MODELS, "quote:", "qoute:", id="test: optional argument"),
        pytest.param(MODELS, "data_type:", "datatype:", id="column"),
        pytest.param(MODELS, "tags: [key]", "tag: [key]", id="column: config"),
        pytest.param(MODELS, "overrides:", "override:", id="unit test"),
        pytest.param(MODELS, "vars:", "var:", id="unit test: overrides"),
        pytest.param(MODELS, "input:", "inputs:", id="unit test: given"),
        pytest.param(MODELS, "expect:", "expects:", id="unit test: expect"),
        pytest.param(MODELS, "depends_on:", "depend_on:", id="exposure"),
        pytest.param(MODELS, "email:", "mail:", id="exposure: owner"),
        pytest.param(MODELS, "defaults:", "default:", id="semantic model"),
        pytest.param(
            MODELS, "agg_time_dimension:", "agg_time_dimensions:", id="semantic: defaults"
        ),
        pytest.param(MODELS, "agg: sum", "aggr: sum", id="semantic model: measure"),
        pytest.param(MODELS, "time_granularity:", "time_grain:", id="semantic model: dimension"),
        pytest.param(MODELS, "expr: shop_id", "exp: shop_id", id="semantic model: entity"),
        pytest.param(MODELS, "fill_nulls_with:", "fill_null_with:", id="metric: measure"),
        pytest.param(MODELS, "enabled: true", "enable: true", id="metric: config"),
        pytest.param(MODELS, "agg: count", "aggregation: count", id="metric of the new form"),
        pytest.param("models/kpis/orders_daily.sql", "unique_key", "unique_keys", id="sql: config"),
        pytest.param(SOURCES, "schema:", "shema:", id="source"),
        pytest.param(SOURCES, "freshness:", "fresh:", id="source: config"),
        pytest.param(SOURCES, "warn_after:", "warn_afer:", id="source: freshness"),
        pytest.param(SOURCES, "identifier:", "identifer:", id="source: table"),
        pytest.param("seeds/_seeds.yml", "column_types:", "columns_types:", id="seed: config"),
        pytest.param(SNAPSHOTS, "relation:", "relations:", id="snapshot"),
        pytest.param(SNAPSHOTS, "hard_deletes:", "hard_delete:", id="snapshot: config"),
        pytest.param("macros/_macros.yml", "arguments:", "args:", id="macro"),
        pytest.param("macros/_macros.yml", "type:", "typ:", id="macro: argument"),
    ],
)
def test_a_misspelt_key_is_found(project: Path, name: str, right: str, wrong: str) -> None:
    line = change(project, name, right, wrong)
    found = {(str(f.path), f.line, f.key) for f in yaml_keys.lint(project)}
    assert (name, line, wrong.split(":")[0]) in found


def test_the_right_key_is_suggested(project: Path) -> None:
    change(project, MODELS, "data_tests:", "data_test:")
    first = yaml_keys.lint(project)[0]
    assert str(first) == f"{MODELS}:16: data_test: unknown key; did you mean data_tests?"


def test_a_key_that_stands_twice_is_found(project: Path) -> None:
    change(
        project,
        MODELS,
        "    description: One row per day.",
        "    name: orders_daily\n    description: x",
    )
    assert "stands here twice" in yaml_keys.lint(project)[0].message


def test_a_file_that_is_not_yaml_is_named(project: Path) -> None:
    line = change(project, MODELS, "One row per day.", "One row: per day.")
    assert (yaml_keys.lint(project)[0].line, yaml_keys.lint(project)[0].key) == (line, "not YAML")


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        pytest.param(MODELS, "description: One row per day.", "orders_daily", id="model"),
        pytest.param(MODELS, "description: The day.", "order_date", id="column"),
        pytest.param(MODELS, "description: What sales looks at.", "dashboard", id="exposure"),
        pytest.param(MODELS, "description: Orders, by day.", "orders", id="semantic model"),
        pytest.param(SOURCES, "description: The shop's own tables.", "shop", id="source"),
        pytest.param(SOURCES, "description: One row per order.", "orders", id="source table"),
        pytest.param(SOURCES, "description: The order.", "order_id", id="source column"),
        pytest.param("seeds/_seeds.yml", "description: One row per day.", "days", id="seed"),
        pytest.param(
            SNAPSHOTS,
            "description: One row per order and version.",
            "orders_history",
            id="snapshot",
        ),
        pytest.param("macros/_macros.yml", "description: A share, 0-100.", "pct", id="macro"),
    ],
)
@pytest.mark.parametrize("blank", ["description: ''", "description: '  '", "description:"])
def test_a_blank_description_is_found(
    project: Path, name: str, text: str, key: str, blank: str
) -> None:
    change(project, name, text, blank)
    assert [f.key for f in yaml_keys.lint(project)] == [key]


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("models/staging/stg_orders.sql", "select 1 as order_id", "stg_orders"),
        ("seeds/months.csv", "month\n1\n", "months"),
        ("macros/ratio.sql", "{% macro ratio(a, b) %} {{ a }} / {{ b }} {% endmacro %}", "ratio"),
    ],
)
def test_what_no_yaml_describes_is_found(project: Path, name: str, text: str, key: str) -> None:
    (project / name).write_text(text)
    assert [f.key for f in yaml_keys.lint(project)] == [key]


SOUND_SQL = """
-- now() is a word in this comment, and so is a::text
{# current_date too #}
with orders as (select * from {{ ref('orders') }})

select
    {{ dbt.date_trunc('month', 'ordered_at') }} as order_month,
    {{ 'a' ~ 'b' }} as label,
    'now() - interval -> ilike' as words,
    cast(amount as {{ type_number() }}) as amount,
    extract(year from ordered_at) as order_year,
    count(*) filter (where amount > 0) as paid
from orders
"""


@pytest.mark.parametrize("folder", ["models/kpis", "snapshots", "macros"])
@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("select amount::numeric", "::"),
        ("select ordered_at at time zone 'UTC'", "at time zone"),
        ("select extract(epoch from a - b)", "extract(epoch"),
        ("select body -> 'id'", "->"),
        ("select body ->> 'id'", "->>"),
        ("select jsonb_array_length(body)", "jsonb_array_length("),
        ("select * from generate_series(1, 9) as n", "generate_series("),
        ("select distinct on (order_id) order_id", "distinct on"),
        ("select name ilike 'a%'", "ilike"),
        ("select name ~* 'a.*'", "~* '"),
        ("select now() as built_at", "now("),
        ("select current_timestamp as built_at", "current_timestamp"),
        ("select CURRENT_DATE as today", "CURRENT_DATE"),
        ("select localtimestamp as built_at", "localtimestamp"),
        ("select date_trunc('month', a)", "date_trunc("),
        ("select a + interval '1 day'", "interval '"),
        ("select to_char(a, 'YYYY')", "to_char("),
        ("select array[1, 2]", "array["),
        ("select unnest(a)", "unnest("),
        ("select string_agg(a, ',')", "string_agg("),
        ("select cast(a as text)", "as text)"),
        ("select cast(a as timestamptz)", "as timestamptz"),
        ("select cast(a as numeric(10, 2))", "as numeric("),
        ("select\n    a\n    at\n    time zone 'UTC'", "at time zone"),
    ],
)
def test_sql_of_one_engine_is_found(tmp_path: Path, folder: str, sql: str, found: str) -> None:
    path = tmp_path / folder / "planted.sql"
    path.parent.mkdir(parents=True)
    path.write_text(f"-- a comment\n{sql}\n")
    assert [f.found for f in engine_sql.lint(tmp_path)] == [found]
    assert engine_sql.lint(tmp_path)[0].line == (4 if "\n" in sql else 2)


def test_sql_of_both_engines_has_nothing_to_mend(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/orders.sql").write_text(SOUND_SQL)
    assert engine_sql.lint(tmp_path) == []


def test_the_macros_that_are_recommended_exist() -> None:
    known = {
        name
        for path in (ROOT / "macros").rglob("*.sql")
        for name in yaml_keys.MACRO.findall(path.read_text())
    }
    named = {
        word
        for rule in engine_sql.RULES
        for word in re.findall(r"(?<![.\w])(\w+)\(\)", rule.instead)
    }
    assert named
    assert named - known == set()


@pytest.mark.parametrize(
    ("forms", "message"),
    [
        (("month", "default"), "lacks its form for Spark"),
        (("month", "spark"), "lacks its form for PostgreSQL"),
        (("default", "spark"), "no macro that dispatches"),
        (("month", "default", "spark"), None),
        (("month", "postgres", "spark"), None),
    ],
)
def test_each_dispatched_macro_has_both_forms(
    tmp_path: Path, forms: tuple[str, ...], message: str | None
) -> None:
    engine = tmp_path / "macros/engine"
    engine.mkdir(parents=True)
    lines = [
        "{% macro month(a) %}{{ return(adapter.dispatch('month')(a)) }}{% endmacro %}"
        if form == "month"
        else f"{{% macro {form}__month(a) %}} {{{{ a }}}} {{% endmacro %}}"
        for form in forms
    ]
    (engine / "time.sql").write_text("\n".join(lines))
    messages = [f.message for f in engine_sql.lint(tmp_path)]
    assert len(messages) == (message is not None)
    assert message is None or message in messages[0]


def test_a_macro_that_dispatches_elsewhere_is_found(tmp_path: Path) -> None:
    for folder in ("macros", "macros/engine"):
        (tmp_path / folder).mkdir()
    (tmp_path / "macros/month.sql").write_text(
        "{% macro month(a) %}{{ return(adapter.dispatch('month')(a)) }}{% endmacro %}"
    )
    (tmp_path / "macros/engine/month.sql").write_text(
        "{% macro default__month(a) %}{% endmacro %}{% macro spark__month(a) %}{% endmacro %}"
    )
    assert [f.message for f in engine_sql.lint(tmp_path)] == [
        "dispatched macros belong to macros/engine/"
    ]


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("SELECT a FROM b", "CP01"),
        ("select A from b", "CP02"),
        ("select\n    a\n    , c\nfrom b", "LT04"),
        ("select\n  a,\n  c\nfrom b", "LT02"),
        ("select a c from b", "AL02"),
        ("select a from b join d on b.a = d.a", "AM05"),
        ("select b.a from b right join d on b.a = d.a", "CV08"),
        ("select a from (select a from b) as c", "ST05"),
        ("select a::text from b", "CV11"),
        ("select " + "a" * 100 + " from b", "LT05"),
    ],
)
def test_sqlfluff_finds_bad_style(sql: str, rule: str) -> None:
    config = FluffConfig.from_path(str(ROOT), overrides={"templater": "raw"})
    found = Linter(config=config).lint_string(sql + "\n").get_violations()
    assert rule in {violation.rule_code() for violation in found}


def test_sqlfluff_takes_good_style() -> None:
    config = FluffConfig.from_path(str(ROOT), overrides={"templater": "raw"})
    sql = textwrap.dedent("""\
        with deals as (

            select * from staging.stg_opportunities

        ),

        weighted as (

            select
                deals.*,
                value * probability as weighted_value
            from deals
            where stage != 'lost'

        ),

        final as (

            select
                weighted.owner,
                sum(weighted.weighted_value) as value
            from weighted
            left join owners
                on weighted.owner = owners.name
            where owners.is_active
            group by weighted.owner

        )

        select * from final
    """)
    assert Linter(config=config).lint_string(sql).get_violations() == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("--index" + "-url https://packages.example", "--index" + "-url"),
        ("see https://pypi" + ".org/project/x", "pypi" + ".org"),
        ("data = '/wo" + "rk/main/x.csv'", "/wo" + "rk/main"),
        ("cd /ro" + "ot/stageline", "/ro" + "ot/stageline"),
    ],
)
def test_what_belongs_to_one_machine_is_found(tmp_path: Path, text: str, found: str) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)  # noqa: S607
    (tmp_path / "notes.txt").write_text(f"first line\n{text}\n")
    assert tracked_files.lint(tmp_path) == []
    subprocess.run(["git", "-C", str(tmp_path), "add", "notes.txt"], check=True)  # noqa: S607
    assert tracked_files.lint(tmp_path) == [f"notes.txt:2: {found}"]


LOCK = (ROOT / "requirements.lock").read_text()


def dependencies() -> set[str]:
    """Names of the packages that ``pyproject.toml`` asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(each for extra in extras for each in extra)]
    return {re.split(r"[^\w-]", each)[0] for each in asked}


def test_the_lock_names_packages_by_name_version_and_hash_only() -> None:
    package = r"[a-z0-9-]+==[\w.]+( ; [^\\\n]+)? \\\n"
    hashes = r"( {4}--hash=sha256:[0-9a-f]{64} \\\n)* {4}--hash=sha256:[0-9a-f]{64}\n"
    assert re.fullmatch(f"({package}{hashes})+", LOCK)


def test_the_lock_has_every_dependency() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", LOCK, re.MULTILINE))
    assert dependencies() - locked == set()


def test_the_parser_that_downloads_itself_is_installed_nowhere() -> None:
    parser = re.search(r"^dbt-core-experimental-parser==\S+ ; (.+) \\$", LOCK, re.MULTILINE)
    assert parser is None or parser.group(1) == "sys_platform == 'never'"
    with pytest.raises(PackageNotFoundError):
        version("dbt-core-experimental-parser")


def test_every_dependency_has_its_reason_and_no_other_has() -> None:
    tables = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/decisions.md").read_text(), re.MULTILINE)
    explained = {re.split(r"[^\w-]", name)[0] for row in tables for name in row.split(", ")}
    assert explained - {"package", "---"} == dependencies()


LAYERS = ("stageline", "loaders", "jobs", "webhook_receiver")


def test_a_setting_that_systemd_would_ignore_is_found(tmp_path: Path) -> None:
    unit = tmp_path / "one.service"
    unit.write_text(
        "# Nothing.\n[Unit]\nDescription=One\nUser=me\n\n"
        "[Service]\nNoNewPrivilegez=yes\nExecStart\n"
    )
    assert systemd_units.lint(unit) == [
        "one.service:4: User is not known in section [Unit]",
        "one.service:7: NoNewPrivilegez is not known in section [Service]",
        "one.service:8: not a setting is not known in section [Service]",
    ]


def import_contracts(folder: Path, imports: dict[str, str]) -> str:
    """What import-linter says of packages that hold nothing but ``imports``."""
    for package in (*LAYERS, "stageline/cli"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    for name, module in imports.items():
        (folder / name).write_text(f"import {module}\n")
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    ran = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    assert (ran.returncode == 0) == ("BROKEN" not in ran.stdout), ran.stderr
    return ran.stdout


def test_import_contracts_allow_what_the_layout_allows(tmp_path: Path) -> None:
    said = import_contracts(
        tmp_path,
        {
            "loaders/files.py": "stageline",
            "webhook_receiver/app.py": "stageline",
            "jobs/refresh.py": "loaders.files",
            "stageline/cli/load.py": "loaders.files",
            "stageline/cli/build.py": "jobs.refresh",
        },
    )
    assert "Contracts: 4 kept, 0 broken." in said


def test_import_contracts_can_break(tmp_path: Path) -> None:
    said = import_contracts(
        tmp_path,
        {
            "loaders/files.py": "webhook_receiver",
            "webhook_receiver/app.py": "jobs",
            "jobs/refresh.py": "webhook_receiver",
            "stageline/config.py": "loaders",
        },
    )
    assert "Contracts: 0 kept, 4 broken." in said
