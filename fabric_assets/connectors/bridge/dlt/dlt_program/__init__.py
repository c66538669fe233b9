"""The program that reads a dlt source. The connector's own Python runs it; it imports the standard library, dlt and the source, and nothing else."""
