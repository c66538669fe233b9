"""One tenant's files that need too much time or memory to parse: that tenant is refused until something changes, and the others go on."""

import time
from pathlib import Path

import pytest

from fabric_assets.errors import InternalError
from fabric_assets.rows.column_names import compose
from fabric_assets.settings import Settings
from fabric_assets.transform import fingerprint, project
from fabric_assets.transform.fingerprint import get_refused_file
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import prepare_project
from fabric_assets.transform.worker.parse import parsing
from fabric_assets.transform.worker.parse.limits import Limits, Meter, run_limited
from fabric_assets.transform.worker.parse.refusals import Refusals
from tests.support.lengths import AT_FULL_LENGTH, choose
from tests.support.tracebacks import read_traceback

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}select 1 as one"
TIME, MEMORY = "takes more than 2 s of processor time to parse", "takes more than 200 MB of memory to parse"
# dbt renders what its static parser cannot read: each has a call other than ref, source and config.
BOMBS = {
    "loop": ("evil__x.sql", LOOP, TIME),
    "regular expression": ("evil__x.sql", "{% set x = modules.re.match('(a+)+$', 'a' * 60 ~ 'b') %}select 1 as one", TIME),
    "number": ("evil__x.sql", "{% for i in range(1) %}{{ 9 ** (9 ** 9) }}{% endfor %}select 1 as one", TIME),
    "recursion": ("evil__x.sql", "{% for i in range(3) recursive %}{{ loop(range(3)) }}{% endfor %}select 1 as one", "evil__x"),
    "text": ("evil__x.sql", "{% set x = 'a' * 600000000 %}select {{ x | length }} as one", MEMORY),
    "text that doubles": (
        "evil__x.sql",
        "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}select {{ n.x | length }} as one",
        MEMORY,
    ),
    "loop in yml": ("x.yml", 'models: [{name: evil__one, config: {alias: "' + LOOP.replace("select 1 as one", "x") + '"}}]', TIME),
    "text in a description": ("x.yml", "models: [{name: evil__one, description: \"{{ 'a' * 600000000 }}\"}]", MEMORY),
    "brackets": ("x.yml", "models: " + "[" * 200_000, "evil"),
    "aliases": (
        "x.yml",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "models: *i",
        "a would hold for the whole project",
    ),
    "aliases in a model": (
        "x.yml",
        "models:\n- name: evil__one\n  meta:\n    a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"    {b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "takes",
    ),
    "large text": ("evil__x.sql", "{{ config(meta={'x': 'a' * 20000000}) }}select 1 as one", "more than 16"),
}


@pytest.fixture
def limited(own_project: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(project, "PARSE_LIMITS", {"seconds": 2, "megabytes": 200})
    return own_project


def write(settings: Settings, name: str, text: str) -> Path:
    file = settings.dbt_project_dir / "models" / "tenants" / "evil" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    return file


@pytest.mark.parametrize("bomb", choose(list(BOMBS), 2))
def test_only_the_tenant_whose_files_take_too_much_is_refused(limited: Settings, bomb: str) -> None:
    name, text, words = BOMBS[bomb]
    others = {model.tenant for model in load_graph(limited).models.values()}
    write(limited, "evil__one.sql", "select 1 as one")
    write(limited, name, text)
    prepare_project(limited)
    graph = load_graph(limited)
    assert set(graph.broken) == {"evil"}
    assert words in graph.broken["evil"]
    assert {model.tenant for model in graph.models.values()} == others


@AT_FULL_LENGTH
def test_a_refused_tenant_is_refused_at_once_until_something_changes(limited: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = write(limited, "evil__x.sql", LOOP)
    write(limited, "evil__one.sql", "select 1 as one")
    prepare_project(limited)
    assert "models/tenants/evil/evil__x.sql: takes more than 2 s" in load_graph(limited).broken["evil"]

    # Another kind of warehouse, and another tenant's file: the loop is not run again, and what was said is said again.
    known = get_refused_file(limited).read_text().replace("takes more than 2 s", "took more than 2 s")
    get_refused_file(limited).write_text(known)
    prepare_project(limited, "postgres")
    other = limited.dbt_project_dir / "models" / "tenants" / "acme" / "acme__new.sql"
    other.parent.mkdir(exist_ok=True)
    other.write_text("select 1 as one\n")
    prepare_project(limited)
    assert get_refused_file(limited).read_text() == known
    assert "models/tenants/evil/evil__x.sql: took more than 2 s" in load_graph(limited).broken["evil"]
    # The limit is part of it, and so is the file.
    monkeypatch.setattr(project, "PARSE_LIMITS", {"seconds": 1, "megabytes": 200})
    write(limited, "evil__two.sql", "select 2 as two")
    prepare_project(limited)
    assert "takes more than 1 s" in load_graph(limited).broken["evil"]
    bomb.unlink()
    prepare_project(limited)
    assert load_graph(limited).broken == {}
    assert "evil" not in get_refused_file(limited).read_text()


def test_what_all_share_is_named_where_it_ends_dbt(limited: Settings) -> None:
    (limited.dbt_project_dir / "models" / "deep.sql").write_text("{{ 'x' " + "~ ('y' " * 3_000 + ")" * 3_000 + " }}select 1 as one\n")
    prepare_project(limited)
    (mistake,) = set(load_graph(limited).mistakes.values())
    assert str(mistake.file) == "models/deep.sql"
    assert "recursion" in mistake.message


def test_a_fault_of_ours_as_the_project_is_parsed_is_not_reported_as_a_mistake_of_the_project(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match=r"a fault of ETL Fabric \(AttributeError at fabric_assets/rows/column_names\.py:") as caught:
        run_limited(lambda meter: compose(5), Limits(2, 200), tmp_path)  # type: ignore[arg-type]
    assert "name.isascii()" in caught.value.traceback


def test_a_fault_of_ours_at_one_tenants_files_stops_that_tenant_alone(limited: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(limited, "evil__one.sql", "select 1 as one")
    monkeypatch.setattr(parsing, "find_file_problems", lambda _, tenant: compose(5) if tenant == "evil" else [])  # type: ignore[arg-type]
    found = parsing._Parser(limited.dbt_project_dir, tmp_path, Limits(2, 200), {}, limited.data_dir).find_file_problems()
    assert list(found) == ["evil"]
    assert "models/tenants/evil: a fault of ETL Fabric (AttributeError at fabric_assets/rows/column_names.py:" in found["evil"]
    assert "compose(5)" in read_traceback(limited, "evil", found["evil"])


CHANGES = {
    "nothing": {},
    "the limit": {"limit": "1 s"},
    "the tenant's file": {"file": "models/tenants/evil/evil__x.sql"},
    "a shared file": {"file": "models/shared.sql"},
    "another tenant's file": {"file": "models/tenants/acme/acme__x.sql"},
    "dbt's version": {"version": "dbt-core 99"},
}


@pytest.mark.parametrize("change", choose(list(CHANGES), 2))
def test_a_refusal_is_forgotten_when_what_it_depends_on_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    folder, kept = tmp_path / "project", tmp_path / "refused.json"
    for file in ("models/shared.sql", "models/tenants/evil/evil__x.sql", "models/tenants/acme/acme__x.sql"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("select 1")
    Refusals(kept, folder, "2 s").write({"evil": "takes too much"})
    made = CHANGES[change]
    if "file" in made:
        (folder / made["file"]).write_text("select 2")
    if "version" in made:
        monkeypatch.setattr(fingerprint, "_get_versions", lambda: (made["version"],))
    is_kept = change in ("nothing", "another tenant's file")
    assert Refusals(kept, folder, made.get("limit", "2 s")).read() == ({"evil": "takes too much"} if is_kept else {})


def test_the_files_of_one_tenant_share_one_limit_together_and_tenants_do_not(tmp_path: Path) -> None:
    def work(meter: Meter) -> dict[str, float]:
        for file in ("evil/evil__a.sql", "evil/evil__b.sql", "acme/acme__a.sql"):
            with meter.measure(f"models/tenants/{file}"):
                begun = time.process_time()
                while time.process_time() < begun + 0.1:
                    pass
        return meter._left

    left = run_limited(work, Limits(60, 200), tmp_path)
    assert left["evil"] < 59.85 < left["acme"] < 60
