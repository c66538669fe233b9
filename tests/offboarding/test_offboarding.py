"""A tenant goes: all of it, nothing of anybody else's, and a certificate stays."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric_assets import naming
from fabric_assets.errors import InternalError
from fabric_assets.own_faults import keep_traceback
from fabric_assets.private_files import make_private_folder
from fabric_assets.settings import Settings
from tests.faults.processes import Case, Process
from tests.offboarding.world import NAMED, canary, find_traces, get_environ, get_files_of_others, get_records_of_others, read_records

# With test_kills.py one worker's: the world that all of them begin with takes longer to make than a test.
pytestmark = pytest.mark.xdist_group("offboarding")
Start = Callable[..., Process]
GO = Case(command=("offboard", "acme", "--yes", "--json"))


def finish(process: Process) -> dict:
    """Its certificate."""
    assert process.wait() == 0, process.log + "".join(process.output)
    return json.loads("".join(process.output))


def test_a_tenant_is_gone_and_the_others_are_as_they_were(world: Settings, start: Start) -> None:
    files, records = get_files_of_others(world), get_records_of_others(world)
    assert find_traces(world, canary("acme"))
    assert records
    assert len(files) > 6

    certificate = finish(start(GO, environ=get_environ(world)))

    assert find_traces(world, canary("acme"), canary("acme").lower(), "acme__", "acme/", '"acme"', "acme_raw_", "acme_fabric") == []
    left = [row for row in read_records(world) if any(canary("acme") in cell or NAMED.search(cell) for cell in row)]
    assert left == []
    assert get_files_of_others(world) == files
    # Of what the tenants share, the others' part is there as it was, too.
    assert get_records_of_others(world) >= records
    assert certificate["proof"]["left"] == []


def test_the_certificate_says_what_was_deleted_and_holds_no_secret_and_no_row(world: Settings, tmp_path: Path, start: Start) -> None:
    certificate = finish(start(Case(command=(*GO.command, "--export", str(tmp_path / "out"))), environ=get_environ(world)))

    rows = {f"{each['schema']}.{each['table']}": each["rows"] for each in certificate["deleted"]["relations"]}
    assert rows["acme_raw_shop.customers"] == 2
    assert rows["acme_raw_shop.orders"] == 20
    assert rows["acme_fabric.rejected_rows"] == 1
    assert certificate["deleted"]["secrets"] == ["shop_url", "token"]
    assert certificate["deleted"]["files"]["inbox"]["parts"] == {"archive": 1, "quarantine": 2}
    history = certificate["deleted"]["history"]
    assert (history["runs"], history["asset keys"], history["pools"], history["schedules and sensors"], history["ticks"]) == (4, 5, 1, 4, 2)
    assert {"at", "platform", "host", "user"} == certificate["begun"].keys()
    assert certificate["outside_of_this_proof"]

    kept = naming.offboarding_certificate(world.data_dir, "acme")
    assert json.loads(kept.read_text()) == certificate
    for text in (kept.read_text(), kept.with_suffix(".md").read_text()):
        assert canary("acme") not in text
    assert "| acme_raw_shop | orders | table | 20 |" in kept.with_suffix(".md").read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_tracebacks_of_our_faults_go_with_the_tenant_and_are_counted(world: Settings, start: Start) -> None:
    for tenant, message in (("acme", "a"), ("acm", "tenant acme is named in another's"), ("", "tenant acme failed"), ("", "tenant acm failed")):
        keep_traceback(InternalError(message, traceback=f"Traceback: {message}"), data_dir=world.data_dir, tenant=tenant)
    certificate = finish(start(GO, environ=get_environ(world)))
    assert certificate["deleted"]["files"]["errors"]["files"] == 2
    assert certificate["proof"]["left"] == []
    left = sorted(file.read_text().split("Traceback: ")[1] for file in naming.errors_dir(world.data_dir).rglob("*.txt"))
    assert left == ["tenant acm failed", "tenant acme is named in another's"]


def test_the_file_for_readers_goes_and_is_counted_and_those_of_others_stay(world: Settings, start: Start) -> None:
    assert world.publish_dir
    for tenant in ("acme", "acme_two", "acm"):
        file = naming.published_file(world.publish_dir, tenant)
        make_private_folder(file.parent)
        file.write_text(f"{canary(tenant)}, beside acme_marts")
    unfinished = naming.published_dir(world.publish_dir, "acme") / ".unfinished-abc" / "acme.duckdb"
    make_private_folder(unfinished.parent)
    unfinished.write_text(canary("acme"))
    certificate = finish(start(GO, environ=get_environ(world)))
    size = len(f"{canary('acme')}, beside acme_marts") + len(canary("acme"))
    assert certificate["deleted"]["files"]["published"] == {"files": 2, "bytes": size}
    assert certificate["proof"]["left"] == []
    assert any(str(world.publish_dir) in entry for entry in certificate["proof"]["searched"])
    assert sorted(path.name for path in world.publish_dir.iterdir()) == ["acm", "acme_two"]
    assert naming.published_file(world.publish_dir, "acm").read_text() == f"{canary('acm')}, beside acme_marts"
    markdown = naming.offboarding_certificate(world.data_dir, "acme").with_suffix(".md").read_text()
    assert f"| published | 2 | {size} |" in markdown


def test_a_trace_that_a_reader_has_put_beside_the_folders_is_left_and_named(world: Settings, start: Start) -> None:
    assert world.publish_dir
    world.publish_dir.mkdir()
    (world.publish_dir / "copy_of_acme.duckdb").write_text("acme_marts")
    process = start(GO, environ=get_environ(world))
    assert process.wait() == 1
    left = json.loads("".join(process.output))["proof"]["left"]
    assert left == [f"file {world.publish_dir}/copy_of_acme.duckdb: byte 0: acme_marts"]


# --- what is refused


def test_without_yes_it_says_what_would_be_deleted_and_deletes_nothing(world: Settings, start: Start) -> None:
    before = find_traces(world, canary("acme"))
    process = start(Case(command=("offboard", "acme")), environ=get_environ(world))
    assert process.wait() == 2
    said = "".join(process.output)
    assert "2 sealed secrets: shop_url, token" in said
    assert "4 runs in Dagster" in said
    assert "call `fabric offboard acme --yes`" in process.log
    assert find_traces(world, canary("acme")) == before
    assert not naming.offboarding_journal(world.data_dir, "acme").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("acmee", "--yes"), "there is no tenant acmee"),
        (("../acme", "--yes"), "no tenant's name"),
        (("acme", "--yes", "--export", "{data}/out"), "lies in FABRIC_DATA_DIR"),
        (("acme", "--yes", "--export", "{data}/../published/out"), "lies in FABRIC_PUBLISH_DIR"),
        (("acme", "--yes", "--export", "{tenants}"), "holds other files already"),
    ],
    ids=["unknown", "path", "export_inside", "export_to_readers", "export_taken"],
)
def test_a_call_that_cannot_be_meant_is_refused(world: Settings, start: Start, arguments: tuple[str, ...], reason: str) -> None:
    (world.tenants_dir / "acme").mkdir()
    (world.tenants_dir / "acme" / "mine").touch()
    words = [word.format(data=world.data_dir, tenants=world.tenants_dir) for word in arguments]
    process = start(Case(command=("offboard", *words)), environ=get_environ(world))
    assert process.wait() == 2
    assert reason in process.log
    assert find_traces(world, canary("acme"))


@pytest.mark.parametrize("has_yaml", [True, False])
def test_a_part_of_the_fleet_that_does_not_serve_the_tenant_deletes_nothing(world: Settings, tmp_path: Path, start: Start, has_yaml: bool) -> None:
    if not has_yaml:
        (world.tenants_dir / "acme.yaml").unlink()
    traces, records = find_traces(world, canary("acme")), read_records(world)
    elsewhere = {**get_environ(world), "FABRIC_DATA_DIR": str(tmp_path / "elsewhere"), "FABRIC_TENANTS": "acme_*,b*"}
    process = start(GO, environ=elsewhere)
    assert process.wait() == 2, process.log
    assert "acme is not served here: FABRIC_TENANTS=acme_*,b* does not match it" in process.log
    assert find_traces(world, canary("acme")) == traces
    assert read_records(world) == records
    assert not (tmp_path / "elsewhere").exists()


def test_a_tenant_that_has_gone_takes_no_work_until_its_certificate_is_moved_away(world: Settings, start: Start) -> None:
    environ = get_environ(world)
    finish(start(GO, environ=environ))
    refused = start(Case(command=("run", "acme", "--json")), environ=environ)
    assert refused.wait() == 2
    assert "was offboarded, and takes no work" in "".join(refused.output)
    assert "move" in "".join(refused.output)
    others = start(Case(command=("run", "acm", "--select", "raw/shop", "--json")), environ=environ)
    assert others.wait() == 0, others.log
    # Nothing of it came back on the way.
    assert find_traces(world, canary("acme"), "acme__", "acme_raw_") == []

    certificate = naming.offboarding_certificate(world.data_dir, "acme")
    for file in (certificate, certificate.with_suffix(".md")):
        file.rename(file.with_name(f"away_{file.name}"))
    again = start(Case(command=("validate", "acme")), environ=environ)
    assert again.wait() == 0, again.log


def test_what_came_back_is_taken_away_by_another_call_and_both_certificates_are_kept(world: Settings, start: Start) -> None:
    first = finish(start(GO, environ=get_environ(world)))
    (world.data_dir / "inbox" / "acme").mkdir(parents=True)
    (world.data_dir / "inbox" / "acme" / "late.csv").write_text("a\n")
    second = finish(start(GO, environ=get_environ(world)))
    assert second["deleted"]["files"]["inbox"]["files"] == 1
    folder = naming.offboarding_certificate(world.data_dir, "acme").parent
    kept = {json.loads(file.read_text())["ended_at"] for file in folder.glob("acme*.json")}
    assert kept == {first["ended_at"], second["ended_at"]}
    assert not (world.data_dir / "inbox" / "acme").exists()


def test_a_tenant_whose_yaml_is_gone_goes_as_far_as_one_can_know(world: Settings, start: Start) -> None:
    (world.tenants_dir / "acme.yaml").unlink()
    # What another tenant's customers write is nobody else's trace.
    letter = world.data_dir / "inbox" / "acme_two" / "ads" / "letter.txt"
    letter.write_text("see acme/raw/shop and acme__shop__load")
    certificate = finish(start(GO, environ=get_environ(world)))
    assert find_traces(world, canary("acme")) == []
    assert letter.exists()
    assert any("there is no YAML that says where" in entry for entry in certificate["outside_of_this_proof"])
