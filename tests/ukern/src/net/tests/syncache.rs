//! What the syncache does when it does not simply keep an entry until its ACK is here: by release,
//! and with SYN cookies.

use std::time::Duration;

use super::{end, server, start};
use crate::kp::Kp;
use crate::net::acc::{InpExt, SocketExt, TcpcbExt};
use crate::net::fake::{self, Syn, count, fake};
use crate::net::{SyncacheRules, inpcb, k, syncache, tcp_timer};
use crate::proc::Child;
use crate::{Kernel, sched, sys};

/// Sleeps through a whole pause of the syncache.
fn sleeper(kern: &Kernel) -> Child<()> {
    server(kern, 10, |p, _l| p.sleep(Duration::from_secs(120)))
}

fn listener() -> *mut sys::socket {
    let v1 = crate::net::vnet_by_id(1);
    let l = inpcb::find_listener(v1, u32::from_ne_bytes([10, 0, 0, 2]), 80_u16.to_be());
    l.expect("a listener").inp_socket
}

fn synack(n: usize) -> Vec<u8> {
    fake(|f| f.synacks[n].clone())
}

/// The pcb of a socket that an ACK made.
fn made(r: (i32, *mut sys::socket)) -> usize {
    assert_eq!(r.0, 1);
    assert!(!r.1.is_null() && !std::ptr::eq(r.1, listener()));
    let inp = Kp::new(r.1).inp();
    k::assert_wlocked(inp.lock_rw());
    k::wunlock(inp.lock_rw());
    inp.addr()
}

/// No socket. Is `*lsop` the listener still?
fn none(r: (i32, *mut sys::socket), answer: i32) -> bool {
    assert_eq!(r.0, answer);
    assert!(r.1.is_null() || std::ptr::eq(r.1, listener()));
    !r.1.is_null()
}

/// The listener has gone, and reset what nobody accepted: the driver's references of those that
/// it was given.
fn drop_refs(kern: &Kernel, pcbs: Vec<usize>) {
    kern.exec(move || {
        for p in pcbs {
            let inp: Kp<sys::inpcb> = Kp::new(p as *mut _);
            k::wlock(inp.lock_rw());
            assert!(inp.dropped());
            fake::drop_ref(inp);
        }
    });
}

#[test]
fn a_bad_ack_leaves_the_entry_and_lsop_alone() {
    let kern = start(40);
    let s = sleeper(&kern);
    let pcb = kern.exec(|| {
        let mut syn = Syn::new(4000, 80);
        syn.add(1);
        assert!(!none(Syn::new(4001, 80).expand(0), 0), "never seen");
        syn.to.to_flags &= !sys::TOF_TS;
        assert!(none(syn.expand(0), -1), "the timestamp is missing");
        syn.to.to_flags |= sys::TOF_TS;
        syn.to.to_tsval -= 1;
        assert!(none(syn.expand(0), -1), "a timestamp of before the SYN");
        syn.to.to_tsval += 1;
        assert!(none(syn.expand(1), 0), "acknowledges what was not sent");
        assert_eq!(syncache::count(), 1);
        made(syn.expand(0))
    });
    assert_eq!((count("offload_socket"), count("syncache_removed")), (1, 1));
    s.join();
    drop_refs(&kern, vec![pcb]);
    end(kern);
}

#[test]
fn in_12_a_bad_ack_ends_the_entry_and_a_missing_timestamp_passes() {
    let kern = start(41);
    kern.syncache_rules(SyncacheRules::Fbsd12);
    let s = sleeper(&kern);
    let pcb = kern.exec(|| {
        let mut syn = Syn::new(4000, 80);
        syn.add(1);
        syn.to.to_tsval -= 1;
        assert!(none(syn.expand(0), -1), "a timestamp of before the SYN");
        syn.to.to_tsval += 1;
        assert!(!none(syn.expand(1), 0), "acknowledges what was not sent");
        assert_eq!(syncache::count(), 0);
        let mut syn = Syn::new(4001, 80);
        syn.add(2);
        syn.to.to_flags &= !sys::TOF_TS;
        made(syn.expand(0))
    });
    assert_eq!((count("offload_socket"), count("syncache_removed")), (1, 2));
    s.join();
    drop_refs(&kern, vec![pcb]);
    end(kern);
}

