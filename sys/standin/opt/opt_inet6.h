/* opt_inet6.h as a GENERIC kernel of FreeBSD 14 and 15 has it. */
#ifndef _TOEHOLD_OPT_INET6_H_
#define _TOEHOLD_OPT_INET6_H_

#define INET6 1

#endif
