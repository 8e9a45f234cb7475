"""All cases, module by module: importing a module adds its cases to the list, whoever imports it first."""

from tests.hostile import case as cases
from tests.hostile import (  # noqa: F401
    cases_archives,
    cases_arrays,
    cases_images,
    cases_models,
    cases_parquet,
    cases_report,
    cases_runs,
    cases_tables,
    cases_weights,
)

#: In the order of the table.
CASES: list[cases.Case] = sorted(cases.CASES, key=lambda case: case.make.__module__)
