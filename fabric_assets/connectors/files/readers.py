"""A csv, jsonl, json or parquet file -> its columns' types, then its rows as Arrow tables in the file's own order.

A reader says first what the file holds and reads it second, once the types of all files of the run are known. Lines that are no
rows of the format are found at the first look, and given as rejected rows; the others keep the numbers that they have in the file.
"""

from fabric_assets.connectors.files.csv_reader import CsvReader
from fabric_assets.connectors.files.json_reader import JsonReader
from fabric_assets.connectors.files.listing import FetchedFile
from fabric_assets.connectors.files.parquet_reader import ParquetReader
from fabric_assets.connectors.files.piece import Reader, Reading

_READERS = {"csv": CsvReader, "jsonl": JsonReader, "json": JsonReader, "parquet": ParquetReader}


def build_reader(file: FetchedFile, reading: Reading) -> Reader:
    return _READERS[reading.stream.format](file, reading)
