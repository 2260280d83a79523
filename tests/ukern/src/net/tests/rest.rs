//! TIME_WAIT, neighbours, options, and breaches of the contract.

use super::{client, end, finish, start};
use crate::kp::Kp;
use crate::net::acc::{InpExt, TcpcbExt};
use crate::net::fake::{self, Syn, calls, count};
use crate::net::{inpcb, k, tcp_subr, toecore};
use crate::proc::SockOpt;
use crate::{sched, sys, vnet};

#[test]
fn time_wait_is_the_kernels() {
    let kern = start(18);
    let c = client(&kern, |p, s| p.close(s).unwrap());
    let inp = kern.exec(fake::establish);
    c.join();
    kern.exec(move || {
        fake::with_pcb(inp, |tp| {
            tcp_subr::state_change(tp, sys::TCPS_FIN_WAIT_2);
            // The driver lets go first, as t4_pcb_detach does.
            let mut tp = tp;
            tp.t_flags &= !sys::TF_TOE;
            tp.tod = std::ptr::null_mut();
            tcp_subr::twstart(tp);
            false
        });
        k::wlock(inp.lock_rw());
        assert_eq!(inp.tp().st(), sys::TCPS_TIME_WAIT);
        assert!(!inp.dropped());
        fake::drop_ref(inp);
    });
    assert_eq!(
        kern.netstat().iter().map(|p| p.state).collect::<Vec<_>>(),
        ["TIME_WAIT"]
    );
    kern.run_for(61 * sched::SBT_1S);
    assert!(kern.netstat().is_empty());
    assert_eq!(count("pcb_detach"), 0);
    end(kern);
}

#[test]
fn the_four_tuple_check_spares_newer_syns_in_time_wait() {
    let kern = start(19);
    let c = client(&kern, |p, s| {
        let me = p.getsockname(s).unwrap();
        p.close(s).unwrap();
        me
    });
    let inp = kern.exec(fake::establish);
    let me = c.join();
    kern.exec(move || {
        let mut syn = Syn::new(80, me.port);
        syn.inc.inc_ie.ie_dependfaddr.id46_addr =
            crate::net::acc::v4(u32::from_ne_bytes([10, 0, 0, 2]));
        syn.inc.inc_ie.ie_dependladdr.id46_addr =
            crate::net::acc::v4(u32::from_ne_bytes([10, 0, 0, 1]));
        let v0 = crate::net::vnet_by_id(0);
        let check = |syn: &mut Syn| {
            vnet::with_vnet(v0, || {
                k::net_epoch(|| {
                    let null = std::ptr::null_mut();
                    toecore::c::toe_4tuple_check(Kp::new(&raw mut syn.inc), &raw mut syn.th, null)
                })
            })
        };
        let in_use = sys::EADDRINUSE as i32;
        assert_eq!(check(&mut syn), in_use, "a live connection");
        fake::with_pcb(inp, |tp| {
            let mut tp = tp;
            tp.t_flags &= !sys::TF_TOE;
            tp.rcv_nxt = 9000;
            tcp_subr::twstart(tp);
            false
        });
        syn.th.th_seq = 9000;
        assert_eq!(check(&mut syn), in_use, "an old SYN");
        syn.th.th_seq = 9001;
        assert_eq!(check(&mut syn), 0, "a newer SYN ends TIME_WAIT");
        assert_eq!(check(&mut syn), 0, "nobody has it now");
        k::wlock(inp.lock_rw());
        fake::drop_ref(inp);
    });
    end(kern);
}

fn resolve(name: &'static str, ip: [u8; 4]) -> (i32, [u8; 6], u16) {
    let ifp = crate::net::ifnet::by_name(name).expect("an interface");
    // SAFETY: plain C data.
    let mut sin: sys::sockaddr_in = unsafe { std::mem::zeroed() };
    sin.sin_family = sys::AF_INET as u8;
    sin.sin_addr.s_addr = u32::from_ne_bytes(ip);
    let (mut mac, mut tag) = ([0; 6], 0);
    let sa = Kp::new((&raw mut sin).cast());
    let r = toecore::c::toe_l2_resolve(
        fake::tod(),
        ifp,
        sa,
        mac.as_mut_ptr(),
        Kp::new(&raw mut tag),
    );
    (r, mac, tag)
}

