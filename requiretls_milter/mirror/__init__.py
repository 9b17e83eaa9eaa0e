"""The [mta] section that mirrors a Postfix: read from postconf, compared, written."""
