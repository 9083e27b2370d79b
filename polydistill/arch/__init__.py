"""One TOML file per model type; see `polydistill.catalog.Arch`."""
