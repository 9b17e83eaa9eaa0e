dnl Mail that requiretls-milter has marked is sent over verified TLS or not at all.
dnl Put this file into /etc/mail, and as its last line into sendmail.mc:
dnl     include(`/etc/mail/requiretls.m4')dnl
dnl What each part is for: docs/recipes/sendmail.md
INPUT_MAIL_FILTER(`requiretls', `S=unix:/run/requiretls-milter/milter.sock, F=T, T=S:30s;R:30s;E:1m')dnl
dnl Sendmail must not apply one refusal to other mail to the same host.
define(`confSEPARATE_PROC', `True')dnl
undefine(`confHOST_STATUS_DIRECTORY')dnl
LOCAL_CONFIG
# the names in the server's certificate, as class {cert_altnames}
O SetCertAltnames=true
LOCAL_TLS_SERVER
# marked? then $&{envid} ends with REQUIRETLS
R$*				$: $1 $| $&{envid}
R$* $| $* . REQUIRETLS		$: <!> $1
R$* $| REQUIRETLS		$: <!> $1
R$* $| $*			$@ OK
# a bounce, of the empty sender, goes in any case (RFC 8689, section 5)
R<!> $*				$: $&f $| <!> $1
R$| <!> $*			$@ OK
R<> $| <!> $*			$@ OK
RMAILER-DAEMON $| <!> $*	$@ OK
R$* $| <!> $*			$: <!> $2
# verified by DANE
R<!> TRUSTED			$@ OK
# verified by the certificate's chain: then its name has to be right, too
R<!> OK				$: $>Requiretls_name $&{server_name}
R$#$*				$#$1
ROK				$@ OK
R$*				$#error $@ 5.7.10 $: "550 REQUIRETLS: the session with " $&{server_name} " is not verified TLS (verify=" $&{verify} ")"
SRequiretls_name
R$* .				$1
R$={cert_altnames}		$@ OK
# a wildcard stands for the first label
R$- . $+			$: $1 . $2 $| * . $2
R$* $| $={cert_altnames}	$@ OK
R$* $| $*			$: $1
# a certificate without names but for its subject's (CN-ID)
R$&{cn_subject}			$@ OK
R$*				$#error $@ 5.7.10 $: "550 REQUIRETLS: the certificate of " $&{server_name} " is for another name"