/// SYN|ACKs and entries after the driver refuses to send one again.
fn refused_again(rules: SyncacheRules, again: impl FnOnce(&Kernel)) -> (usize, usize) {
    let kern = start(42);
    kern.syncache_rules(rules);
    let s = sleeper(&kern);
    kern.exec(|| Syn::new(4000, 80).add(1));
    fake(|f| f.respond_answer = sys::ECONNABORTED as i32);
    again(&kern);
    let is = (count("syncache_respond"), kern.syncache_count());
    s.join();
    assert_eq!(kern.syncache_count(), 0);
    assert_eq!((count("syncache_added"), count("syncache_removed")), (1, 1));
    end(kern);
    is
}

#[test]
fn the_timer_of_12_does_not_look_at_what_the_driver_answers() {
    let wait = |kern: &Kernel| kern.run_for(8 * sched::SBT_1S);
    assert_eq!(refused_again(SyncacheRules::Fbsd14, wait), (2, 0));
    assert_eq!(refused_again(SyncacheRules::Fbsd12, wait), (4, 1));
}

#[test]
fn nor_does_a_repeated_syn() {
    let repeat = |kern: &Kernel| kern.exec(|| Syn::new(4000, 80).add(9));
    assert_eq!(refused_again(SyncacheRules::Fbsd14, repeat), (2, 0));
    assert_eq!(refused_again(SyncacheRules::Fbsd12, repeat), (2, 1));
}

/// With cookies alone: what the driver has to do by itself.
fn cookies_alone(seed: u64, rules: SyncacheRules) {
    let kern = start(seed);
    kern.syncache_rules(rules);
    kern.set_vnet_int(1, "tcp_syncookiesonly", 1).unwrap();
    let s = server(&kern, 10, |p, l| {
        let (fd, _) = p.accept(l).unwrap();
        p.close(fd).unwrap();
    });
    kern.exec(|| {
        let mut syn = Syn::new(4000, 80);
        syn.to.to_mss = 1459;
        syn.to.to_wscale = 5;
        syn.add(1);
        assert_eq!(syncache::count(), 0);
        assert!(!none(syn.expand(0x100), 0), "no cookie of ours");
        let mut other = Syn::new(4001, 80);
        assert!(!none(other.expand(0), 0), "another connection's");
        let r = syn.expand(0);
        assert_eq!(r.0, 1);
        let inp = Kp::new(r.1).inp();
        let tp = inp.tp();
        assert_eq!(tp.st(), sys::TCPS_SYN_RECEIVED);
        assert_eq!(tp.t_maxseg(), 1452, "rounded down to one of eight");
        assert_eq!(
            (tp.snd_scale, tp.t_flags & sys::TF_SACK_PERMIT != 0),
            (4, true)
        );
        assert!(!tp.toe(), "nobody asked the driver");
        assert!(tcp_timer::active(tp, sys::TT_KEEP));
        assert!(tp.t_flags & sys::TF_RCVD_TSTMP != 0);
        k::wunlock(inp.lock_rw());
    });
    s.join();
    let said = ["added", "removed"].map(|w| count(&format!("syncache_{w}")));
    assert_eq!((said, count("offload_socket")), ([0, 0], 0));
    end(kern);
}

#[test]
fn a_connection_out_of_a_cookie_is_the_drivers_to_take() {
    cookies_alone(43, SyncacheRules::Fbsd14);
    cookies_alone(44, SyncacheRules::Fbsd12);
}

