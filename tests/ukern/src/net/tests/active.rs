//! Connections a program opens, and what it does with them.

use super::{client, end, finish, start};
use crate::net::acc::InpExt;
use crate::net::fake::{self, calls, count};
use crate::net::{k, tcp_subr, toecore};
use crate::proc::{Errno, Exit, ProcConfig, Shut, SockOpt, addr};
use crate::sys;

#[test]
fn connect_offers_the_connection_with_the_right_locks() {
    let kern = start(1);
    let c = client(&kern, |p, s| {
        assert_eq!(p.is_offloaded(s), Ok(true));
        assert_eq!(p.tcp_state(s), Ok("ESTABLISHED"));
        p.close(s).unwrap();
    });
    let call = calls("connect").pop().unwrap();
    assert!(call.wlocked && call.epoch, "{call:?}");
    assert_eq!(call.note, "fakea0");
    let inp = kern.exec(fake::establish);
    c.join();
    assert_eq!(calls("send_fin").len(), 1);
    finish(&kern, inp);
    assert_eq!(count("pcb_detach"), 1);
    end(kern);
}

#[test]
fn a_driver_that_declines_leaves_the_connection_to_the_host() {
    let kern = start(2);
    fake::fake(|f| f.connect_answer = sys::ENOMEM as i32);
    let s = kern.spawn(ProcConfig::vnet(1), |p| {
        let l = p.socket().unwrap();
        p.setsockopt(l, SockOpt::NoOffload(true)).unwrap();
        p.bind(l, addr("10.0.0.2", 80)).unwrap();
        p.listen(l, 3).unwrap();
        let (fd, peer) = p.accept(l).unwrap();
        assert_eq!(peer.ip, addr("10.0.0.1", 0).ip);
        p.recv_exact(fd, 5).unwrap()
    });
    kern.run_until_idle();
    let c = client(&kern, |p, s| {
        assert_eq!(p.is_offloaded(s), Ok(false));
        p.send_all(s, b"hello").unwrap();
    });
    assert_eq!(s.join(), b"hello");
    c.join();
    assert_eq!(
        (count("connect"), count("listen_start"), count("output")),
        (1, 0, 0)
    );
    end(kern);
}

#[test]
fn no_toe_on_the_interface_or_socket_means_no_offer() {
    let kern = start(3);
    kern.ifconfig_toe("fakea0", false).unwrap();
    let c = kern.spawn(ProcConfig::vnet(0), |p| {
        let s = p.socket().unwrap();
        assert_eq!(p.connect(s, addr("10.0.0.2", 80)), Err(Errno::ECONNREFUSED));
    });
    c.join();
    kern.ifconfig_toe("fakea0", true).unwrap();
    let c = kern.spawn(ProcConfig::vnet(0), |p| {
        let s = p.socket().unwrap();
        p.setsockopt(s, SockOpt::NoOffload(true)).unwrap();
        assert_eq!(p.connect(s, addr("10.0.0.2", 80)), Err(Errno::ECONNREFUSED));
        // One's own address is on lo0, which has no TOE.
        let s = p.socket().unwrap();
        assert_eq!(p.connect(s, addr("10.0.0.1", 80)), Err(Errno::ECONNREFUSED));
    });
    c.join();
    assert_eq!(count("connect"), 0);
    assert_eq!(kern.ifconfig_toe("lo0", true), Err(Errno::EINVAL));
    end(kern);
}

#[test]
fn a_failed_attempt_reports_its_error() {
    let kern = start(4);
    let c = kern.spawn(ProcConfig::vnet(0), |p| {
        let s = p.socket().unwrap();
        assert_eq!(p.connect(s, addr("10.0.0.2", 80)), Err(Errno::ETIMEDOUT));
        assert_eq!(p.tcp_state(s), Ok("CLOSED"));
    });
    kern.run_until_idle();
    kern.exec(|| fake::fail(sys::ETIMEDOUT as i32));
    c.join();
    // The socket was the last to hold it, so detaching came with its close.
    assert_eq!(calls("pcb_detach")[0].note, "CLOSED");
    assert!(calls("pcb_detach")[0].wlocked);
    assert_eq!(count("send_rst"), 0, "nothing to reset in SYN_SENT");
    end(kern);
}

