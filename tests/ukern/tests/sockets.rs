//! Sockets over the wire model: what programs see without offload.

mod ends;

use ends::{PORT, alone, dial, kernel, listener, ms, pair, pattern};
use ukern::proc::{
    Errno, MsgFlags, Poll, ProcConfig, Prot, Shut, Signal, SockOpt, SockOptName, addr,
};

#[test]
fn a_few_bytes_each_way_and_a_clean_close() {
    let (a, b) = pair(
        1,
        |p, fd| {
            let got = p.recv_exact(fd, 5).unwrap();
            p.send_all(fd, b"world").unwrap();
            assert!(
                p.recv_bytes(fd, 10).unwrap().is_empty(),
                "end of file after the peer's close"
            );
            got
        },
        |p, fd| {
            p.send_all(fd, b"hello").unwrap();
            let got = p.recv_exact(fd, 5).unwrap();
            p.close(fd).unwrap();
            got
        },
    );
    assert_eq!((a.as_slice(), b.as_slice()), (&b"hello"[..], &b"world"[..]));
}

#[test]
fn a_megabyte_arrives_in_order_for_many_schedules() {
    for seed in 0..8 {
        let data = pattern(1 << 20, seed as u8);
        let want = data.clone();
        let (got, ()) = pair(
            seed,
            |p, fd| {
                let mut all = Vec::new();
                loop {
                    let part = p.recv_bytes(fd, 100_000).unwrap();
                    if part.is_empty() {
                        return all;
                    }
                    all.extend(part);
                }
            },
            move |p, fd| p.send_all(fd, &data).unwrap(),
        );
        assert_eq!(got.len(), want.len(), "seed {seed}");
        assert!(got == want, "seed {seed}: bytes differ");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let k = kernel(seed);
        let s = k.spawn(ProcConfig::default(), |p| {
            let l = listener(p, PORT);
            let (fd, _) = p.accept(l).unwrap();
            p.recv_exact(fd, 50_000).unwrap().len()
        });
        let c = k.spawn(ProcConfig::default(), |p| {
            let fd = dial(p, PORT);
            p.send_all(fd, &pattern(50_000, 3)).unwrap();
        });
        assert_eq!(s.join(), 50_000);
        c.join();
        let r = k.shutdown();
        (r.trace, r.switches, r.uptime)
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11).0, run(12).0);
}

#[test]
fn nobody_listening_is_refused_and_no_route_is_unreachable() {
    alone(2, |p| {
        let s = p.socket().unwrap();
        assert_eq!(p.connect(s, addr("127.0.0.1", 9)), Err(Errno::ECONNREFUSED));
        let s = p.socket().unwrap();
        assert_eq!(p.connect(s, addr("192.0.2.1", 9)), Err(Errno::ENETUNREACH));
    });
}

#[test]
fn a_nonblocking_connect_goes_through_einprogress() {
    pair(
        3,
        |p, fd| p.recv_exact(fd, 1).unwrap(),
        |p, first| {
            let s = p.socket().unwrap();
            p.set_nonblock(s, true).unwrap();
            let l = listener(p, 6000);
            assert_eq!(
                p.connect(s, addr("127.0.0.1", 6000)),
                Err(Errno::EINPROGRESS)
            );
            assert_eq!(p.connect(s, addr("127.0.0.1", 6000)), Err(Errno::EALREADY));
            assert!(p.poll(s, Poll::OUT, None).unwrap().writable);
            assert_eq!(p.getsockopt(s, SockOptName::Error), Ok(0));
            assert_eq!(p.connect(s, addr("127.0.0.1", 6000)), Err(Errno::EISCONN));
            let (t, peer) = p.accept(l).unwrap();
            assert_eq!(Ok(peer), p.getsockname(s));
            assert_eq!(p.getpeername(s), Ok(addr("127.0.0.1", 6000)));
            p.close(t).unwrap();
            p.send_all(first, b"x").unwrap();
        },
    );
}

