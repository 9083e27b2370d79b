"""Reports over runs: what `polydistill compare` reads, compares, prints and draws."""
