//! Asynchronous I/O on plain sockets.

mod ends;

use ends::{alone, dial, kernel, listener, ms, pair, pattern};
use ukern::proc::{AioCancel, AioCb, Errno, ProcConfig, Prot, Shut, Signal, SockOpt};

#[test]
fn a_read_that_waits_completes_with_the_data() {
    pair(
        1,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_read(fd, va, 4096).unwrap();
            assert_eq!(p.aio_error(cb), Ok(Errno::EINPROGRESS.0));
            assert_eq!(p.aio_return(cb), Err(Errno::EINVAL), "not finished");
            assert_eq!(p.aio_wait(cb), Ok(5));
            assert_eq!(p.load_vec(va, 5), b"hello");
            assert_eq!(p.aio_return(cb), Err(Errno::EINVAL), "returned once");
            assert_eq!(p.aio_error(cb), Ok(Errno::EINVAL.0));
        },
        |p, fd| {
            p.sleep(ms(2));
            p.send_all(fd, b"hello").unwrap();
        },
    );
}

#[test]
fn a_write_larger_than_the_buffer_completes_whole() {
    for seed in 0..6 {
        let data = pattern(500_000, seed as u8);
        let want = data.clone();
        let (got, ()) = pair(
            seed,
            |p, fd| p.recv_exact(fd, 500_000).unwrap(),
            move |p, fd| {
                let va = p.alloc(&data);
                let cb = p.aio_write(fd, va, data.len()).unwrap();
                assert_eq!(p.aio_wait(cb), Ok(500_000));
            },
        );
        assert!(got == want, "seed {seed}");
    }
}

#[test]
fn queued_reads_are_served_in_order() {
    pair(
        3,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cbs: Vec<AioCb> = (0..4)
                .map(|i| p.aio_read(fd, va + i * 100, 3).unwrap())
                .collect();
            p.send_all(fd, b"go").unwrap();
            for (i, cb) in cbs.iter().enumerate() {
                assert_eq!(p.aio_wait(*cb), Ok(3));
                assert_eq!(
                    p.load_vec(va + i as u64 * 100, 3),
                    &b"aaabbbcccddd"[i * 3..i * 3 + 3]
                );
            }
        },
        |p, fd| {
            p.recv_exact(fd, 2).unwrap();
            p.send_all(fd, b"aaabbbcccddd").unwrap();
        },
    );
}

#[test]
fn end_of_file_and_reset_reach_queued_reads() {
    pair(
        4,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let a = p.aio_read(fd, va, 10).unwrap();
            let b = p.aio_read(fd, va, 10).unwrap();
            assert_eq!(p.aio_wait(a), Ok(0));
            assert_eq!(p.aio_wait(b), Ok(0));
        },
        |p, fd| {
            p.sleep(ms(2));
            p.close(fd).unwrap();
        },
    );
    pair(
        5,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let a = p.aio_read(fd, va, 10).unwrap();
            let b = p.aio_read(fd, va, 10).unwrap();
            // The first takes the error with it, as measured on FreeBSD.
            assert_eq!(p.aio_wait(a), Err(Errno::ECONNRESET));
            assert_eq!(p.aio_wait(b), Ok(0));
        },
        |p, fd| {
            p.sleep(ms(2));
            p.setsockopt(fd, SockOpt::Linger(Some(0))).unwrap();
            p.close(fd).unwrap();
        },
    );
}

#[test]
fn a_waiting_read_can_be_cancelled() {
    pair(
        6,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_read(fd, va, 10).unwrap();
            p.sleep(ms(1));
            assert_eq!(p.aio_cancel(fd, Some(cb)), Ok(AioCancel::Canceled));
            assert_eq!(p.aio_error(cb), Ok(Errno::ECANCELED.0));
            assert_eq!(p.aio_wait(cb), Err(Errno::ECANCELED));
            assert_eq!(p.aio_cancel(fd, Some(cb)), Ok(AioCancel::AllDone));
            p.send_all(fd, b"x").unwrap();
            assert_eq!(
                p.recv_exact(fd, 4).unwrap(),
                b"data",
                "the cancelled read took nothing"
            );
        },
        |p, fd| {
            p.recv_exact(fd, 1).unwrap();
            p.send_all(fd, b"data").unwrap();
        },
    );
}