#[test]
fn neighbours_resolve_at_once_or_later() {
    let kern = start(20);
    assert_eq!(
        kern.exec(|| resolve("fakea0", [10, 0, 0, 2])),
        (0, [2, 0, 0, 0, 0, 2], 0xfff)
    );
    kern.l2_hold("fakea0", true);
    let wait = sys::EWOULDBLOCK as i32;
    assert_eq!(kern.exec(|| resolve("fakea0", [10, 0, 0, 2]).0), wait);
    assert_eq!(
        kern.exec(|| resolve("fakeb0", [10, 0, 0, 1]).0),
        0,
        "only that interface is held"
    );
    kern.l2_answer("fakea0", [10, 0, 0, 2].into(), true);
    assert_eq!(
        calls("l2_update")[0].note,
        "[10, 0, 0, 2] [2, 0, 0, 0, 0, 2] 0xfff"
    );
    assert!(calls("l2_update")[0].epoch);
    kern.l2_answer("fakea0", [10, 0, 0, 2].into(), true);
    assert_eq!(count("l2_update"), 1, "nobody waits any more");
    assert_eq!(kern.exec(|| resolve("fakea0", [10, 0, 0, 2]).0), wait);
    kern.l2_answer("fakea0", [10, 0, 0, 2].into(), false);
    assert_eq!(calls("l2_update")[1].note, "[10, 0, 0, 2] gone 0xfff");
    kern.l2_hold("fakea0", false);
    // Nobody has this address: asked for in vain until the entry times out.
    assert_eq!(kern.exec(|| resolve("fakea0", [10, 0, 0, 77]).0), wait);
    kern.run_for(30 * sched::SBT_1S);
    assert_eq!(calls("l2_update")[2].note, "[10, 0, 0, 77] gone 0xfff");
    end(kern);
}

#[test]
fn options_reach_the_driver() {
    let kern = start(21);
    let c = client(&kern, |p, s| {
        p.setsockopt(s, SockOpt::NoDelay(true)).unwrap();
        p.close(s).unwrap();
    });
    let inp = kern.exec(fake::establish);
    c.join();
    assert_eq!(calls("ctloutput")[0].note, "1 1");
    assert!(calls("ctloutput")[0].wlocked);
    finish(&kern, inp);
    end(kern);
}

#[test]
fn a_pcb_outlives_its_socket_while_the_driver_holds_it() {
    let kern = start(22);
    let c = client(&kern, |p, s| {
        p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
    });
    let inp = kern.exec(fake::establish);
    c.join();
    kern.exec(move || {
        k::wlock(inp.lock_rw());
        assert!(inp.inp_socket.is_null() && inp.dropped());
        assert_eq!(inp.inp_refcount, 1);
        fake::drop_ref(inp);
    });
    end(kern);
}

#[test]
fn unlocked_calls_are_caught() {
    let kern = start(24);
    let _c = client(&kern, |p, s| p.recv_bytes(s, 1));
    let r = kern.expect_panic(|| {
        let inp: Kp<sys::inpcb> = Kp::new(fake::fake(|f| f.connecting[0]) as *mut _);
        k::net_epoch(|| toecore::c::toe_connect_failed(fake::tod(), inp, 60));
    });
    assert!(r.contains("\"tcpinp\" not write-owned"), "{r}");
}

#[test]
fn calls_outside_the_epoch_are_caught() {
    let kern = start(25);
    let _c = client(&kern, |p, s| p.recv_bytes(s, 1));
    let r = kern.expect_panic(|| {
        let inp: Kp<sys::inpcb> = Kp::new(fake::fake(|f| f.connecting[0]) as *mut _);
        k::wlock(inp.lock_rw());
        toecore::c::toe_connect_failed(fake::tod(), inp, 60);
    });
    assert!(r.contains("not in the net epoch"), "{r}");
}

#[test]
fn a_reference_too_few_is_caught() {
    let kern = start(26);
    let _c = client(&kern, |p, s| p.recv_bytes(s, 1));
    let r = kern.expect_panic(|| {
        let inp: Kp<sys::inpcb> = Kp::new(fake::fake(|f| f.connecting[0]) as *mut _);
        k::wlock(inp.lock_rw());
        inpcb::rele_wlocked(inp);
        inpcb::rele_wlocked(inp);
    });
    assert!(
        r.contains("last reference of a pcb that was not freed"),
        "{r}"
    );
}

#[test]
fn leaked_pcb_references_show_at_shutdown() {
    let kern = start(27);
    let c = client(&kern, |p, s| {
        p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
    });
    let _inp = kern.exec(fake::establish);
    c.join();
    fake::unload(&kern);
    let r = kern.shutdown_report();
    assert!(
        r.leaks.iter().any(|l| l.contains("tcp_inpcb")),
        "{:?}",
        r.leaks
    );
}
