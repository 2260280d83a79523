//! TCP's variables: per network stack, with FreeBSD's defaults.

use crate::kp::{Kp, poke};
use crate::ksym::KData;
use crate::proc::{Errno, Sys};
use crate::{counter, sys, vnet};

macro_rules! ints {
    ($($id:ident $name:literal = $val:expr;)*) => {
        $(pub(crate) static $id: KData = KData::vnet::<i32>(concat!("vnet_entry_", $name))
            .with_init(|p| poke(p as usize, { const V: i32 = $val; V }));)*
        static INTS: &[(&str, &KData)] = &[$(($name, &$id)),*];
        static DATA: &[&KData] = &[$(&$id,)* &TCP_PROTOSW, &REGISTERED_TOEDEVS, &CC_DEFAULT,
            &TCP6_PROTOSW, &TCPSTAT, &TCPSTATES];
    };
}

ints! {
    DO_AUTOSNDBUF "tcp_do_autosndbuf" = 1;
    AUTOSNDBUF_INC "tcp_autosndbuf_inc" = 8 * 1024;
    AUTOSNDBUF_MAX "tcp_autosndbuf_max" = 2 * 1024 * 1024;
    SENDBUF_AUTO_LOWAT "tcp_sendbuf_auto_lowat" = 0;
    DO_AUTORCVBUF "tcp_do_autorcvbuf" = 1;
    AUTORCVBUF_MAX "tcp_autorcvbuf_max" = 2 * 1024 * 1024;
    SENDSPACE "tcp_sendspace" = 32 * 1024;
    RECVSPACE "tcp_recvspace" = 64 * 1024;
    DO_RFC1323 "tcp_do_rfc1323" = 1;
    DO_SACK "tcp_do_sack" = 1;
    DO_ECN "tcp_do_ecn" = 2;
    DO_TSO "tcp_do_tso" = 1;
    DO_LRD "tcp_do_lrd" = 1;
    MSSDFLT "tcp_mssdflt" = 536;
    MINMSS "tcp_minmss" = 216;
    PATH_MTU_DISCOVERY "path_mtu_discovery" = 1;
    ALWAYS_KEEPALIVE "tcp_always_keepalive" = 1;
    DELACK_ENABLED "tcp_delack_enabled" = 1;
    MSL "tcp_msl" = 30_000;
    DROP_SYNFIN "drop_synfin" = 0;
    INITCWND_SEGMENTS "tcp_initcwnd_segments" = 10;
    TOLERATE_MISSING_TS "tcp_tolerate_missing_ts" = 0;
    SYNCOOKIES "tcp_syncookies" = 1;
    SYNCOOKIESONLY "tcp_syncookiesonly" = 0;
}

/// `tcp_protosw`, "shared for TOE": drivers copy it and put their own hooks in.
pub(crate) static TCP_PROTOSW: KData = KData::of::<sys::protosw>("tcp_protosw");
/// `tcp6_protosw`: the same for sockets of AF_INET6.
pub(crate) static TCP6_PROTOSW: KData = KData::of::<sys::protosw>("tcp6_protosw");
/// `registered_toedevs`.
pub(crate) static REGISTERED_TOEDEVS: KData = KData::of::<i32>("registered_toedevs");
/// The congestion control a connection starts with.
pub(crate) static CC_DEFAULT: KData = KData::of::<sys::cc_algo>("newreno_cc_algo");
/// `V_tcpstat`: counters by their index.
pub(crate) static TCPSTAT: KData = KData::vnet::<[usize; TCPSTATS]>("vnet_entry_tcpstat");
/// `V_tcps_states`: connections per state.
pub(crate) static TCPSTATES: KData =
    KData::vnet::<[usize; sys::TCP_NSTATES as usize]>("vnet_entry_tcps_states");

pub(crate) const TCPSTATS: usize = size_of::<sys::tcpstat>() / size_of::<u64>();

pub(crate) fn data() -> &'static [&'static KData] {
    DATA
}

/// `V_x` of a given stack.
pub(crate) fn get(v: *mut sys::vnet, d: &KData) -> i32 {
    *vnet::var_of::<i32>(v, d)
}

/// Sets a variable by its name without `vnet_entry_`.
///
/// # Errors
/// ENOENT for an unknown name.
pub(crate) fn set_by_name(v: *mut sys::vnet, name: &str, value: i32) -> Sys<()> {
    let d = INTS
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, d)| *d)
        .ok_or(Errno::ENOENT)?;
    let mut p: Kp<i32> = vnet::var_of(v, d);
    *p = value;
    Ok(())
}

/// Gives a stack its statistics counters.
pub(crate) fn boot_vnet(v: *mut sys::vnet) {
    for c in vnet::var_of::<[usize; TCPSTATS]>(v, &TCPSTAT).iter_mut() {
        *c = counter::alloc(sys::M_NOWAIT as i32);
    }
    for c in vnet::var_of::<[usize; sys::TCP_NSTATES as usize]>(v, &TCPSTATES).iter_mut() {
        *c = counter::alloc(sys::M_NOWAIT as i32);
    }
}

/// Takes them back.
pub(crate) fn free_vnet(v: *mut sys::vnet) {
    for c in vnet::var_of::<[usize; TCPSTATS]>(v, &TCPSTAT).iter_mut() {
        counter::free(std::mem::take(c));
    }
    for c in vnet::var_of::<[usize; sys::TCP_NSTATES as usize]>(v, &TCPSTATES).iter_mut() {
        counter::free(std::mem::take(c));
    }
}
