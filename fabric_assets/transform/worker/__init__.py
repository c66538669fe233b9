"""The dbt process: the only place that imports dbt, sqlglot and database drivers for models. Started by `transform/process.py`."""