#[test]
fn cancel_of_everything_on_a_descriptor() {
    pair(
        7,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cbs: Vec<AioCb> = (0..3).map(|_| p.aio_read(fd, va, 10).unwrap()).collect();
            let other = p.socket().unwrap();
            assert_eq!(p.aio_cancel(other, None), Ok(AioCancel::AllDone));
            assert_eq!(p.aio_cancel(fd, None), Ok(AioCancel::Canceled));
            for cb in cbs {
                assert_eq!(p.aio_wait(cb), Err(Errno::ECANCELED));
            }
            assert_eq!(p.aio_cancel(77, None), Err(Errno::EBADF));
        },
        |p, fd| p.recv_bytes(fd, 1).unwrap(),
    );
}

#[test]
fn a_partly_written_job_that_is_cancelled_tells_the_short_count() {
    pair(
        8,
        |p, fd| {
            p.sleep(ms(20));
            let mut n = 0;
            loop {
                let part = p.recv_bytes(fd, 65_536).unwrap();
                if part.is_empty() {
                    return n;
                }
                n += part.len();
            }
        },
        |p, fd| {
            let data = pattern(1 << 20, 4);
            let va = p.alloc(&data);
            let cb = p.aio_write(fd, va, data.len()).unwrap();
            p.sleep(ms(5));
            // It fills the buffers and waits: not cancelled, but over.
            assert_eq!(p.aio_cancel(fd, Some(cb)), Ok(AioCancel::NotCanceled));
            let n = p.aio_wait(cb).unwrap();
            assert!(n > 0 && n < data.len(), "{n}");
            p.close(fd).unwrap();
        },
    );
}

#[test]
fn cancels_and_completions_race_without_loss_in_many_schedules() {
    for seed in 0..40 {
        let (got, ()) = pair(
            seed,
            move |p, fd| {
                let va = p.mmap(4096, Prot::RW).unwrap();
                let mut got = Vec::new();
                while got.len() < 40 {
                    let cb = p.aio_read(fd, va, 7).unwrap();
                    p.yield_now();
                    let how = p.aio_cancel(fd, Some(cb)).unwrap();
                    match p.aio_wait(cb) {
                        Ok(n) => {
                            assert_ne!(
                                how,
                                AioCancel::Canceled,
                                "seed {seed}: cancelled, yet it moved {n}"
                            );
                            got.extend(p.load_vec(va, n));
                        }
                        Err(e) => assert_eq!(e, Errno::ECANCELED),
                    }
                }
                got
            },
            |p, fd| {
                for b in 0..40 {
                    p.send_all(fd, &[b]).unwrap();
                }
            },
        );
        assert_eq!(got, (0..40).collect::<Vec<u8>>(), "seed {seed}");
    }
}

#[test]
fn exit_with_requests_outstanding_cancels_them() {
    pair(
        10,
        |p, fd| {
            let va = p.mmap(1 << 20, Prot::RW).unwrap();
            for _ in 0..5 {
                p.aio_read(fd, va, 4096).unwrap();
            }
            for _ in 0..3 {
                p.aio_write(fd, va, 1 << 20).unwrap();
            }
            p.sleep(ms(1));
            assert!(p.aio_pending() >= 5);
            // Exit without waiting; the kernel's own checks at shutdown do the rest.
        },
        |p, fd| {
            p.sleep(ms(30));
            while let Ok(b) = p.recv_bytes(fd, 65_536) {
                if b.is_empty() {
                    break;
                }
            }
        },
    );
}

