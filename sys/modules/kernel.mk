# The kernel that a module is built for: its source tree and its options. Include it ahead
# of <bsd.kmod.mk>.
#
# SYSDIR	The sys folder of that kernel's source tree. [/usr/src/sys]
#
# KERNBUILDDIR	Its build folder. Without one, config(8) writes the options of KERNCONF:
#		a module built for other options than the kernel's would see other
#		structures, and bsd.kmod.mk knows but few of GENERIC's by itself.
#
# KERNCONF	The kernel's configuration, a name or a path. [the running kernel's ident]

.include <bsd.init.mk>

SYSDIR?=	/usr/src/sys
.if !exists(${SYSDIR}/dev/cxgbe/adapter.h)
.error "toehold: SYSDIR=${SYSDIR} is not the sys folder of a FreeBSD source tree; install the sources of the running kernel or set SYSDIR"
.endif

.if empty(KERNBUILDDIR) && !make(clean) && !make(cleandir) && !make(unload)
.if empty(KERNCONF)
KERNCONF=	${:!sysctl -n kern.ident!}
.endif
KERNBUILDDIR:=	${.OBJDIR}/kernel-${KERNCONF:T}
.if !exists(${KERNBUILDDIR}/opt_global.h)
_configured!=	cd ${SYSDIR}/amd64/conf && mkdir -p ${KERNBUILDDIR} && \
		config -d ${KERNBUILDDIR} ${KERNCONF} >&2 && echo yes || echo no
.if ${_configured} != "yes"
.error "toehold: config(8) made no options of ${KERNCONF}; set KERNCONF or KERNBUILDDIR"
.endif
.endif
.endif
CLEANDIRS+=	${KERNBUILDDIR:M${.OBJDIR}/kernel-*}
