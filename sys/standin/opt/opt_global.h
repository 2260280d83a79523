/*
 * opt_global.h as a GENERIC kernel of FreeBSD 14 and 15 has it; the build includes it
 * before every file. The options of INET come along, for struct tcpcb depends on them
 * and a file that forgot opt_inet.h would see another layout.
 */
#ifndef _TOEHOLD_OPT_GLOBAL_H_
#define _TOEHOLD_OPT_GLOBAL_H_

#define VIMAGE 1
#define SMP 1
#define NUMA 1
#define MAC 1
#define KDTRACE_HOOKS 1
#define RACCT 1
#define RACCT_DEFAULT_TO_DISABLED 1
#define DEBUGNET 1
#define TCP_BLACKBOX 1
#define TCP_HHOOK 1

#include "opt_inet.h"
#include "opt_inet6.h"

#endif
