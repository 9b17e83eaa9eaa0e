"""A milter that forecasts how REQUIRETLS mail (RFC 8689) will be delivered."""

__version__ = "0.2.0"
