"""One TOML file per language; see `polydistill.catalog.Language`."""
