/* opt_kern_tls.h as a GENERIC kernel of FreeBSD 14 and 15 has it. */
#ifndef _TOEHOLD_OPT_KERN_TLS_H_
#define _TOEHOLD_OPT_KERN_TLS_H_

#define KERN_TLS 1

#endif
