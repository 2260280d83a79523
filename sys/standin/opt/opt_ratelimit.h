/* opt_ratelimit.h as a GENERIC kernel of FreeBSD 14 and 15 has it. */
#ifndef _TOEHOLD_OPT_RATELIMIT_H_
#define _TOEHOLD_OPT_RATELIMIT_H_

#endif
