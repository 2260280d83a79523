/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/t4_ioctl.h: only what a connection offload policy
 * (COP) decides for one connection. Nothing loads a policy into t5sim, so
 * adapter.policy stays NULL there.
 */
#ifndef __T4_IOCTL_H__
#define __T4_IOCTL_H__

#include <sys/types.h>

struct t4_offload_policy;

/* -1 in a field: the policy leaves that matter to the driver. */
struct offload_settings {
	int8_t offload;
	int8_t rx_coalesce;
	int8_t cong_algo;
	int8_t sched_class;
	int8_t tstamp;
	int8_t sack;
	int8_t nagle;
	int8_t ecn;
	int8_t ddp;
	int8_t tls;
	int16_t txq;
	int16_t rxq;
	int16_t mss;
};

#endif
