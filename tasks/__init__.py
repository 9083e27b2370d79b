"""One TOML file per task; see `polydistill.catalog.Task`."""