#[test]
fn a_killed_process_is_run_down_too() {
    let k = kernel(11);
    let s = k.spawn(ProcConfig::default(), |p| {
        let l = listener(p, 5001);
        let (fd, _) = p.accept(l).unwrap();
        let va = p.mmap(4096, Prot::RW).unwrap();
        let cb = p.aio_read(fd, va, 4096).unwrap();
        let _ = p.aio_wait(cb);
        unreachable!("killed while it waits");
    });
    let c = k.spawn(ProcConfig::default(), |p| {
        let fd = dial(p, 5001);
        let _ = p.recv_bytes(fd, 1);
    });
    k.run_for(ukern::sched::SBT_1S / 10);
    s.kill(Signal::Kill).unwrap();
    assert_eq!(s.wait(), ukern::proc::Exit::Signal(9));
    c.join();
    k.shutdown();
}

#[test]
fn suspend_times_out_and_is_interrupted() {
    let k = kernel(12);
    let s = k.spawn(ProcConfig::default(), |p| {
        use ukern::proc::SigAction;
        p.sigaction(Signal::Usr1, SigAction::Catch);
        let l = listener(p, 5001);
        let (fd, _) = p.accept(l).unwrap();
        let va = p.mmap(4096, Prot::RW).unwrap();
        assert_eq!(
            p.aio_suspend(&[AioCb(va)], None),
            Err(Errno::EAGAIN),
            "no request was ever made"
        );
        let cb = p.aio_read(fd, va, 10).unwrap();
        assert_eq!(p.aio_suspend(&[cb], Some(ms(5))), Err(Errno::EAGAIN));
        assert_eq!(p.aio_suspend(&[cb], None), Err(Errno::EINTR));
        assert_eq!(p.signals(Signal::Usr1), 1);
        assert_eq!(
            p.aio_error(cb),
            Ok(Errno::EINPROGRESS.0),
            "an interrupted wait leaves the request"
        );
        p.aio_cancel(fd, None).unwrap();
        assert_eq!(p.aio_suspend(&[cb], None), Ok(()));
        p.aio_return(cb).unwrap_err();
    });
    let c = k.spawn(ProcConfig::default(), |p| {
        let fd = dial(p, 5001);
        let _ = p.recv_bytes(fd, 1);
    });
    k.run_for(ukern::sched::SBT_1S / 20);
    s.kill(Signal::Usr1).unwrap();
    s.join();
    c.join();
    k.shutdown();
}

#[test]
fn completion_can_post_a_signal() {
    pair(
        23,
        |p, fd| {
            p.sigaction(Signal::Io, ukern::proc::SigAction::Catch);
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_read_signal(fd, va, 10, Signal::Io).unwrap();
            p.sleep(ms(100));
            assert_eq!(p.signals(Signal::Io), 1, "the sleep ended early");
            assert_eq!(p.aio_return(cb), Ok(2));
        },
        |p, fd| {
            p.sleep(ms(2));
            p.send_all(fd, b"hi").unwrap();
        },
    );
}

#[test]
fn waitcomplete_hands_out_in_order_of_completion() {
    pair(
        13,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            assert_eq!(p.aio_waitcomplete(Some(ms(1))), Err(Errno::EAGAIN));
            let a = p.aio_read(fd, va, 2).unwrap();
            let b = p.aio_read(fd, va + 8, 2).unwrap();
            p.send_all(fd, b"x").unwrap();
            assert_eq!(p.aio_waitcomplete(None), Ok((a, Ok(2))));
            assert_eq!(p.aio_waitcomplete(None), Ok((b, Ok(2))));
            let c = p.aio_read(fd, va, 2).unwrap();
            p.aio_cancel(fd, Some(c)).unwrap();
            assert_eq!(p.aio_waitcomplete(None), Ok((c, Err(Errno::ECANCELED))));
        },
        |p, fd| {
            p.recv_exact(fd, 1).unwrap();
            p.send_all(fd, b"abcd").unwrap();
            let _ = p.recv_bytes(fd, 1);
        },
    );
}

