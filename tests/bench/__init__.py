"""``make bench``: what the milter costs, beside a milter that does next to nothing."""