#[test]
fn nonblocking_calls_say_ewouldblock() {
    pair(
        4,
        |p, fd| {
            p.set_nonblock(fd, true).unwrap();
            assert_eq!(p.recv_bytes(fd, 10), Err(Errno::EWOULDBLOCK));
            let mut sent = 0;
            loop {
                match p.send_bytes(fd, &[7; 10_000]) {
                    Ok(n) => sent += n,
                    Err(e) => {
                        assert_eq!(e, Errno::EWOULDBLOCK);
                        break;
                    }
                }
            }
            p.sleep(ms(1));
            sent
        },
        |p, fd| {
            p.sleep(ms(5));
            let f = MsgFlags {
                dontwait: true,
                ..MsgFlags::default()
            };
            let va = p.mmap(1 << 20, Prot::RW).unwrap();
            let n = p.recv(fd, va, 1 << 20, f).unwrap();
            assert!(n > 0);
        },
    );
}

#[test]
fn peek_leaves_the_data_and_waitall_waits_for_all_of_it() {
    pair(
        5,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let peek = MsgFlags {
                peek: true,
                ..MsgFlags::default()
            };
            let all = MsgFlags {
                waitall: true,
                ..MsgFlags::default()
            };
            let n = p.recv(fd, va, 2, peek).unwrap();
            assert_eq!(p.load_vec(va, n), &b"ab"[..n]);
            assert_eq!(p.recv(fd, va, 8, all), Ok(8));
            assert_eq!(p.load_vec(va, 8), b"abcdefgh");
            // End of file ends even a WAITALL, short.
            assert_eq!(p.recv(fd, va, 8, all), Ok(2));
        },
        |p, fd| {
            for part in [&b"abc"[..], b"def", b"gh", b"ij"] {
                p.send_all(fd, part).unwrap();
                p.sleep(ms(2));
            }
        },
    );
}

#[test]
fn half_close_lets_the_other_half_go_on() {
    pair(
        6,
        |p, fd| {
            assert_eq!(p.recv_exact(fd, 100).unwrap(), b"request");
            assert_eq!(p.tcp_state(fd), Ok("CLOSE_WAIT"));
            p.send_all(fd, b"answer").unwrap();
        },
        |p, fd| {
            p.send_all(fd, b"request").unwrap();
            p.shutdown(fd, Shut::Wr).unwrap();
            assert_eq!(p.send_bytes(fd, b"more"), Err(Errno::EPIPE));
            assert_eq!(p.signals(Signal::Pipe), 1);
            assert_eq!(p.recv_exact(fd, 100).unwrap(), b"answer");
        },
    );
}

#[test]
fn epipe_raises_sigpipe_unless_told_not_to() {
    pair(
        7,
        |p, fd| p.recv_exact(fd, 1).unwrap(),
        |p, fd| {
            p.shutdown(fd, Shut::Wr).unwrap();
            let va = p.alloc(b"x");
            let quiet = MsgFlags {
                nosignal: true,
                ..MsgFlags::default()
            };
            assert_eq!(p.send(fd, va, 1, quiet), Err(Errno::EPIPE));
            p.setsockopt(fd, SockOpt::NoSigpipe(true)).unwrap();
            assert_eq!(p.write(fd, va, 1), Err(Errno::EPIPE));
            assert_eq!(p.signals(Signal::Pipe), 0);
            p.setsockopt(fd, SockOpt::NoSigpipe(false)).unwrap();
            assert_eq!(p.write(fd, va, 1), Err(Errno::EPIPE));
            assert_eq!(p.signals(Signal::Pipe), 1);
        },
    );
}

#[test]
fn linger_zero_resets_the_peer_once() {
    pair(
        8,
        |p, fd| {
            assert_eq!(p.recv_bytes(fd, 10), Err(Errno::ECONNRESET));
            assert!(
                p.recv_bytes(fd, 10).unwrap().is_empty(),
                "the error is reported once"
            );
            assert_eq!(p.send_bytes(fd, b"x"), Err(Errno::EPIPE));
        },
        |p, fd| {
            p.setsockopt(fd, SockOpt::Linger(Some(0))).unwrap();
            p.close(fd).unwrap();
        },
    );
}

