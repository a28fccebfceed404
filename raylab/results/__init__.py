"""What was measured: one documented schema, immutable Parquet parts, SQL, correlations."""

from raylab.results.parts import load, statuses
from raylab.results.sink import ParquetSink, ResultSink, read_run_info, write_run_info

__all__ = ["ParquetSink", "ResultSink", "load", "read_run_info", "statuses", "write_run_info"]