#[test]
fn refused_requests_leave_their_error_in_the_aiocb() {
    alone(14, |p| {
        let va = p.mmap(4096, Prot::RW).unwrap();
        assert_eq!(p.aio_read(55, va, 10), Err(Errno::EBADF));
        let l = listener(p, 5001);
        assert_eq!(
            p.aio_read(l, va, 10),
            Err(Errno::EINVAL),
            "a listener has nothing to read"
        );
        assert_eq!(p.aio_fsync(l), Err(Errno::EINVAL));
        assert_eq!(p.aio_read(l, va, usize::MAX), Err(Errno::EINVAL));
    });
}

#[test]
fn at_most_so_many_requests_per_process() {
    pair(
        15,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let mut n = 0;
            let e = loop {
                match p.aio_read(fd, va, 1) {
                    Ok(_) => n += 1,
                    Err(e) => break e,
                }
            };
            assert_eq!((n, e), (256, Errno::EAGAIN));
            assert_eq!(p.aio_cancel(fd, None), Ok(AioCancel::Canceled));
            for _ in 0..n {
                p.aio_waitcomplete(None).unwrap().1.unwrap_err();
            }
            p.aio_read(fd, va, 1).unwrap();
        },
        |p, fd| {
            p.sleep(ms(50));
            p.close(fd).unwrap();
        },
    );
}

#[test]
fn closing_the_descriptor_leaves_the_request_and_the_peer_waiting() {
    pair(
        16,
        |p, fd| {
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_read(fd, va, 10).unwrap();
            p.close(fd).unwrap();
            p.sleep(ms(1));
            assert_eq!(
                p.aio_error(cb),
                Ok(Errno::EINPROGRESS.0),
                "the job holds the socket"
            );
            assert_eq!(p.aio_wait(cb), Ok(4));
        },
        |p, fd| {
            p.set_nonblock(fd, true).unwrap();
            p.sleep(ms(5));
            assert_eq!(
                p.recv_bytes(fd, 1),
                Err(Errno::EWOULDBLOCK),
                "no end of file while the job lives"
            );
            p.send_all(fd, b"late").unwrap();
            p.set_nonblock(fd, false).unwrap();
            assert!(p.recv_bytes(fd, 1).unwrap().is_empty());
        },
    );
}

#[test]
fn nonblocking_sockets_queue_reads_and_write_short() {
    pair(
        17,
        |p, fd| {
            p.set_nonblock(fd, true).unwrap();
            let va = p.mmap(1 << 20, Prot::RW).unwrap();
            let r = p.aio_read(fd, va, 10).unwrap();
            p.sleep(ms(1));
            assert_eq!(p.aio_error(r), Ok(Errno::EINPROGRESS.0));
            let w = p.aio_write(fd, va, 1 << 20).unwrap();
            let n = p.aio_wait(w).unwrap();
            assert!(n > 0 && n < 1 << 20, "{n}");
            assert_eq!(p.aio_wait(r), Ok(2));
            n
        },
        |p, fd| {
            p.sleep(ms(10));
            p.send_all(fd, b"ok").unwrap();
            while !p.recv_bytes(fd, 65_536).unwrap().is_empty() {}
        },
    );
}

#[test]
fn a_fault_fails_the_job() {
    pair(
        18,
        |p, fd| {
            let va = p.mmap(4096, Prot::R).unwrap();
            let cb = p.aio_read(fd, va, 10).unwrap();
            assert_eq!(p.aio_wait(cb), Err(Errno::EFAULT));
            let cb = p.aio_write(fd, 0x1234_5000, 10).unwrap();
            assert_eq!(p.aio_wait(cb), Err(Errno::EFAULT));
        },
        |p, fd| {
            p.send_all(fd, b"0123456789").unwrap();
            let _ = p.recv_bytes(fd, 1);
        },
    );
}

