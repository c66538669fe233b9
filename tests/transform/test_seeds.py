"""Seeds, the project's and a tenant's own, on DuckDB and on Postgres."""

import os
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.fingerprint import get_prepared_file
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import prepare_project
from fabric_assets.transform.selection import select_models
from tests.transform.conftest import Run, build_tenant, copy_project, make_tenant, write_files
from tests.transform.killing import kill_in_hook
from tests.transform.seeded import LARGE_ROWS, LISTS, REGIONS, SEEDED, TORN


@pytest.fixture
def run(run_in_warehouse: Run) -> Run:
    return run_in_warehouse


def test_seeds_are_built_typed_and_tested_and_models_read_them(seeded: Settings, destination: dict[str, Any], run: Run) -> None:
    outcome = build_tenant(seeded, make_tenant("acme", destination=destination, streams={}, **LISTS))
    assert {name: (result.status, result.rows, result.message) for name, result in outcome.models.items()} == {
        "codes": ("success", 2, ""),
        "late": ("success", 1, ""),
        "regions": ("success", 3, ""),
        "weekdays": ("success", 2, ""),
        "kinds": ("success", 4, ""),
        "large_regions": ("success", 1, ""),
    }
    assert {name: test.status for name, test in outcome.tests.items()} == dict.fromkeys(
        ("unique_regions_region", "not_null_regions_region", "unique_acme__codes_code"), "pass"
    )
    assert run("select region, label, population from acme_seeds.regions order by 1") == [
        ("EU", "Europe", 449),
        ("US", "United States, all", 335),
        ("XX", None, None),
    ]
    assert run("select number, name from acme_lists.weekdays order by 1") == [("1", "Monday"), ("2", "Tuesday")]
    assert run("select code from acme_seeds.codes order by 1") == [("007",), ("1",)]
    assert outcome.models["regions"].table_name.endswith(".acme_seeds.regions")
    assert outcome.models["large_regions"].lineage == {"region": [("seed.fabric.regions", "region")]}
    # Values of every type arrive as they stand in the file.
    assert run("select id, words, cast(share as numeric(20, 3)), on_day, is_open, nothing from acme_seeds.kinds order by id") == [
        (1, 'it\'s, 100 % "quoted" \\ {{ x }} ;', Decimal("0.1"), date(2024, 2, 29), True, None),
        (2, "two\nlines and  spaces ", Decimal("-1234567.125"), date(2023, 12, 31), False, None),
        (3, None, None, None, None, None),
        (4, "Ünïcode 城市", Decimal(2), date(2024, 1, 1), True, None),
    ]
    # Another tenant's own seed of the same name is another table, beside the largest seed that a tenant may have.
    outcome = build_tenant(seeded, make_tenant("globex", destination=destination, streams={}, **LISTS))
    assert set(outcome.models) == {"codes", "large", "regions", "weekdays", "kinds", "large_regions"}
    assert run("select code from globex_seeds.codes", tenant="globex") == [("x",)]
    assert run("select code from acme_seeds.codes order by 1") == [("007",), ("1",)]
    large = outcome.models["large"]
    assert (large.status, large.rows) == ("success", LARGE_ROWS)
    assert run("select sum(id), sum(value) from globex_seeds.large", tenant="globex") == [(721_981_000, 722_000_000)]
    assert destination["type"] != "duckdb" or large.seconds < 30, "DuckDB takes a minute for a parameter for each value"


def test_a_changed_seed_replaces_its_rows_also_after_a_killed_run_and_a_full_refresh_its_columns(
    seeded: Settings, change: Callable[..., Settings], destination: dict[str, Any], run: Run
) -> None:
    tenant = make_tenant("initech", destination=destination, streams={}, **REGIONS)
    build_tenant(seeded, tenant)
    settings = change()
    # The hook runs in the seed's transaction, after the old rows were deleted.
    kill_in_hook(settings, tenant, "seed.fabric.regions")
    assert run("select region from initech_seeds.regions order by 1", tenant="initech") == [("EU",), ("US",), ("XX",)]
    failed = build_tenant(settings, tenant)
    assert failed.models["large_regions"].rows == 1
    assert run("select region, population from initech_seeds.regions", tenant="initech") == [("AP", 4700)]
    assert (failed.models["currencies"].status, failed.models["currency_labels"].status) == ("error", "skipped")
    assert "currency" in failed.models["currencies"].message
    assert run("select * from initech_seeds.currencies", tenant="initech") == [("EU", "Euro")]
    assert build_tenant(settings, tenant, full_refresh=True).models["currency_labels"].status == "success"
    assert run("select * from initech_seeds.currencies", tenant="initech") == [("AP", "JPY", "Yen")]