#[test]
fn data_for_a_closed_program_resets_the_sender() {
    pair(
        9,
        |p, fd| p.close(fd).unwrap(),
        |p, fd| {
            assert!(p.recv_bytes(fd, 1).unwrap().is_empty());
            p.send_bytes(fd, b"too late").unwrap();
            p.sleep(ms(5));
            assert_eq!(
                p.getsockopt(fd, SockOptName::Error),
                Ok(i64::from(Errno::ECONNRESET.0))
            );
            assert_eq!(p.send_bytes(fd, b"x"), Err(Errno::EPIPE));
        },
    );
}

#[test]
fn close_with_linger_waits_for_the_data_to_go() {
    pair(
        10,
        |p, fd| {
            p.sleep(ms(50));
            p.recv_exact(fd, 200_000).unwrap().len()
        },
        |p, fd| {
            p.setsockopt(fd, SockOpt::SndBuf(256 * 1024)).unwrap();
            p.setsockopt(fd, SockOpt::Linger(Some(10))).unwrap();
            p.send_all(fd, &pattern(200_000, 1)).unwrap();
            let before = p.now();
            p.close(fd).unwrap();
            assert!(
                p.now() - before > ms(20),
                "close came back at {:?}",
                p.now() - before
            );
        },
    );
}

#[test]
fn shutdown_for_reading_gives_end_of_file_and_discards() {
    pair(
        11,
        |p, fd| {
            p.shutdown(fd, Shut::Rd).unwrap();
            assert!(p.recv_bytes(fd, 10).unwrap().is_empty());
            assert_eq!(p.getsockopt(fd, SockOptName::RcvBuf), Ok(0));
            p.send_all(fd, b"go on").unwrap();
            p.sleep(ms(10));
            assert_eq!(p.fionread(fd), Ok(0));
        },
        |p, fd| {
            assert_eq!(p.recv_exact(fd, 5).unwrap(), b"go on");
            p.send_all(fd, &pattern(300_000, 2)).unwrap();
        },
    );
}

#[test]
fn socket_buffers_take_their_sizes_and_limits() {
    alone(12, |p| {
        let s = p.socket().unwrap();
        assert_eq!(p.getsockopt(s, SockOptName::SndBuf), Ok(32 * 1024));
        assert_eq!(p.getsockopt(s, SockOptName::RcvBuf), Ok(64 * 1024));
        assert_eq!(p.getsockopt(s, SockOptName::SndLowat), Ok(2048));
        p.setsockopt(s, SockOpt::SndBuf(100_000)).unwrap();
        assert_eq!(p.getsockopt(s, SockOptName::SndBuf), Ok(100_000));
        assert_eq!(
            p.setsockopt(s, SockOpt::RcvBuf(64 << 20)),
            Err(Errno::ENOBUFS)
        );
        assert_eq!(p.setsockopt(s, SockOpt::RcvBuf(0)), Err(Errno::EINVAL));
        p.setsockopt(s, SockOpt::RcvLowat(10_000)).unwrap();
        p.setsockopt(s, SockOpt::RcvBuf(5000)).unwrap();
        assert_eq!(
            p.getsockopt(s, SockOptName::RcvLowat),
            Ok(5000),
            "the low mark follows the buffer"
        );
        p.setsockopt(s, SockOpt::NoDelay(true)).unwrap();
        assert_eq!(p.getsockopt(s, SockOptName::NoDelay), Ok(1));
    });
}

