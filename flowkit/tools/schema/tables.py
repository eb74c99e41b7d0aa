"""Tables of pandas, polars and pyarrow, told by name: none of them is imported, nor needs to be there."""

from typing import Any, get_args

_RECORDS = {
    ("pandas", "DataFrame"): 'table.to_dict("records")',
    ("polars", "DataFrame"): "table.to_dicts()",
    ("polars", "LazyFrame"): "table.collect().to_dicts()",
    ("pyarrow", "Table"): "table.to_pylist()",
    ("pyarrow", "RecordBatch"): "table.to_pylist()",
}


def find_table(annotation: Any) -> str | None:
    """Find a table in this annotation and return what to use instead; None when there is none."""
    for part in get_args(annotation):
        found = find_table(part)
        if found is not None:
            return found
    package = str(getattr(annotation, "__module__", "")).partition(".")[0]
    name = str(getattr(annotation, "__name__", ""))
    records = _RECORDS.get((package, name))
    if records is None:
        return None
    return (
        f"its result is a {package}.{name}, which isn't JSON: return {records} as list[dict[str, Any]], "
        "or write a file and return its path"
    )
