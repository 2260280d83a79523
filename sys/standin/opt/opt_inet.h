/* opt_inet.h as a GENERIC kernel of FreeBSD 14 and 15 has it. */
#ifndef _TOEHOLD_OPT_INET_H_
#define _TOEHOLD_OPT_INET_H_

#define INET 1
#define TCP_OFFLOAD 1
#define TCP_RFC7413 1

#endif
