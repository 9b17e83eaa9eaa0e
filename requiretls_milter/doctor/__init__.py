"""``doctor``: what is wrong with an installation, and what to do about it.

Each check yields findings: a sentence, a severity and, unless all is well, an advice.

- Four modules compare the configuration with the settings of the Postfix beside it, and read
  nothing but those settings: :mod:`~requiretls_milter.doctor.attachment`, whether Postfix calls the
  milter for all mail; :mod:`~requiretls_milter.doctor.calling`, whether it waits long enough, and
  what it does meanwhile; :mod:`~requiretls_milter.doctor.mta`, whether it delivers as ``[mta]``
  says; :mod:`~requiretls_milter.doctor.requirement`, what it does with REQUIRETLS.
- :mod:`~requiretls_milter.doctor.sendmail` does the same for a Sendmail, whose configuration
  :mod:`~requiretls_milter.doctor.sendmailcf` reads.
- :mod:`~requiretls_milter.doctor.host` tests this host: the milter's socket, with the
  :mod:`~requiretls_milter.doctor.permissions` on it, whether the MTA runs, port 25.
- :mod:`~requiretls_milter.doctor.service` asks the running service and reads its metrics.
- :mod:`~requiretls_milter.doctor.trust` tests what is trusted: the certification authorities and
  the resolvers, ours and the MTA's.
- :mod:`~requiretls_milter.doctor.run` runs all checks in order.
- :mod:`~requiretls_milter.doctor.finding` is a finding, and prints findings.

The names of the checks and the severities are a contract with scripts (docs/doctor.md). Nothing is
changed, and no mail is sent.
"""
