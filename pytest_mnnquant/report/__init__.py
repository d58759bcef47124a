"""Reports findings and metrics to people and programs: builds one model of the report, and renders it."""