#[test]
fn eagain_gives_the_connection_back_to_the_host() {
    let kern = start(5);
    let c = kern.spawn(ProcConfig::vnet(0), |p| {
        let s = p.socket().unwrap();
        // The host's own attempt finds nobody listening.
        assert_eq!(p.connect(s, addr("10.0.0.2", 80)), Err(Errno::ECONNREFUSED));
        assert_eq!(p.is_offloaded(s), Ok(false));
    });
    kern.run_until_idle();
    kern.exec(|| fake::fail(sys::EAGAIN as i32));
    assert_eq!(calls("pcb_detach")[0].note, "SYN_SENT");
    c.join();
    end(kern);
}

#[test]
fn a_program_that_gives_up_connecting_detaches() {
    let kern = start(6);
    let c = kern.spawn(ProcConfig::vnet(0), |p| {
        let s = p.socket().unwrap();
        let _ = p.connect(s, addr("10.0.0.2", 80));
    });
    kern.run_until_idle();
    c.kill(crate::proc::Signal::Kill).unwrap();
    assert_eq!(c.wait(), Exit::Signal(9));
    assert_eq!(count("pcb_detach"), 1);
    // Too late: the pcb is dropped and only the driver's reference keeps it.
    kern.exec(|| fake::fail(sys::ECONNREFUSED as i32));
    end(kern);
}

#[test]
fn data_goes_to_output_and_comes_back_through_rcvd() {
    let kern = start(7);
    let c = client(&kern, |p, s| {
        p.send_all(s, &[1; 100]).unwrap();
        let got = p.recv_exact(s, 3).unwrap();
        p.close(s).unwrap();
        got
    });
    let inp = kern.exec(fake::establish);
    kern.run_until_idle();
    assert_eq!(calls("output").len(), 1);
    assert_eq!(calls("output")[0].note, "ESTABLISHED snd 100");
    assert!(calls("output")[0].wlocked);
    kern.exec(move || {
        fake::ack(inp, 100);
        fake::deliver(inp, b"abc");
    });
    assert_eq!(c.join(), b"abc");
    assert!(count("rcvd") >= 1 && calls("rcvd")[0].wlocked);
    finish(&kern, inp);
    end(kern);
}

#[test]
fn a_large_write_goes_in_pieces_as_room_appears() {
    let kern = start(8);
    let c = client(&kern, |p, s| p.send_all(s, &vec![1; 50_000]).unwrap());
    let inp = kern.exec(fake::establish);
    kern.run_until_idle();
    // 32 KB fit; the rest waits for acknowledgements.
    assert_eq!(
        calls("output").last().unwrap().note,
        "ESTABLISHED snd 32768"
    );
    kern.exec(move || fake::ack(inp, 32_768));
    c.join();
    assert!(
        calls("output")
            .iter()
            .any(|c| c.note == "ESTABLISHED snd 17232"),
        "{:?}",
        calls("output")
    );
    kern.exec(move || fake::ack(inp, 17_232));
    finish(&kern, inp);
    end(kern);
}

#[test]
fn queued_aio_writes_say_that_more_is_to_come() {
    let kern = start(29);
    let c = client(&kern, |p, s| {
        let va = p.alloc(&[1; 3000]);
        // Two at once, while the first waits for a daemon to be made.
        let a = p.aio_write(s, va, 1000).unwrap();
        let b = p.aio_write(s, va, 2000).unwrap();
        assert_eq!((p.aio_wait(a), p.aio_wait(b)), (Ok(1000), Ok(2000)));
    });
    let inp = kern.exec(fake::establish);
    c.join();
    let out: Vec<String> = calls("output").into_iter().map(|c| c.note).collect();
    assert_eq!(
        out[..2],
        ["ESTABLISHED more snd 1000", "ESTABLISHED snd 3000"]
    );
    finish(&kern, inp);
    end(kern);
}

