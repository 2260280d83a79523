/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/common/t4_msg.h: CPL opcodes of the TOE, the header in
 * front of every received CPL, and the fields the base driver itself looks at when it
 * hands a reply to one of several owners. All other messages are built and read in Rust
 * (crate wire).
 */
#ifndef T4_MSG_H
#define T4_MSG_H

#include "../osdep.h"

enum {
	/* host to adapter */
	CPL_PASS_OPEN_REQ	= 0x01,
	CPL_PASS_ACCEPT_RPL	= 0x02,
	CPL_ACT_OPEN_REQ	= 0x03,
	CPL_SET_TCB_FIELD	= 0x05,
	CPL_GET_TCB		= 0x06,
	CPL_CLOSE_CON_REQ	= 0x08,
	CPL_CLOSE_LISTSRV_REQ	= 0x09,
	CPL_ABORT_REQ		= 0x0a,
	CPL_ABORT_RPL		= 0x0b,
	CPL_RX_DATA_ACK		= 0x0d,
	CPL_L2T_WRITE_REQ	= 0x12,
	CPL_TID_RELEASE		= 0x1a,
	CPL_PASS_OPEN_REQ6	= 0x81,
	CPL_ACT_OPEN_REQ6	= 0x83,

	/* adapter to host */
	CPL_CLOSE_LISTSRV_RPL	= 0x20,
	CPL_GET_TCB_RPL		= 0x22,
	CPL_L2T_WRITE_RPL	= 0x23,
	CPL_PASS_OPEN_RPL	= 0x24,
	CPL_ACT_OPEN_RPL	= 0x25,
	CPL_PEER_CLOSE		= 0x26,
	CPL_ABORT_REQ_RSS	= 0x2b,
	CPL_ABORT_RPL_RSS	= 0x2d,
	CPL_CLOSE_CON_RPL	= 0x32,
	CPL_RX_DATA		= 0x39,
	CPL_SET_TCB_RPL		= 0x3a,
	CPL_RX_DDP_COMPLETE	= 0x3f,
	CPL_ACT_ESTABLISH	= 0x40,
	CPL_PASS_ESTABLISH	= 0x41,
	CPL_RX_DATA_DDP		= 0x42,
	CPL_PASS_ACCEPT_REQ	= 0x44,
	CPL_FW4_ACK		= 0xc3,

	NUM_CPL_CMDS		= 0xef
};

/*
 * 8 bytes ahead of a CPL. A handler gets a pointer to it; the CPL stands right behind,
 * except for those that bring an mbuf (CPL_RX_DATA, CPL_PASS_ACCEPT_REQ): there the
 * mbuf starts with the CPL and goes on with the payload.
 */
struct rss_header {
	uint8_t opcode;
	uint8_t channel:2;
	uint8_t filter_hit:1;
	uint8_t filter_tid:1;
	uint8_t hash_type:2;
	uint8_t ipv6:1;
	uint8_t send2fw:1;
	__be16 qid;
	__be32 hash_val;
};

/* First word of a CPL: opcode in the top byte, tid below. */
union opcode_tid {
	__be32 opcode_tid;
	uint8_t opcode;
};

#define S_CPL_OPCODE	24
#define V_CPL_OPCODE(x)	((uint32_t)(x) << S_CPL_OPCODE)
#define G_CPL_OPCODE(x)	(((x) >> S_CPL_OPCODE) & 0xffU)
#define G_TID(x)	((x) & 0xFFFFFF)
#define MK_OPCODE_TID(opcode, tid) (V_CPL_OPCODE(opcode) | (tid))
#define OPCODE_TID(cmd)	((cmd)->ot.opcode_tid)
#define GET_TID(cmd)	G_TID(ntohl(OPCODE_TID(cmd)))

/* A request's 24-bit tid field when the tid itself is 11 bits: tid, cookie, reply queue. */
#define M_TID_TID	0x7ff
#define V_TID_TID(x)	((x) << 0)
#define G_TID_TID(x)	((x) & M_TID_TID)
#define S_TID_COOKIE	11
#define M_TID_COOKIE	0x7
#define V_TID_COOKIE(x)	((x) << S_TID_COOKIE)
#define G_TID_COOKIE(x)	(((x) >> S_TID_COOKIE) & M_TID_COOKIE)
#define S_TID_QID	14
#define M_TID_QID	0x3ff
#define V_TID_QID(x)	((x) << S_TID_QID)
#define G_TID_QID(x)	(((x) >> S_TID_QID) & M_TID_QID)

#define S_AOPEN_ATID	8
#define M_AOPEN_ATID	0xffffff
#define G_AOPEN_ATID(x)	(((x) >> S_AOPEN_ATID) & M_AOPEN_ATID)

#define S_COOKIE	5
#define M_COOKIE	0x7
#define V_COOKIE(x)	((x) << S_COOKIE)
#define G_COOKIE(x)	(((x) >> S_COOKIE) & M_COOKIE)

struct cpl_set_tcb_rpl {
	union opcode_tid ot;
	__be16 rsvd;
	uint8_t cookie;
	uint8_t status;
	__be64 oldval;
};

struct cpl_act_open_rpl {
	union opcode_tid ot;
	__be32 atid_status;
};

struct cpl_l2t_write_rpl {
	union opcode_tid ot;
	uint8_t status;
	uint8_t rsvd[3];
};

/* params of CPL_L2T_WRITE_REQ */
#define V_L2T_W_PORT(x)		((x) << 8)
#define V_L2T_W_NOREPLY(x)	((x) << 15)
#define CPL_L2T_VLAN_NONE	0xfff

#endif
