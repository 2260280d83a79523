/* opt_ipsec.h as a GENERIC kernel of FreeBSD 14 and 15 has it. */
#ifndef _TOEHOLD_OPT_IPSEC_H_
#define _TOEHOLD_OPT_IPSEC_H_

#define IPSEC_SUPPORT 1

#endif