def test_another_tenants_seeds_and_snapshots_are_neither_selected_nor_in_the_manifest(seeded: Settings) -> None:
    from fabric_assets.transform.worker.manifest import load_manifest

    tenants = {name: make_tenant(name, select=["*"]) for name in ("acme", "globex", "initech")}
    graph = prepare_graph(tenants.values(), seeded)
    expected = {
        "acme": {"seed.fabric.acme__codes", "seed.fabric.acme__late", "snapshot.fabric.acme__vips"},
        "globex": {"seed.fabric.globex__codes", "seed.fabric.globex__large"},
        "initech": set(),
    }
    everything = set[str]().union(*expected.values())
    for name, tenant in tenants.items():
        assert tenant.transform
        found = {model.unique_id for model in select_models(graph, tenant=name, transform=tenant.transform)}
        assert found & everything == expected[name]
        assert {"seed.fabric.regions", "snapshot.fabric.customer_names"} <= found
        assert set(load_manifest(get_prepared_file(seeded), tenant=name).nodes) & everything == expected[name]


# Files of a tenant ME, with words of the message to that tenant.
CHECK_ALL = "strategy: check, check_cols: all"
STORED = "config: {store_failures: true, schema: snapshots}"
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "plain name": ({"seeds/tenants/ME/plain.csv": "a\n1\n"}, "seeds/tenants/ME/plain.csv: name the file ME__plain.csv"),
    "another's name": ({"seeds/tenants/ME/acme__codes.csv": "a\n1\n"}, "seeds/tenants/ME/acme__codes.csv: name the file ME__acme__codes.csv"),
    "too large": ({"seeds/tenants/ME/ME__big.csv": "a\n" + "x" * 2**20}, "ME__big.csv: it has 1.0 MB, more than 1: a seed is a short list"),
    "hook": ({"seeds/tenants/ME/ME__a.csv": "a\n1\n", "seeds/tenants/ME/a.yml": "seeds: [{name: ME__a, config: {post_hook: drop table x}}]"}, "no hooks"),
    "another's schema": (
        {"seeds/tenants/ME/ME__a.csv": "a\n1\n", "seeds/tenants/ME/a.yml": "seeds: [{name: ME__a, config: {schema: raw_shop}}]"},
        "the schema raw_shop is the platform's own",
    ),
    "shared seed's config": ({"seeds/tenants/ME/a.yml": "seeds: [{name: regions, config: {enabled: false}}]"}, "seeds names regions"),
    "shared snapshot's config": ({"snapshots/tenants/ME/a.yml": "snapshots: [{name: customer_names, config: {enabled: false}}]"}, "names customer_names"),
    "plain snapshot": ({"snapshots/tenants/ME/a.sql": "{%- snapshot plain -%} select 1 as id {% endsnapshot %}"}, "a.sql: name the snapshot ME__plain"),
    "hook of a snapshot": (
        {"snapshots/tenants/ME/a.sql": "{% snapshot ME__a %}{{ config(strategy='check', unique_key='id', check_cols='all', pre_hook='x') }}"
         "select 1 as id {% endsnapshot %}"},
        "a tenant's own snapshots have no hooks",
    ),
    "another's model": (
        {"snapshots/tenants/ME/a.yml": f"snapshots: [{{name: ME__a, relation: \"ref('acme__codes')\", config: {{{CHECK_ALL}, unique_key: a}}}}]"},
        "it refers to acme__codes, which only tenant acme has",
    ),
    "snapshot in a model's yml": (
        {"models/tenants/ME/a.yml": f"snapshots: [{{name: ME__a, relation: \"ref('nowhere')\", config: {{{CHECK_ALL}, unique_key: id}}}}]"},
        "nowhere",
    ),
    "model among the snapshots": ({"models/tenants/ME/ME__a.sql": "{{ config(schema='snapshots') }}select 1 as id"}, "snapshots is for snapshots alone"),
    "test among the snapshots": (
        {"models/tenants/ME/ME__a.sql": "select 1 as id",
         "models/tenants/ME/a.yml": f"models: [{{name: ME__a, data_tests: [{{unique: {{arguments: {{column_name: id}}, {STORED}}}}}]}}]"},
        "the schema snapshots is for snapshots alone",
    ),
}  # fmt: skip
TENANTS = {attempt: f"tenant{number}" for number, attempt in enumerate(REFUSED)}