#[test]
fn a_write_to_a_closed_half_fails_with_a_signal() {
    pair(
        19,
        |p, fd| {
            p.shutdown(fd, Shut::Wr).unwrap();
            let va = p.alloc(b"x");
            let cb = p.aio_write(fd, va, 1).unwrap();
            assert_eq!(p.aio_wait(cb), Err(Errno::EPIPE));
            assert_eq!(p.signals(Signal::Pipe), 1);
        },
        |p, fd| p.recv_bytes(fd, 1).unwrap(),
    );
}

#[test]
fn vectored_requests_scatter_and_gather() {
    pair(
        20,
        |p, fd| {
            let va = p.mmap(8192, Prot::RW).unwrap();
            let cb = p
                .aio_readv(fd, &[(va, 3), (va + 100, 0), (va + 4094, 5)])
                .unwrap();
            assert_eq!(p.aio_wait(cb), Ok(8));
            assert_eq!(p.load_vec(va, 3), b"abc");
            assert_eq!(p.load_vec(va + 4094, 5), b"defgh");
            assert_eq!(p.aio_readv(fd, &[(va, 1); 1025]), Err(Errno::EINVAL));
        },
        |p, fd| {
            let va = p.alloc(b"fghabcde");
            let cb = p.aio_writev(fd, &[(va + 3, 5), (va, 3)]).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(8));
        },
    );
}

#[test]
fn mlock_runs_in_the_daemon_under_the_limit() {
    let k = kernel(21);
    let s = k.spawn(ProcConfig::default().memlock(8192), |p| {
        let va = p.mmap(16_384, Prot::RW).unwrap();
        let cb = p.aio_mlock(va, 8192).unwrap();
        assert_eq!(p.aio_wait(cb), Ok(0));
        assert!(
            p.phys_of(va).is_some() && p.phys_of(va + 8192).is_none(),
            "locked pages are resident"
        );
        let cb = p.aio_mlock(va + 8192, 4096).unwrap();
        assert_eq!(p.aio_wait(cb), Err(Errno::ENOMEM));
        p.munlock(va, 8192).unwrap();
        p.mlock(va + 8192, 4096).unwrap();
    });
    s.join();
    k.shutdown();
}

#[test]
fn exec_runs_requests_down_and_drops_the_memory() {
    pair(
        22,
        |p, fd| {
            let va = p.alloc(b"old");
            p.aio_read(fd, va, 3).unwrap();
            p.exec().unwrap();
            assert_eq!(p.aio_pending(), 0);
            assert_eq!(p.load(va, &mut [0; 3]), Err(Errno::EFAULT));
            let va = p.mmap(4096, Prot::RW).unwrap();
            let cb = p.aio_read(fd, va, 3).unwrap();
            assert_eq!(p.aio_wait(cb), Ok(3));
        },
        |p, fd| {
            p.sleep(ms(5));
            p.send_all(fd, b"new").unwrap();
        },
    );
}

#[test]
fn reading_and_writing_at_once_from_two_threads_of_control() {
    for seed in 0..10 {
        pair(
            seed,
            |p, fd| {
                let va = p.mmap(1 << 16, Prot::RW).unwrap();
                let out = p.alloc(&pattern(1 << 16, 1));
                let w = p.aio_write(fd, out, 1 << 16).unwrap();
                let mut got = Vec::new();
                while got.len() < 1 << 16 {
                    let cb = p.aio_read(fd, va, 10_000).unwrap();
                    let n = p.aio_wait(cb).unwrap();
                    got.extend(p.load_vec(va, n));
                }
                assert_eq!(p.aio_wait(w), Ok(1 << 16));
                assert!(got == pattern(1 << 16, 2));
            },
            |p, fd| {
                let data = pattern(1 << 16, 2);
                let t = p
                    .thread(move |p| {
                        p.send_all(fd, &data).unwrap();
                    })
                    .unwrap();
                assert!(p.recv_exact(fd, 1 << 16).unwrap() == pattern(1 << 16, 1));
                t.join();
            },
        );
    }
}
