"""The limit of a load from Postgres: binary COPY out of one database, piped into COPY into the other.

python loads_peer_copy.py SOURCE_URL DESTINATION_URL TABLE
"""

import os
import sys
import threading

import psycopg2

source_url, destination_url, table = sys.argv[1:]
source, destination = psycopg2.connect(source_url), psycopg2.connect(destination_url)
with source.cursor() as cursor:
    cursor.execute(
        "select string_agg(format('%%I %%s', attname, format_type(atttypid, atttypmod)), ', ' order by attnum)"
        " from pg_attribute where attrelid = %s::regclass and attnum > 0",
        (table,),
    )
    (columns,) = cursor.fetchone() or ("",)
way_out, way_in = os.pipe()


def read() -> None:
    with os.fdopen(way_in, "wb") as pipe, source.cursor() as cursor:
        cursor.copy_expert(f"copy {table} to stdout (format binary)", pipe, 1 << 20)


reader = threading.Thread(target=read)
reader.start()
with os.fdopen(way_out, "rb") as pipe, destination.cursor() as cursor:
    cursor.execute(f"create table {table} ({columns})")
    cursor.copy_expert(f"copy {table} from stdin (format binary)", pipe, 1 << 20)
reader.join()
destination.commit()