@pytest.fixture(scope="module")
def attempted(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The project with all attempts at once, each in the folders of a tenant of its own."""
    root = tmp_path_factory.mktemp("attempted")
    settings = Settings(tenants_dir=root / "tenants", dbt_project_dir=copy_project(root / "project"), data_dir=root / "data")
    write_files(settings.dbt_project_dir, SEEDED)
    for key, (files, _) in REFUSED.items():
        write_files(settings.dbt_project_dir, {name.replace("ME", TENANTS[key]): text.replace("ME", TENANTS[key]) for name, text in files.items()})
    prepare_project(settings)
    return settings


# One worker, so that the project is parsed once.
@pytest.mark.xdist_group("own_seeds")
@pytest.mark.parametrize("attempt", REFUSED)
def test_what_is_wrong_with_a_tenants_seeds_and_snapshots_is_said_to_that_tenant(attempted: Settings, attempt: str) -> None:
    assert REFUSED[attempt][1].replace("ME", TENANTS[attempt]) in load_graph(attempted).broken[TENANTS[attempt]]


@pytest.mark.xdist_group("own_seeds")
def test_what_is_wrong_with_a_tenants_seeds_stops_nobody_else(attempted: Settings, seeded: Settings) -> None:
    graph, sound = load_graph(attempted), load_graph(seeded)
    assert set(graph.broken) == set(TENANTS.values())
    assert graph.models == sound.models


def make_link(file: Path, secret: Path) -> None:
    file.symlink_to(secret)


def make_linked_folder(file: Path, secret: Path) -> None:
    file.parent.rmdir()
    secret.parent.joinpath(file.name).write_bytes(secret.read_bytes())
    file.parent.symlink_to(secret.parent)


def make_pipe(file: Path, secret: Path) -> None:
    os.mkfifo(file)


def make_large(file: Path, secret: Path) -> None:
    file.write_text("a\n" + "x" * 2**20)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (make_link, "cannot be read: Too many levels of symbolic links"),
        (make_linked_folder, "cannot be read: Not a directory"),
        (make_pipe, "is not a regular file of at most 1 MB"),
        (make_large, "is not a regular file of at most 1 MB"),
    ],
)
def test_a_seed_that_was_replaced_after_the_parse_is_not_read(
    own_seeded: Settings, tmp_path: Path, replace: Callable[[Path, Path], None], message: str
) -> None:
    """dbt reads the file while it builds: then it may no longer be the one that was checked."""
    from fabric_assets.transform.worker.manifest import load_manifest
    from fabric_assets.transform.worker.seed_files import copy_own_seeds

    file = own_seeded.dbt_project_dir / "seeds" / "tenants" / "acme" / "lists" / "acme__late.csv"
    key = "seed.fabric.acme__late"
    manifest = load_manifest(get_prepared_file(own_seeded), tenant="acme", selected=(key,))
    copy_own_seeds(manifest, (key, "seed.fabric.regions"), project=own_seeded.dbt_project_dir, folder=tmp_path / "run")
    copied = Path(manifest.nodes[key].original_file_path)
    assert (copied.is_relative_to(tmp_path / "run"), copied.read_text()) == (True, "a\n1\n")
    assert manifest.nodes["seed.fabric.regions"].original_file_path == "seeds/regions.csv"

    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "secret"
    secret.write_text("of the operator")
    file.unlink()
    replace(file, secret)
    manifest = load_manifest(get_prepared_file(own_seeded), tenant="acme", selected=(key,))
    with pytest.raises(ConfigurationError, match=f"seeds/tenants/acme/lists/acme__late.csv {message}"):
        copy_own_seeds(manifest, (key,), project=own_seeded.dbt_project_dir, folder=tmp_path / "run")


def test_a_seed_that_dbt_cannot_read_is_named_as_in_the_project(seeded: Settings) -> None:
    outcome = build_tenant(seeded, make_tenant("torn", streams={}, **TORN))
    assert outcome.models["codes"].status == "error"
    assert "seeds/tenants/torn/torn__codes.csv" in outcome.models["codes"].message
    assert str(seeded.data_dir) not in outcome.models["codes"].message
    assert outcome.models["weekdays"].status == "success"


def test_a_yml_of_seeds_that_is_not_valid_is_named_with_its_line(own_seeded: Settings) -> None:
    write_files(own_seeded.dbt_project_dir, {"seeds/broken.yml": "seeds:\n  - [x\n"})
    with pytest.raises(ConfigurationError, match=r"project/seeds/broken.yml:\d: "):
        prepare_project(own_seeded)
