//! Connections that arrive: syncache, accept queue.

use super::{end, server, start};
use crate::kp::Kp;
use crate::net::acc::{InpExt, SocketExt, TcpcbExt};
use crate::net::fake::{self, Syn, calls, count};
use crate::net::{inpcb, k, socket};
use crate::proc::{SockOpt, addr};
use crate::{sched, sys, vnet};

fn child_pcb(so: *mut sys::socket) -> Kp<sys::inpcb> {
    Kp::new(so).inp()
}

#[test]
fn the_passive_side_goes_through_the_syncache() {
    let kern = start(14);
    let s = server(&kern, 3, |p, l| {
        let (fd, peer) = p.accept(l).unwrap();
        assert_eq!(peer, addr("10.0.0.9", 4000));
        let got = p.recv_exact(fd, 2).unwrap();
        p.setsockopt(fd, SockOpt::Linger(Some(0))).unwrap();
        got
    });
    let inp = kern.exec(|| {
        let mut syn = Syn::new(4000, 80);
        syn.add(0xabc);
        assert_eq!(crate::net::syncache::count(), 1);
        let synack = fake::fake(|f| f.synacks[0].clone());
        assert_eq!(&synack[..2], [0x45, 0]);
        assert_eq!(
            synack[20..24],
            [0, 80, (4000_u16 >> 8) as u8, (4000_u16 & 0xff) as u8]
        );
        assert_eq!(
            u32::from_be_bytes([synack[28], synack[29], synack[30], synack[31]]),
            5001
        );
        assert_eq!(synack[33], 0x12, "SYN and ACK");
        assert_eq!(
            synack[40..44],
            [2, 4, 5, 0xb4],
            "MSS 1460 of a 1500 byte MTU"
        );
        let (r, so) = syn.expand(0);
        assert_eq!(r, 1);
        let inp = child_pcb(so);
        k::assert_wlocked(inp.lock_rw());
        assert_eq!(inp.tp().st(), sys::TCPS_SYN_RECEIVED);
        assert_eq!(inp.tp().t_maxseg(), 1460);
        assert_eq!(inp.tp().snd_scale, 3);
        vnet::with_vnet(inpcb::vnet_of(inp), || k::net_epoch(|| fake::up(inp)));
        k::wunlock(inp.lock_rw());
        inp
    });
    assert_eq!(
        (
            count("syncache_added"),
            count("syncache_removed"),
            count("offload_socket")
        ),
        (1, 1, 1)
    );
    assert_eq!(calls("syncache_added")[0].note, "0xabc");
    assert!(
        calls("syncache_added")[0]
            .locks
            .contains(&"tcp_sc_head".to_string())
    );
    assert!(
        calls("syncache_removed")[0]
            .locks
            .contains(&"tcp_sc_head".to_string())
    );
    assert!(
        calls("syncache_respond")[0].locks.is_empty(),
        "the first SYN|ACK goes out with no lock held"
    );
    let off = calls("offload_socket").pop().unwrap();
    assert!(off.wlocked && off.epoch);
    assert_eq!(off.note, "SYN_RECEIVED count 0");
    kern.exec(move || fake::deliver(inp, b"hi"));
    assert_eq!(s.join(), b"hi");
    assert_eq!(count("send_rst"), 1);
    kern.exec(move || {
        k::wlock(inp.lock_rw());
        fake::drop_ref(inp);
    });
    end(kern);
}

#[test]
fn a_repeated_syn_is_answered_again_and_kept_once() {
    let kern = start(15);
    let s = server(&kern, 3, |p, _l| {
        p.sleep(std::time::Duration::from_secs(60))
    });
    kern.exec(|| {
        let mut syn = Syn::new(4000, 80);
        syn.add(1);
        syn.add(1);
    });
    assert_eq!((count("syncache_respond"), count("syncache_added")), (2, 1));
    assert!(
        calls("syncache_respond")[1]
            .locks
            .contains(&"tcp_sc_head".to_string())
    );
    // Nobody answers: three more SYN|ACKs, then the entry goes.
    kern.run_for(40 * sched::SBT_1S);
    assert_eq!(
        (count("syncache_respond"), count("syncache_removed")),
        (5, 1)
    );
    assert_eq!(kern.syncache_count(), 0);
    s.join();
    end(kern);
}

#[test]
fn a_full_accept_queue_yields_null() {
    let kern = start(17);
    let s = server(&kern, 1, |p, _l| p.sleep(std::time::Duration::from_secs(5)));
    let pcbs: Vec<usize> = kern.exec(|| {
        let mut made = Vec::new();
        for port in 4000..4010 {
            let mut syn = Syn::new(port, 80);
            syn.add(port as usize);
            let (r, so) = syn.expand(0);
            assert_eq!(r, 1);
            if so.is_null() {
                break;
            }
            let inp = child_pcb(so);
            k::wunlock(inp.lock_rw());
            made.push(inp.addr());
        }
        made
    });
    assert_eq!(
        pcbs.len(),
        2,
        "half as many again as the backlog of 1, and one"
    );
    s.join();
    // The listener is gone, and with it, reset, what nobody accepted.
    assert_eq!(count("send_rst"), 2);
    assert_eq!(count("pcb_detach"), 2);
    kern.exec(move || {
        for p in pcbs {
            let inp: Kp<sys::inpcb> = Kp::new(p as *mut _);
            k::wlock(inp.lock_rw());
            assert!(inp.dropped());
            fake::drop_ref(inp);
        }
    });
    end(kern);
}

#[test]
fn soisconnected_moves_an_embryonic_socket_even_when_the_listener_is_busy() {
    // sonewconn with no status leaves the child on the incomplete queue.
    let kern = start(28);
    let s = server(&kern, 3, |p, l| {
        let (fd, _) = p.accept(l).unwrap();
        p.close(fd).unwrap();
    });
    kern.exec(|| {
        let v1 = crate::net::vnet_by_id(1);
        let l = inpcb::find_listener(v1, u32::from_ne_bytes([10, 0, 0, 2]), 80_u16.to_be())
            .expect("listener");
        let so = vnet::with_vnet(v1, || crate::net::listen::newconn(l.so(), 0)).expect("a socket");
        assert_eq!(crate::net::listen::incomp(l.so()).to_vec().len(), 1);
        vnet::with_vnet(v1, || socket::isconnected(so));
        assert!(crate::net::listen::incomp(l.so()).is_empty());
    });
    s.join();
    end(kern);
}