#[test]
fn accepted_sockets_inherit_from_the_listener() {
    let k = kernel(13);
    let s = k.spawn(ProcConfig::default(), |p| {
        let l = p.socket().unwrap();
        p.setsockopt(l, SockOpt::RcvBuf(20_000)).unwrap();
        p.setsockopt(l, SockOpt::Linger(Some(3))).unwrap();
        p.setsockopt(l, SockOpt::NoDelay(true)).unwrap();
        p.bind(l, addr("127.0.0.1", PORT)).unwrap();
        p.listen(l, 4).unwrap();
        assert_eq!(p.getsockopt(l, SockOptName::AcceptConn), Ok(1));
        let (fd, _) = p.accept(l).unwrap();
        let rcv = p.getsockopt(fd, SockOptName::RcvBuf).unwrap();
        assert!(
            (20_000..36_000).contains(&rcv) && rcv % 16_344 == 0,
            "rounded up to segments: {rcv}"
        );
        assert_eq!(p.linger(fd).unwrap().map(|d| d.as_secs()), Some(3));
        assert_eq!(p.getsockopt(fd, SockOptName::NoDelay), Ok(1));
        p.setsockopt(fd, SockOpt::Linger(None)).unwrap();
    });
    let c = k.spawn(ProcConfig::default(), |p| {
        let fd = dial(p, PORT);
        let _ = p.recv_bytes(fd, 1);
    });
    s.join();
    c.join();
    k.shutdown();
}

#[test]
fn low_water_mark_holds_a_read_back() {
    pair(
        14,
        |p, fd| {
            p.setsockopt(fd, SockOpt::RcvLowat(1000)).unwrap();
            let got = p.recv_bytes(fd, 5000).unwrap();
            assert!(got.len() >= 1000, "{}", got.len());
            p.recv_exact(fd, 5000).unwrap();
        },
        |p, fd| {
            for _ in 0..10 {
                p.send_all(fd, &[1; 200]).unwrap();
                p.sleep(ms(1));
            }
        },
    );
}

#[test]
fn timeouts_end_blocked_calls() {
    pair(
        15,
        |p, fd| {
            p.setsockopt(fd, SockOpt::RcvTimeo(ms(20))).unwrap();
            let t = p.now();
            assert_eq!(p.recv_bytes(fd, 1), Err(Errno::EWOULDBLOCK));
            assert!(p.now() - t >= ms(19));
            assert!(!p.poll(fd, Poll::IN, Some(ms(5))).unwrap().readable);
            p.send_all(fd, b"x").unwrap();
        },
        |p, fd| p.recv_exact(fd, 1).unwrap(),
    );
}

#[test]
fn poll_wakes_for_data_space_and_hangup() {
    pair(
        16,
        |p, fd| {
            p.wait_readable(fd).unwrap();
            assert_eq!(p.fionread(fd), Ok(3));
            p.recv_exact(fd, 3).unwrap();
            p.wait_readable(fd).unwrap();
            assert!(p.recv_bytes(fd, 1).unwrap().is_empty());
        },
        |p, fd| {
            p.sleep(ms(3));
            p.send_all(fd, b"abc").unwrap();
            p.sleep(ms(3));
            p.close(fd).unwrap();
        },
    );
}

#[test]
fn addresses_in_use_are_refused() {
    alone(17, |p| {
        let a = p.socket().unwrap();
        p.bind(a, addr("127.0.0.1", 7000)).unwrap();
        let b = p.socket().unwrap();
        assert_eq!(p.bind(b, addr("127.0.0.1", 7000)), Err(Errno::EADDRINUSE));
        assert_eq!(p.bind(b, addr("0.0.0.0", 7000)), Err(Errno::EADDRINUSE));
        assert_eq!(p.bind(b, addr("10.9.9.9", 0)), Err(Errno::EADDRNOTAVAIL));
        p.bind(b, addr("0.0.0.0", 0)).unwrap();
        assert!(p.getsockname(b).unwrap().port >= 10_000);
        assert_eq!(p.bind(b, addr("0.0.0.0", 0)), Err(Errno::EINVAL));
        assert_eq!(p.accept(b), Err(Errno::EINVAL));
        assert_eq!(p.getpeername(b), Err(Errno::ENOTCONN));
        assert_eq!(p.recv_bytes(b, 1), Err(Errno::ENOTCONN));
        assert_eq!(p.send_bytes(b, b"x"), Err(Errno::ENOTCONN));
        assert_eq!(p.shutdown(b, Shut::Wr), Err(Errno::ENOTCONN));
        assert_eq!(p.read(99, 0, 0), Err(Errno::EBADF));
    });
}

