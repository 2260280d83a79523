/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/common/t4_regs.h: the few registers a TOE driver
 * reads or sets. t5sim answers for these, any other register reads as zero.
 */
#ifndef __T4_REGS_H__
#define __T4_REGS_H__

/* Start of the TCBs in adapter memory. */
#define A_TP_CMM_TCB_BASE	0x7d10

#define A_TP_PARA_REG0		0x7d60
#define S_DUPACKTHRESH		20
#define M_DUPACKTHRESH		0xfU
#define V_DUPACKTHRESH(x)	((x) << S_DUPACKTHRESH)
#define G_DUPACKTHRESH(x)	(((x) >> S_DUPACKTHRESH) & M_DUPACKTHRESH)

/* Of TP_INGRESS_CONFIG: the VNIC field of a filter tuple is a function's number. */
#define S_VNIC			11
#define V_VNIC(x)		((x) << S_VNIC)
#define F_VNIC			V_VNIC(1U)

/* Which bits of a DDP tag index the page pods. */
#define A_ULP_RX_TDDP_TAGMASK	0x19174
#define S_TDDPTAGMASK		6
#define M_TDDPTAGMASK		0x3ffffffU
#define V_TDDPTAGMASK(x)	((x) << S_TDDPTAGMASK)
#define G_TDDPTAGMASK(x)	(((x) >> S_TDDPTAGMASK) & M_TDDPTAGMASK)

/* The four page sizes of DDP, each as log2(size) - 12. */
#define A_ULP_RX_TDDP_PSZ	0x19178
#define S_HPZ3	24
#define S_HPZ2	16
#define S_HPZ1	8
#define S_HPZ0	0
#define M_HPZ3	0xfU
#define M_HPZ2	0xfU
#define M_HPZ1	0xfU
#define M_HPZ0	0xfU
#define G_HPZ3(x)	(((x) >> S_HPZ3) & M_HPZ3)
#define G_HPZ2(x)	(((x) >> S_HPZ2) & M_HPZ2)
#define G_HPZ1(x)	(((x) >> S_HPZ1) & M_HPZ1)
#define G_HPZ0(x)	(((x) >> S_HPZ0) & M_HPZ0)

#endif
