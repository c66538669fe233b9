"""The private parts of libraries, by module of ours; see `private_parts`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PrivateParts:
    """The private parts of one library that one module of ours uses.

    Args:
        parts: modules, names and attributes as the module writes them; a description of parts without a name.
        otherwise: the behaviour with an unverified version, if there is a public way.
        tests: the tests that show that the parts still do what is expected.
    """

    distribution: str
    module: str
    parts: tuple[str, ...]
    tests: str
    otherwise: str = ""


_MANIFEST = "dbt.contracts.graph.manifest.Manifest"
_READERS_OF_THE_MANIFEST = (
    *("attachment", "building", "dbt_call", "description", "findings", "freshness"),
    *("inspection", "manifest", "seed_files", "snapshot_records", "unfinished"),
)
PARTS: tuple[PrivateParts, ...] = (
    PrivateParts(
        "dagster",
        "factories/env_secrets.py",
        ("dagster._core.secrets.loader.SecretsLoader", "dagster._serdes.ConfigurableClass", "dagster._serdes.ConfigurableClassData"),
        tests="tests/test_env_file.py",
    ),
    PrivateParts(
        "dagster",
        "factories/execution.py",
        (
            "dagster._core.definitions.job_base.InMemoryJob",
            "dagster._core.definitions.repository_definition.SINGLETON_REPOSITORY_NAME",
            "dagster._core.execution.api.ExecuteRunWithPlanIterable",
            "dagster._core.execution.api.create_execution_plan",
            "dagster._core.execution.api.job_execution_iterator",
            "dagster._core.execution.context_creation_job.PlanOrchestrationContextManager",
            "dagster._core.execution.context_creation_job.orchestration_context_event_generator",
            "dagster._core.remote_origin.ManagedGrpcPythonEnvCodeLocationOrigin",
            "dagster._core.remote_origin.RemoteJobOrigin",
            "dagster._core.remote_origin.RemoteRepositoryOrigin",
            "dagster._core.types.loadable_target_origin.LoadableTargetOrigin",
        ),
        tests="tests/factories/test_runs.py",
    ),
    PrivateParts("dagster", "factories/ingestion.py", ("get_output_asset_keys",), "tests/factories/test_loads.py", "Dagster looks up its keys, slower"),
    PrivateParts(
        "dagster",
        "factories/instance/event_log.py",
        (
            "_base_dir",
            "_connect",
            "_db_lock",
            "_event_log_storage",
            "_event_to_row",
            "_initdb",
            "_tags_for_asset_event",
            "alembic_version",
            "dagster._core.storage.event_log.AssetKeyTable",
            "dagster._core.storage.event_log.SqlEventLogStorageMetadata",
            "dagster._core.storage.event_log.SqlEventLogStorageTable",
            "dagster._core.storage.event_log.SqliteEventLogStorage",
            "dagster._core.storage.event_log.schema.AssetEventTagsTable",
            "dagster._core.storage.event_log.sqlite.sqlite_event_log.INDEX_SHARD_NAME",
            "dagster._core.storage.sqlite_storage.DagsterSqliteStorage",
            "dagster._time.datetime_from_timestamp",
        ),
        tests="tests/factories/instance/test_event_log.py",
        otherwise="Dagster's own event log is used, slower",
    ),
    PrivateParts("dagster", "factories/instance/opening.py", ("dagster._core.instance.ref.InstanceRef",), tests="tests/factories/instance/test_event_log.py"),
    PrivateParts("dagster", "factories/instance/records/removal.py", ("asset_keys",), tests="tests/offboarding/test_offboarding.py"),
    PrivateParts(
        "dagster",
        "factories/run_rules.py",
        (
            "dagster._core.events.DagsterEvent",
            "dagster._core.execution.context.system.PlanOrchestrationContext",
            "dagster._core.execution.plan.objects.StepFailureData",
            "dagster._core.execution.plan.objects.UserFailureData",
            "dagster._core.execution.plan.plan.ExecutionPlan",
            "dagster._core.execution.retries.RetryMode",
            "dagster_shared.error.SerializableErrorInfo",
        ),
        tests="tests/factories/test_run_rules.py",
    ),
    PrivateParts(
        "dagster",
        "factories/run_tags.py",
        (
            "dagster._core.definitions.assets.graph.base_asset_graph.BaseAssetGraph",
            "dagster._core.run_coordinator.QueuedRunCoordinator",
            "dagster._core.run_coordinator.SubmitRunContext",
        ),
        tests="tests/factories/test_run_rules.py",
    ),
    PrivateParts(
        "dagster",
        "factories/tenant_runs.py",
        (
            "dagster._core.definitions.assets.graph.base_asset_graph.BaseAssetGraph",
            "dagster._core.definitions.selector.JobSubsetSelector",
            "dagster._core.events.EngineEventData",
            "dagster._core.workspace.context.BaseWorkspaceRequestContext",
        ),
        tests="tests/factories/test_tenant_runs.py",
    ),
    PrivateParts(
        "dbt-adapters",
        "transform/worker/sandbox.py",
        (
            "dbt.adapters.base.column.Column",
            "dbt.adapters.base.impl.BaseAdapter",
            "dbt.adapters.base.query_headers.QueryHeaderContextWrapper",
            "dbt.adapters.base.relation.BaseRelation",
            "dbt.adapters.contracts.connection.AdapterResponse",
            "dbt.adapters.contracts.relation.FakeAPIObject",
            "submit_python_job",
        ),
        tests="tests/transform/test_sandbox.py",
    ),
    PrivateParts("dbt-common", "transform/worker/parse/own_files.py", ("dbt_common.exceptions.DbtBaseException",), tests="tests/transform/test_limits.py"),
    PrivateParts(
        "dbt-common",
        "transform/worker/sandbox.py",
        (
            "dbt_common.behavior_flags.Behavior",
            "dbt_common.behavior_flags.BehaviorFlagRendered",
            "dbt_common.clients.jinja.MacroFuzzEnvironment",
            "dbt_common.exceptions.DbtRuntimeError",
            "getattr",
            "getitem",
            "is_safe_attribute",
            "unsafe_undefined",
        ),
        tests="tests/transform/test_sandbox.py",
    ),
    *(PrivateParts("dbt-core", f"transform/worker/{name}.py", (_MANIFEST,), tests="tests/transform") for name in _READERS_OF_THE_MANIFEST),
    PrivateParts(
        "dbt-core",
        "transform/worker/parse/limits.py",
        ("_process_docs_for_node", "dbt.parser.base.BaseParser", "dbt.parser.manifest", "dbt.parser.read_files", "load_source_file", "parse_file"),
        tests="tests/transform/test_limits.py",
    ),
    PrivateParts("dbt-core", "transform/worker/parse/own_files.py", ("dbt.clients.checked_load.checked_load",), tests="tests/transform/test_limits.py"),
    PrivateParts(
        "dbt-core",
        "transform/worker/parse/packages.py",
        (
            "dbt.config.project.load_yml_dict",
            "dbt.config.project.package_and_project_data_from_root",
            "dbt.config.project.package_config_from_data",
            "dbt.config.renderer.PackageRenderer",
            "dbt.task.deps._create_sha1_hash",
        ),
        tests="tests/transform/test_packages.py",
    ),
    PrivateParts(
        "dbt-common",
        "transform/worker/parse/packages.py",
        ("dbt_common.context.set_invocation_context", "dbt_common.exceptions.DbtBaseException"),
        tests="tests/transform/test_packages.py",
    ),
    PrivateParts("dbt-core", "transform/worker/parse/parsing.py", ("dbt.contracts.graph.manifest.Manifest",), tests="tests/transform/test_limits.py"),
    PrivateParts(
        "dbt-core",
        "transform/worker/sandbox.py",
        (
            "dbt.context.base.Var",
            "dbt.context.providers.BaseDatabaseWrapper",
            "dbt.context.providers.ParseConfigObject",
            "dbt.context.providers.RelationProxy",
            "dbt.context.providers.RuntimeConfigObject",
        ),
        tests="tests/transform/test_sandbox.py",
    ),
    PrivateParts(
        "dbt-core", "transform/worker/warming.py", ("dbt.artifacts.resources", "dbt.contracts.project", "json_schema"), tests="tests/transform/test_build.py"
    ),
    PrivateParts(
        "dbt-duckdb", "transform/worker/adapters/duckdb_plugin.py", ("dbt.adapters.duckdb.plugins.BasePlugin",), tests="tests/transform/test_build.py"
    ),
    PrivateParts(
        "dbt-duckdb", "transform/worker/adapters/duckdb.py", ("dbt.adapters.duckdb.connections.DuckDBConnectionManager",), tests="tests/transform/test_build.py"
    ),
    PrivateParts(
        "dlt",
        "connectors/bridge/dlt/dlt_program/reading.py",
        (
            "_get_config_section_context",
            "_pipe",
            "dlt.common.configuration.container.Container",
            "dlt.common.configuration.resolve.inject_section",
            "dlt.common.json.json",
            "dlt.common.pipeline.StateInjectableContext",
        ),
        tests="tests/connectors/bridge/test_dlt.py",
    ),
    *(
        PrivateParts("dlt", f"connectors/bridge/dlt/dlt_program/{module}.py", parts, tests="tests/connectors/bridge/test_dlt.py")
        for module, parts in (
            ("sources", ("dlt.common.configuration.exceptions.ConfigurationException",)),
            ("streams", ("_pipe", "_table_name_hint_fun")),
            ("values", ("dlt.common.json.custom_encode",)),
        )
    ),
    PrivateParts("dlt", "connectors/rest_api/pages.py", ("dlt.common.jsonpath",), tests="tests/connectors/rest_api"),
    PrivateParts(
        "dlt",
        "connectors/rest_api/paginators.py",
        ("dlt.common.jsonpath", "dlt.sources.helpers.rest_client.detector.json_links_detector"),
        tests="tests/connectors/rest_api",
    ),
    PrivateParts("dlt", "warehouse/dlt_tables/bookkeeping.py", ("_dlt_version", "_dlt_pipeline_state", "_dlt_loads"), tests="tests/loading/test_dlt_reads.py"),
    PrivateParts("dlt", "warehouse/dlt_tables/pipeline_state.py", ("_state_version", "_version_hash", "engine_version"), tests="tests/warehouse/dlt_tables"),
    PrivateParts("dlt", "warehouse/dlt_tables/stored_schema.py", ("engine_version", "previous_hashes", "x-normalizer"), tests="tests/warehouse/dlt_tables"),
    PrivateParts("dlt", "rows/column_names.py", ("dlt.common.normalizers.naming.snake_case.NamingConvention",), tests="tests/rows"),
    PrivateParts("jinja2", "transform/worker/sandbox.py", ("_env", "get_field"), tests="tests/transform/test_sandbox.py"),
    PrivateParts(
        "pymysql",
        "connectors/sql_database/mysql_reader.py",
        ("_force_close", "_result", "_rfile", "pymysql.protocol.MysqlPacket"),
        tests="tests/connectors/sql_database/test_readers.py",
        otherwise="rows are read by SQLAlchemy, slower",
    ),
    *(PrivateParts("pyyaml", f"config/{name}.py", ("yaml.cyaml.CParser",), tests="tests/config") for name in ("problems", "yaml_tree")),
    PrivateParts("sqlalchemy", "connectors/sql_database/database.py", ("ischema_names",), tests="tests/connectors/sql_database/test_readers.py"),
    PrivateParts("urllib3", "security/outgoing.py", ("_dns_host", "_new_conn", "pool_classes_by_scheme"), tests="tests/security"),
    PrivateParts(
        "dbt-common",
        "transform/worker/selecting.py",
        ("dbt_common.context.set_invocation_context", "dbt_common.events.contextvars.task_contextvars"),
        tests="tests/transform/test_build.py",
    ),
    PrivateParts("dbt-common", "transform/worker/selectors.py", ("dbt_common.exceptions.DbtBaseException",), tests="tests/transform/test_build.py"),
    PrivateParts(
        "dbt-core",
        "transform/worker/selecting.py",
        (
            "dbt.cli.flags.Flags",
            "dbt.cli.types.Command",
            "dbt.compilation.Linker",
            "dbt.config.runtime.load_profile",
            "dbt.config.runtime.load_project",
            "dbt.contracts.graph.manifest.Manifest",
            "dbt.flags.set_flags",
            "dbt.graph.graph.Graph",
            "dbt.graph.graph.UniqueId",
        ),
        tests="tests/transform/test_build.py",
    ),
    PrivateParts(
        "dbt-core",
        "transform/worker/selectors.py",
        (
            "dbt.artifacts.resources.types.NodeType",
            "dbt.contracts.graph.manifest.Manifest",
            "dbt.exceptions.InvalidSelectorError",
            "dbt.graph.graph.Graph",
            "dbt.graph.selector.NodeSelector",
            "dbt.graph.selector_methods.MethodName",
            "dbt.graph.selector_spec.RAW_SELECTOR_PATTERN",
            "dbt.graph.selector_spec.SelectionCriteria",
            "dbt.graph.selector_spec.SelectionSpec",
        ),
        tests="tests/transform/test_build.py",
    ),
)
