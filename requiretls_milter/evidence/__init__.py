"""Everything that touches the network: DNS, MTA-STS policies, SMTP probes.

What is found is *evidence*, frozen values of :mod:`requiretls_milter.model`;
what it means is for :mod:`requiretls_milter.forecast` to say. A failure is
evidence too: nothing here raises for what the network does.
"""
