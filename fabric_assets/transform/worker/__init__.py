"""The dbt process. Only this package imports dbt, sqlglot and database drivers for models. `transform/process.py` starts it."""