#[test]
fn a_cookie_counts_only_after_an_overflow_and_for_half_a_minute() {
    let kern = start(45);
    kern.syncache_rules(SyncacheRules::Fbsd12);
    let s = sleeper(&kern);
    kern.exec(|| {
        let mut syn = Syn::new(4000, 80);
        syn.add(1);
        syn.th.th_flags = sys::TH_RST as u8;
        syn.th.th_seq = 5001;
        syn.reset();
        assert_eq!(syncache::count(), 0);
        assert!(
            !none(syn.expand(0), 0),
            "genuine, but no entry was ever lost"
        );
    });
    kern.syncache_bucket(2);
    let pcb = kern.exec(|| {
        for port in 4001..4004 {
            Syn::new(port, 80).add(port.into());
        }
        assert_eq!(syncache::count(), 2);
        made(Syn::new(4001, 80).expand_of(&synack(1), 0))
    });
    assert_eq!((count("syncache_added"), count("syncache_removed")), (4, 2));
    assert_eq!(count("offload_socket"), 0, "its entry made way");
    // Too late: the secret was renewed twice.
    kern.run_for(31 * sched::SBT_1S);
    kern.exec(|| {
        for port in 4005..4008 {
            Syn::new(port, 80).add(port.into());
        }
        assert!(!none(Syn::new(4001, 80).expand_of(&synack(1), 0), 0));
    });
    s.join();
    assert_eq!(count("send_rst"), 0, "it was never the driver's: {pcb:#x}");
    end(kern);
}

#[test]
fn an_overflow_pauses_the_syncache() {
    let kern = start(46);
    kern.syncache_bucket(2);
    let s = sleeper(&kern);
    kern.exec(|| {
        for port in 4000..4003 {
            Syn::new(port, 80).add(port.into());
        }
        // From now on an entry counts for nothing, and no more are made.
        Syn::new(4004, 80).add(7);
        assert_eq!((syncache::count(), count("syncache_added")), (2, 3));
        for (n, port) in [(0, 4000), (2, 4002), (3, 4004)] {
            made(Syn::new(port, 80).expand_of(&synack(n), 0));
        }
        assert_eq!(count("offload_socket"), 0);
    });
    // The timer of the bucket throws out what is left.
    kern.run_for(2 * sched::SBT_1S);
    assert_eq!(kern.syncache_count(), 0);
    assert_eq!(count("syncache_removed"), 3);
    // A pause ends.
    kern.run_for(15 * sched::SBT_1S);
    kern.exec(|| Syn::new(4009, 80).add(9));
    assert_eq!(kern.syncache_count(), 1);
    s.join();
    end(kern);
}

#[test]
fn a_timer_that_ran_before_the_offload_goes_off() {
    let kern = start(47);
    kern.set_vnet_int(1, "tcp_syncookiesonly", 1).unwrap();
    let s = sleeper(&kern);
    let pcbs = kern.exec(|| {
        [4000, 4001].map(|port| {
            let mut syn = Syn::new(port, 80);
            syn.add(1);
            let inp: Kp<sys::inpcb> = Kp::new(made(syn.expand(0)) as *mut _);
            k::wlock(inp.lock_rw());
            fake::adopt(inp);
            // Too late: the kernel does not touch a timer of an offloaded connection.
            tcp_timer::activate(inp.tp(), sys::TT_KEEP, 0);
            assert!(tcp_timer::active(inp.tp(), sys::TT_KEEP));
            if port == 4001 {
                crate::vnet::with_vnet(inpcb::vnet_of(inp), || k::net_epoch(|| fake::up(inp)));
            }
            k::wunlock(inp.lock_rw());
            inp.addr()
        })
    });
    kern.run_for(80 * sched::SBT_1S);
    let dropped = |p: usize| Kp::<sys::inpcb>::new(p as *mut _).dropped();
    assert!(dropped(pcbs[0]), "it never got past SYN_RECEIVED");
    assert!(!dropped(pcbs[1]), "established");
    s.join();
    drop_refs(&kern, pcbs.to_vec());
    end(kern);
}
