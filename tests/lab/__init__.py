"""The lab: real DNS, real SMTP servers and a real Postfix, on loopback addresses only.

``Lab`` (tests.lab.lab) is the one class that a test or a demonstration needs; the other modules
each bring up one kind of server.  Nothing here is imported by the milter itself.
"""
