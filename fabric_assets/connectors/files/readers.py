"""A csv, jsonl, json or parquet file -> its columns' types, then its rows as Arrow tables in the file's own order.

A reader first inspects the file, and reads it once the types of all files of the run are known. The inspection finds bad lines, which
become rejected rows; the other rows keep their numbers in the file.
"""

from fabric_assets.connectors.files.csv_reader import CsvReader
from fabric_assets.connectors.files.json_reader import JsonReader
from fabric_assets.connectors.files.listing import FetchedFile
from fabric_assets.connectors.files.parquet_reader import ParquetReader
from fabric_assets.connectors.files.piece import Reader, Reading

_READERS = {"csv": CsvReader, "jsonl": JsonReader, "json": JsonReader, "parquet": ParquetReader}


def build_reader(file: FetchedFile, reading: Reading) -> Reader:
    return _READERS[reading.stream.format](file, reading)
