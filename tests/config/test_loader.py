"""From a folder of YAML to a fleet: layers, origins, filters, names that clash."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric_assets import naming
from fabric_assets.config.base import format_duration, parse_duration
from fabric_assets.config.collisions import find_collisions, get_rivals
from fabric_assets.config.loader import load_fleet
from fabric_assets.config.references import TenantNames
from fabric_assets.config.yaml_tree import resolve_scalar
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings

Write = Callable[..., Path]

DEFAULTS = """\
version: 1
owners: ["team:data"]
destination: {type: postgres, url: {env: WAREHOUSE_URL}}
"""
SHOP = """\
sources:
  shop:
    type: sql_database
    url: {env: SHOP_URL}
    timeout: 30m
    streams:
      orders: {primary_key: id, cursor: {field: updated_at, lag: 5m}}
      items: {primary_key: [order_id, line_no]}
"""
ACME = """\
tenant: acme
extends: [shop, fast]
sources:
  shop:
    streams:
      orders:
        cursor: {lag: 1h}
      items: null
      stores: {primary_key: id}
owners: []
"""


@pytest.fixture
def acme(settings: Settings, write_tenant: Write) -> Settings:
    write_tenant("_defaults", DEFAULTS)
    write_tenant("_templates/shop", SHOP)
    write_tenant("_templates/fast", "sources: {shop: {timeout: 5m, retries: {max: 0}}}\n")
    write_tenant("acme", ACME)
    return settings


def test_layers_merge_by_key_and_the_upper_one_wins(acme: Settings) -> None:
    config = load_fleet(acme).tenants["acme"].config
    shop = config.sources["shop"]
    orders = shop.streams["orders"]
    assert config.destination.type == "postgres"
    assert shop.timeout == timedelta(minutes=5)
    assert shop.retries.max == 0
    assert list(shop.streams) == ["orders", "stores"]
    assert orders.primary_key == ("id",)
    assert orders.cursor is not None  # type: ignore[union-attr]
    assert orders.cursor.lag == timedelta(hours=1)  # type: ignore[union-attr]
    assert config.owners == ()


def test_each_value_knows_the_file_and_line_that_it_comes_from(acme: Settings) -> None:
    loaded = load_fleet(acme).tenants["acme"]

    def find_origin(*path: str | int) -> tuple[str, int, int]:
        origin = loaded.get_origin(*path)
        return str(origin.file.relative_to(acme.tenants_dir)), origin.line, origin.column

    assert find_origin("version") == ("_defaults.yaml", 1, 1)
    assert find_origin("destination", "url") == ("_defaults.yaml", 3, 31)
    assert find_origin("sources", "shop", "type") == ("_templates/shop.yaml", 3, 5)
    assert find_origin("sources", "shop", "timeout") == ("_templates/fast.yaml", 1, 18)
    assert find_origin("sources", "shop", "streams", "orders") == ("acme.yaml", 6, 7)
    assert find_origin("sources", "shop", "streams", "orders", "primary_key") == ("_templates/shop.yaml", 7, 16)
    assert find_origin("sources", "shop", "streams", "orders", "cursor", "lag") == ("acme.yaml", 7, 18)
    assert find_origin("extends", 1) == ("acme.yaml", 2, 17)


def test_the_origin_of_a_default_is_that_of_the_key_above_it(acme: Settings) -> None:
    loaded = load_fleet(acme).tenants["acme"]
    assert loaded.get_origin("sources", "shop", "streams", "stores", "cursor", "lag") == loaded.get_origin("sources", "shop", "streams", "stores")
    assert loaded.get_origin("schedules").line == 1
    assert ("schedules",) not in loaded.origins
    assert ("sources", "shop", "streams", "stores", "primary_key") in loaded.origins
    assert len(loaded.origins) == len(list(loaded.origins)) > 20


def test_a_problem_found_later_is_shown_at_its_line(acme: Settings) -> None:
    problem = load_fleet(acme).tenants["acme"].make_problem(("sources", "shop", "streams", "stores"), "is not there")
    assert str(problem).splitlines()[1:] == ["          stores: {primary_key: id}", "          ^"]
    assert problem.path == "sources.shop.streams.stores"


def test_templates_merge_from_left_to_right(settings: Settings, write_tenant: Write) -> None:
    write_tenant("_templates/a", "timezone: Europe/Berlin\ndisplay_name: A\n")
    write_tenant("_templates/b", "timezone: Europe/Paris\n")
    write_tenant("one", {"extends": ["a", "b"]})
    write_tenant("two", {"extends": ["b", "a"]})
    tenants = load_fleet(settings).tenants
    assert (tenants["one"].config.timezone, tenants["one"].config.display_name) == ("Europe/Paris", "A")
    assert tenants["two"].config.timezone == "Europe/Berlin"


def test_a_list_replaces_the_list_below_it(settings: Settings, write_tenant: Write) -> None:
    write_tenant("_defaults", 'version: 1\nowners: ["team:data"]\n')
    write_tenant("acme", {"owners": ["team:growth"]})
    assert load_fleet(settings).tenants["acme"].config.owners == ("team:growth",)


def test_a_yml_file_is_a_tenant_and_other_files_are_not(settings: Settings, write_tenant: Write) -> None:
    write_tenant("acme", {}).rename(settings.tenants_dir / "acme.yml")
    for name in ("_notes.yaml", ".hidden.yaml", "README.md", "acme.json"):
        (settings.tenants_dir / name).write_text("{")
    fleet = load_fleet(settings)
    assert list(fleet.tenants) == ["acme"]
    assert fleet.broken == {}


def test_a_broken_template_that_nobody_uses_is_still_reported(settings: Settings, write_tenant: Write) -> None:
    write_tenant("_templates/old", "sources: [\n")
    write_tenant("acme", {})
    fleet = load_fleet(settings)
    assert list(fleet.tenants) == ["acme"]
    assert [problem.file.name for problem in fleet.unused] == ["old.yaml"]


def test_a_missing_folder_is_a_clear_error(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="nowhere cannot be read: No such file or directory") as caught:
        load_fleet(replace(settings, tenants_dir=settings.tenants_dir / "nowhere"))
    assert "FABRIC_TENANTS_DIR" in caught.value.remedy


def test_an_empty_folder_is_an_empty_fleet(settings: Settings) -> None:
    assert load_fleet(settings).tenants == {}


class TestFilter:
    @pytest.fixture
    def fleet_of(self, settings: Settings, write_tenant: Write) -> Callable[..., list[str]]:
        for name in ("acme", "acme_two", "globex"):
            write_tenant(name, {})
        return lambda *patterns: list(load_fleet(replace(settings, tenants=patterns)).tenants)

    def test_globs_choose_what_is_served(self, fleet_of: Callable[..., list[str]]) -> None:
        assert fleet_of("acme*") == ["acme", "acme_two"]
        assert fleet_of("globex", "acme") == ["acme", "globex"]
        assert fleet_of("*") == ["acme", "acme_two", "globex"]

    def test_a_glob_may_match_nothing_beside_one_that_does(self, fleet_of: Callable[..., list[str]]) -> None:
        assert fleet_of("z*", "globex") == ["globex"]

    def test_an_unknown_name_is_refused(self, fleet_of: Callable[..., list[str]]) -> None:
        with pytest.raises(ConfigurationError, match="names 'globx', and there is no such tenant; did you mean 'globex'"):
            fleet_of("acme", "globx")

    def test_globs_that_match_no_tenant_give_an_empty_fleet(self, fleet_of: Callable[..., list[str]], caplog: pytest.LogCaptureFixture) -> None:
        assert fleet_of("x*", "[y-z]*") == []
        assert caplog.messages == ["FABRIC_TENANTS=x*,[y-z]* matches no tenant: this code location is empty"]
        caplog.clear()
        assert fleet_of("a*") == ["acme", "acme_two"]
        assert caplog.messages == []


def declare(*names: str) -> dict[str, object]:
    """Declare sources; each a mapping of its own, for PyYAML writes a shared one as an alias."""
    return {"sources": {name: {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": {"orders": {"primary_key": "id"}}} for name in names}}


@pytest.mark.parametrize("served", ["acme", "acme_raw_b"])
def test_names_also_clash_with_tenants_of_other_code_locations(served: str, settings: Settings, write_tenant: Write) -> None:
    write_tenant("acme", declare("b_raw_c"))
    write_tenant("acme_raw_b", declare("c"))
    fleet = load_fleet(replace(settings, tenants=(served,)))
    (problem,) = fleet.broken[served]
    other = {"acme": "acme_raw_b", "acme_raw_b": "acme"}[served]
    assert problem.message == f"makes the dataset acme_raw_b_raw_c, which is also tenant {other}'s: rename one of the two"
    assert fleet.tenants == {}


@pytest.mark.parametrize(
    ("path", "other", "hows"),
    [
        ("inbox/acme", "inbox//acme/", ("is", "is")),
        ("s3://drop/acme", "s3://drop/acme/", ("is", "is")),
        ("s3://drop", "s3://drop/globex", ("holds", "lies in")),
        ("inbox/a/b/c", "inbox/a", ("lies in", "holds")),
        ("inbox", "{data}/inbox/globex", ("holds", "lies in")),
        ("file://{data}/inbox", "inbox", ("is", "is")),
        ("inbox/acme", "inbox/acme_two", None),
        ("s3://drop/acme", "gs://drop/acme", None),
        ("inbox/acme", "s3://inbox/acme", None),
    ],
)
def test_an_inbox_must_not_be_or_lie_in_another_inbox(path: str, other: str, hows: tuple[str, str] | None, settings: Settings, write_tenant: Write) -> None:
    for tenant, inbox in (("acme", path), ("globex", other)):
        stream = {"glob": "*.csv", "columns": {"day": {}}}
        source = {"type": "csv_import", "path": inbox.format(data=settings.data_dir.resolve()), "streams": {"ads": stream}}
        write_tenant(tenant, {"sources": {"ads": source}})
    broken = load_fleet(settings).broken
    told = {tenant: problem.message.partition(",")[0] for tenant, (problem,) in broken.items()}
    wanted = zip(("acme", "globex"), hows or (), (other, path), strict=False)
    assert told == {tenant: f"{how} {inbox.format(data=settings.data_dir.resolve())}" for tenant, how, inbox in wanted}
    assert [problem.path for (problem,) in broken.values()] == ["sources.ads.path"] * len(told)


@pytest.mark.parametrize("served", ["*", "globex"])
@pytest.mark.parametrize(("path", "how"), [("inbox/acme/globex", "lies in"), ("inbox//acme/", "is"), ("inbox", "holds"), ("inbox/acme_two", None)])
def test_an_inbox_must_not_be_the_folder_of_another_tenants_name(path: str, how: str | None, served: str, settings: Settings, write_tenant: Write) -> None:
    write_tenant("acme", {})
    source = {"type": "csv_import", "path": path, "streams": {"ads": {"glob": "*.csv", "columns": {"day": {}}}}}
    write_tenant("globex", {"sources": {"ads": source}})
    fleet = load_fleet(replace(settings, tenants=(served,)))
    told = {tenant: [problem.message for problem in problems] for tenant, problems in fleet.broken.items()}
    also = "also " if how == "is" else ""
    reason = f"{how} inbox/acme, which is {also}tenant acme's: give each its own folder, e.g. inbox/globex/ads"
    assert told == ({"globex": [reason]} if how else {}), "acme, which did nothing, goes on"


@pytest.mark.parametrize(
    ("path", "other", "how"),
    [
        ("inbox/globex/ads", "inbox/globex/ads", "is"),
        ("file://{data}/inbox/globex/./ads/", "inbox/globex", "lies in"),
        ("inbox", "{data}/inbox/globex", "holds"),
        ("/", "inbox/globex", "holds"),
        ("s3://drop/globex/ads", "s3://drop/globex", "lies in"),
        ("inbox/globex_two", "inbox/globex", None),
        ("exports", "inbox/globex", None),
    ],
)
def test_a_tenant_that_reads_another_tenants_inbox_is_refused_and_the_other_is_not(
    path: str, other: str, how: str | None, settings: Settings, write_tenant: Write
) -> None:
    data = settings.data_dir.resolve()
    reader = {"type": "files", "path": path.format(data=data), "streams": {"ads": {"glob": "*.csv", "format": "csv"}}}
    inbox = {"type": "csv_import", "path": other.format(data=data), "streams": {"ads": {"glob": "*.csv", "columns": {"day": {}}}}}
    write_tenant("acme", {"sources": {"exports": reader}})
    write_tenant("globex", {"sources": {"ads": inbox}})
    told = {tenant: [(problem.path, problem.message) for problem in problems] for tenant, problems in load_fleet(settings).broken.items()}
    reason = f"{how} {inbox['path']}, which is the inbox of tenant globex's source ads: name a folder of this tenant's own"
    assert told == ({"acme": [("sources.exports.path", reason)]} if how else {})


def test_a_tenant_may_read_its_own_inbox(settings: Settings, write_tenant: Write) -> None:
    reader = {"type": "files", "path": "inbox/acme", "streams": {"ads": {"glob": "*.csv", "format": "csv"}}}
    inbox = {"type": "csv_import", "path": "inbox/acme/ads", "streams": {"ads": {"glob": "*.csv", "columns": {"day": {}}}}}
    write_tenant("acme", {"sources": {"exports": reader, "ads": inbox}})
    assert load_fleet(settings).broken == {}


def test_if_all_tenants_share_an_inbox_each_gets_one_problem(settings: Settings, write_tenant: Write) -> None:
    for number in range(20):
        source = {"type": "csv_import", "path": "inbox", "streams": {"ads": {"glob": "*.csv", "columns": {"day": {}}}}}
        write_tenant(f"acme{number}", {"sources": {"ads": source}})
    broken = load_fleet(settings).broken
    assert [len(problems) for problems in broken.values()] == [1] * 20


def test_similar_names_that_share_nothing_do_not_clash(settings: Settings, write_tenant: Write) -> None:
    write_tenant("acme", declare("b", "b_b"))
    write_tenant("acme_raw", declare("b"))
    write_tenant("acme_raw_b", declare("b"))
    write_tenant("acme_b", declare("b"))
    assert load_fleet(settings).broken == {}


PARTS = st.lists(st.sampled_from(["a", "raw", "ro", "bi", "marts", "fabric", "stg"]), min_size=1, max_size=4).map("_".join)


@given(st.dictionaries(PARTS, st.lists(PARTS, max_size=3, unique=True), min_size=2, max_size=6))
def test_no_clash_with_a_tenant_served_elsewhere_is_missed(fleet: dict[str, list[str]]) -> None:
    tenants = {tenant: sources for tenant, sources in fleet.items() if naming.get_tenant_name_error(tenant) is None}
    all_names = [TenantNames(tenant, dict.fromkeys(sources, ("orders",))) for tenant, sources in tenants.items()]
    clashes = {(tenant, message.split("tenant ")[1].split("'s")[0]) for tenant, _, message in find_collisions(all_names, Path("/data"))}
    for tenant, other in clashes:
        assert other in get_rivals([tenant], tenants)
        assert (other, tenant) in clashes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("", None), ("~", None), ("null", None),
        ("0", 0), ("-12", -12), ("007", "007"), ("0x1F", "0x1F"), ("0o17", "0o17"), ("1_000", "1_000"), ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("-", "-"), (".inf", ".inf"), (".nan", ".nan"), ("1e400", "1e400"), ("1" * 30, "1" * 30),
        ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_plain_words_are_what_yaml_1_2_says_and_nothing_is_guessed(text: str, value: object) -> None:
    resolved = resolve_scalar(text)
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize("text", ["0s", "30s", "90s", "5m", "26h", "7d", "36h"])
def test_a_duration_is_written_in_the_form_that_is_read(text: str) -> None:
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("text", ["5", "5 m", "-5m", "1.5h", "1w", "", "m", "1234567s", 5, None, True])
def test_a_wrong_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="a whole number and a unit"):
        parse_duration(text)
