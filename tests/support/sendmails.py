"""Those lines of a sendmail.cf that matter here, as m4 of Sendmail 8.18 makes them."""

from __future__ import annotations

CF = """\
######################################################################
##### $Id: cf.m4,v 8.33 1999/02/07 07:26:14 gshapiro Exp $  #####
V10/Berkeley
Cwlocalhost
Dj$w.Foo.COM
DZ8.18.1/Debian-6
# the names in the server's certificate, as class {cert_altnames}
O SetCertAltnames=true
O DeliveryMode=background
#O DontBlameSendmail=safe
#O HostStatusDirectory=.hoststat
O DaemonPortOptions=Name=MTA, Family=inet, Addr=127.0.0.1, Port=smtp
O PrivacyOptions=authwarnings
O ForkEachJob=True
O TLSSrvOptions=V
O InputMailFilters=requiretls
O Milter.macros.envrcpt={rcpt_mailer}, {rcpt_host}, {rcpt_addr}
O CACertPath=/etc/mail/certs
O CACertFile=/etc/mail/ca.pem
O ServerCertFile=/etc/mail/server.pem
O ServerKeyFile=/etc/mail/server.pem
#O ClientCertFile
#O DANE=false
Stls_server
R$*\t\t\t$: $1 $| $>"Local_tls_server" $1
R$* $| $#$*\t\t$#$2
SLocal_tls_server
# marked? then $&{envid} ends with REQUIRETLS
R$*\t\t\t\t$: $1 $| $&{envid}
R$* $| $* . REQUIRETLS\t\t$: <!> $1
R$* $| REQUIRETLS\t\t$: <!> $1
R$* $| $*\t\t\t$@ OK
SRequiretls_name
R$={cert_altnames}\t\t$@ OK
Xrequiretls, S=unix:/run/requiretls-milter/milter.sock, F=T, T=S:30s;R:30s;E:1m
Mesmtp,\t\tP=[IPC], F=mDFMuXa, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, L=990,
\t\tT=DNS/RFC822/SMTP,
\t\tA=TCP $h
"""


def changed(*changes: tuple[str, str]) -> str:
    """The file with each first text replaced by the second one."""
    text = CF
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text
