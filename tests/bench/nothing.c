/*
 * A milter in C that does nothing: what libmilter itself costs, the limit of whatever speaks its
 * protocol. It agrees to the same events and replies as the milter under test, and asks for the
 * same macros.
 *
 *   nothing SOCKET
 */
#include <libmilter/mfapi.h>
#include <stdio.h>
#include <string.h>

/* As in requiretls_milter/milter/adapter.py: WANTED, ACTIONS and MACROS. */
#define WANTED                                                                                     \
    (SMFIP_NOHELO | SMFIP_NODATA | SMFIP_NOEOH | SMFIP_NOBODY | SMFIP_NOUNKNOWN | SMFIP_NR_CONN |  \
     SMFIP_NR_MAIL | SMFIP_NR_HDR)
#define ACTIONS (SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_SETSYMLIST)

static sfsistat negotiated(SMFICTX *ctx, unsigned long actions, unsigned long protocol,
                           unsigned long unused2, unsigned long unused3, unsigned long *actions_out,
                           unsigned long *protocol_out, unsigned long *out2, unsigned long *out3) {
    (void)unused2;
    (void)unused3;
    smfi_setsymlist(ctx, SMFIM_CONNECT, "j v {daemon_name}");
    smfi_setsymlist(ctx, SMFIM_ENVFROM, "i {auth_authen} {tls_version} {mail_addr}");
    smfi_setsymlist(ctx, SMFIM_ENVRCPT, "i {rcpt_mailer} {rcpt_host} {rcpt_addr}");
    smfi_setsymlist(ctx, SMFIM_EOM, "i");
    *actions_out = ACTIONS & actions;
    *protocol_out = WANTED & protocol;
    *out2 = *out3 = 0;
    return SMFIS_CONTINUE;
}

static sfsistat connected(SMFICTX *ctx, char *name, _SOCK_ADDR *address) {
    (void)ctx, (void)name, (void)address;
    return SMFIS_NOREPLY;
}

static sfsistat mail(SMFICTX *ctx, char **arguments) {
    (void)ctx, (void)arguments;
    return SMFIS_NOREPLY;
}

static sfsistat rcpt(SMFICTX *ctx, char **arguments) {
    (void)ctx, (void)arguments;
    return SMFIS_CONTINUE;
}

static sfsistat header(SMFICTX *ctx, char *name, char *value) {
    (void)ctx, (void)name, (void)value;
    return SMFIS_NOREPLY;
}

static sfsistat end_or_abort(SMFICTX *ctx) {
    (void)ctx;
    return SMFIS_CONTINUE;
}

int main(int count, char **words) {
    static char address[256];
    struct smfiDesc milter;
    if (count != 2 || snprintf(address, sizeof address, "unix:%s", words[1]) >= (int)sizeof address) {
        fprintf(stderr, "usage: nothing SOCKET\n");
        return 2;
    }
    memset(&milter, 0, sizeof milter);
    milter.xxfi_name = "nothing";
    milter.xxfi_version = SMFI_VERSION;
    milter.xxfi_flags = ACTIONS;
    milter.xxfi_connect = connected;
    milter.xxfi_envfrom = mail;
    milter.xxfi_envrcpt = rcpt;
    milter.xxfi_header = header;
    milter.xxfi_eom = end_or_abort;
    milter.xxfi_abort = end_or_abort;
    milter.xxfi_close = end_or_abort;
    milter.xxfi_negotiate = negotiated;
    if (smfi_setconn(address) != MI_SUCCESS || smfi_register(milter) != MI_SUCCESS) return 1;
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