#[test]
fn connections_nobody_accepts_are_reset_when_the_listener_closes() {
    let k = kernel(18);
    let s = k.spawn(ProcConfig::default(), |p| {
        let l = listener(p, PORT);
        p.wait_readable(l).unwrap();
        p.sleep(ms(2));
        p.close(l).unwrap();
    });
    let c = k.spawn(ProcConfig::default(), |p| {
        let fd = dial(p, PORT);
        assert_eq!(p.recv_bytes(fd, 1), Err(Errno::ECONNRESET));
    });
    s.join();
    c.join();
    k.shutdown();
}

#[test]
fn time_wait_lasts_two_msl_and_then_goes() {
    let k = kernel(19);
    let s = k.spawn(ProcConfig::default(), |p| {
        let l = listener(p, PORT);
        let (fd, _) = p.accept(l).unwrap();
        assert!(p.recv_bytes(fd, 1).unwrap().is_empty());
    });
    let c = k.spawn(ProcConfig::default(), |p| {
        let fd = dial(p, PORT);
        p.close(fd).unwrap();
    });
    c.join();
    s.join();
    k.run_for(ukern::sched::SBT_1S);
    let left = k.netstat();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].state, "TIME_WAIT");
    k.run_for(58 * ukern::sched::SBT_1S);
    assert_eq!(k.netstat().len(), 1);
    k.run_for(5 * ukern::sched::SBT_1S);
    assert!(k.netstat().is_empty());
    k.shutdown();
}

#[test]
fn a_fault_in_the_buffer_is_efault_and_loses_nothing_behind_it() {
    pair(
        20,
        |p, fd| {
            let va = p.mmap(8192, Prot::RW).unwrap();
            p.munmap(va + 4096, 4096).unwrap();
            p.wait_readable(fd).unwrap();
            p.sleep(ms(2));
            assert_eq!(p.read(fd, va + 4096, 100), Err(Errno::EFAULT));
            assert_eq!(
                p.recv_exact(fd, 3000).unwrap(),
                pattern(3000, 9),
                "nothing was taken"
            );
            assert_eq!(p.write(fd, va + 4000, 200), Err(Errno::EFAULT));
        },
        |p, fd| p.send_all(fd, &pattern(3000, 9)).unwrap(),
    );
}

#[test]
fn two_stacks_talk_over_a_shared_network_only() {
    // Without a driver there are no interfaces but lo0, and loopbacks do not join stacks.
    let k = kernel(21);
    let s = k.spawn(ProcConfig::vnet(1), |p| {
        let l = listener(p, PORT);
        p.set_nonblock(l, true).unwrap();
        p.sleep(ms(20));
        assert_eq!(p.accept(l), Err(Errno::EWOULDBLOCK));
    });
    let c = k.spawn(ProcConfig::vnet(0), |p| {
        p.sleep(ms(5));
        let fd = p.socket().unwrap();
        assert_eq!(
            p.connect(fd, addr("127.0.0.1", PORT)),
            Err(Errno::ECONNREFUSED)
        );
    });
    s.join();
    c.join();
    k.shutdown();
}

#[test]
fn send_with_eof_closes_behind_the_data() {
    pair(
        22,
        |p, fd| {
            assert_eq!(p.recv_exact(fd, 100).unwrap(), b"last words");
        },
        |p, fd| {
            let va = p.alloc(b"last words");
            let eof = MsgFlags {
                eof: true,
                ..MsgFlags::default()
            };
            p.send(fd, va, 10, eof).unwrap();
            assert_eq!(p.send_bytes(fd, b"x"), Err(Errno::EPIPE));
        },
    );
}
