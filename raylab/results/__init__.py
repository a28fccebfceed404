"""What was measured: one documented schema, immutable Parquet parts, SQL, correlations."""

from raylab.results.parts import load, statuses
from raylab.results.run_info import read_run_info, write_run_info
from raylab.results.sink import ParquetSink, ResultSink

__all__ = ["ParquetSink", "ResultSink", "load", "read_run_info", "statuses", "write_run_info"]