#[test]
fn shutdown_sends_the_fin_once() {
    let kern = start(9);
    let c = client(&kern, |p, s| {
        p.send_all(s, b"x").unwrap();
        p.shutdown(s, Shut::Wr).unwrap();
        assert_eq!(p.tcp_state(s), Ok("FIN_WAIT_1"));
        p.close(s).unwrap();
    });
    let inp = kern.exec(fake::establish);
    c.join();
    assert_eq!(count("send_fin"), 1);
    assert_eq!(calls("send_fin")[0].note, "FIN_WAIT_1 snd 1");
    assert!(calls("send_fin")[0].wlocked);
    finish(&kern, inp);
    end(kern);
}

#[test]
fn linger_zero_sends_a_reset() {
    let kern = start(10);
    let c = client(&kern, |p, s| {
        p.setsockopt(s, SockOpt::Linger(Some(0))).unwrap();
        p.close(s).unwrap();
    });
    let inp = kern.exec(fake::establish);
    c.join();
    assert_eq!(
        (count("send_rst"), count("send_fin"), count("pcb_detach")),
        (1, 0, 1)
    );
    assert!(calls("send_rst")[0].wlocked && calls("send_rst")[0].epoch);
    kern.exec(move || {
        k::wlock(inp.lock_rw());
        assert!(inp.dropped() && inp.inp_socket.is_null());
        fake::drop_ref(inp);
    });
    end(kern);
}

#[test]
fn a_reset_from_the_peer_ends_a_waiting_read() {
    let kern = start(11);
    let c = client(&kern, |p, s| {
        assert_eq!(p.recv_bytes(s, 10), Err(Errno::ECONNRESET));
        assert_eq!(p.send_bytes(s, b"x"), Err(Errno::EPIPE));
    });
    let inp = kern.exec(fake::establish);
    kern.run_until_idle();
    kern.exec(move || {
        fake::with_pcb(inp, |tp| {
            let mut so = inp.so();
            so.so_error = sys::ECONNRESET as u16;
            tcp_subr::close(tp).is_some()
        });
    });
    c.join();
    assert_eq!(count("send_rst"), 0);
    kern.exec(move || {
        k::wlock(inp.lock_rw());
        fake::drop_ref(inp);
    });
    end(kern);
}

#[test]
fn listeners_start_and_stop_under_the_toedev_lock() {
    let kern = start(12);
    let s = kern.spawn(ProcConfig::vnet(1), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr("10.0.0.2", 80)).unwrap();
        p.listen(l, 3).unwrap();
        p.listen(l, 5).unwrap();
        p.close(l).unwrap();
    });
    s.join();
    // Listening twice announces twice, as FreeBSD does.
    assert_eq!((count("listen_start"), count("listen_stop")), (2, 1));
    for c in calls("listen_start") {
        assert!(
            c.wlocked && c.locks.contains(&"toedev lock".to_string()),
            "{c:?}"
        );
        assert_eq!(c.note, "LISTEN snd 0");
    }
    let stop = calls("listen_stop").pop().unwrap();
    assert!(
        stop.wlocked && stop.locks.contains(&"toedev lock".to_string()),
        "{stop:?}"
    );
    end(kern);
}

#[test]
fn a_device_that_arrives_late_hears_of_the_listeners() {
    let kern = start(13);
    let s = kern.spawn(ProcConfig::vnet(1), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr("10.0.0.2", 80)).unwrap();
        p.listen(l, 3).unwrap();
        p.sleep(std::time::Duration::from_secs(1));
    });
    kern.run_until_idle();
    kern.exec(|| {
        let t = fake::tod();
        assert_eq!(toecore::c::register_toedev(t), sys::EEXIST as i32);
        assert_eq!(toecore::c::unregister_toedev(t), 0);
        assert_eq!(toecore::c::unregister_toedev(t), sys::ENODEV as i32);
        assert_eq!(toecore::c::register_toedev(t), 0);
    });
    assert_eq!(count("listen_start"), 2);
    s.join();
    end(kern);
}
