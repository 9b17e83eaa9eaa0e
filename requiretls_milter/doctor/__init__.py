"""The doctor's findings: this host and its MTA beside the configuration."""
