//! Processes, threads, signals.

mod ends;

use ends::{alone, dial, kernel, listener, ms, pair};
use ukern::proc::{Errno, Exit, ProcConfig, SigAction, Signal};

#[test]
fn closures_return_values_and_exit_codes() {
    let k = kernel(1);
    assert_eq!(
        k.spawn(ProcConfig::default(), |_| 42).wait(),
        Exit::Returned(42)
    );
    let c = k.spawn(ProcConfig::default(), |p| -> u32 { p.exit(3) });
    assert_eq!(c.wait(), Exit::Code(3));
    k.shutdown();
}

#[test]
fn a_panicking_program_fails_the_test() {
    let k = kernel(2);
    let c = k.spawn(ProcConfig::default(), |_| panic!("program bug"));
    let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _: Exit<()> = c.wait();
    }));
    let msg = *r.unwrap_err().downcast::<&str>().unwrap();
    assert_eq!(msg, "program bug");
}

#[test]
fn the_default_action_of_sigpipe_kills() {
    let k = kernel(3);
    let s = k.spawn(ProcConfig::default(), |p| {
        let l = listener(p, 5001);
        let (fd, _) = p.accept(l).unwrap();
        let _ = p.recv_bytes(fd, 1);
    });
    let c = k.spawn(ProcConfig::default().sigpipe(SigAction::Default), |p| {
        let fd = dial(p, 5001);
        p.shutdown(fd, ukern::proc::Shut::Wr).unwrap();
        let _ = p.send_bytes(fd, b"x");
        unreachable!("killed on the way back from write(2)");
    });
    assert_eq!(c.wait(), Exit::Signal(Signal::Pipe as i32));
    s.join();
    k.shutdown();
}

#[test]
fn signals_interrupt_blocked_calls() {
    let k = kernel(4);
    let s = k.spawn(ProcConfig::default(), |p| {
        p.sigaction(Signal::Usr1, SigAction::Catch);
        p.sigaction(Signal::Usr2, SigAction::Ignore);
        let l = listener(p, 5001);
        assert_eq!(p.accept(l), Err(Errno::EINTR));
        p.signals(Signal::Usr1)
    });
    k.run_for(ukern::sched::SBT_1S / 100);
    s.kill(Signal::Usr2).unwrap();
    k.run_for(ukern::sched::SBT_1S / 100);
    assert!(!s.is_done(), "an ignored signal interrupts nothing");
    s.kill(Signal::Usr1).unwrap();
    assert_eq!(s.join(), 1);
    k.shutdown();
}

#[test]
fn processes_signal_each_other() {
    alone(5, |p| {
        let child = p.fork(|c| c.sleep(ms(1000))).unwrap();
        p.sleep(ms(1));
        p.kill(child.pid(), Signal::Term).unwrap();
        assert_eq!(child.wait(), Exit::Signal(15));
        assert_eq!(p.kill(99_999, Signal::Term), Err(Errno::ESRCH));
    });
}

#[test]
fn exit_closes_descriptors_and_the_peer_sees_it() {
    let k = kernel(6);
    let s = k.spawn(ProcConfig::default(), |p| -> () {
        let l = listener(p, 5001);
        p.accept(l).unwrap();
        p.exit(7)
    });
    let c = k.spawn(ProcConfig::default(), |p| {
        let fd = dial(p, 5001);
        assert!(p.recv_bytes(fd, 1).unwrap().is_empty());
    });
    assert_eq!(s.wait(), Exit::Code(7));
    c.join();
    k.shutdown();
}

#[test]
#[should_panic(expected = "called exit(0)")]
fn join_wants_a_value() {
    let k = kernel(7);
    k.spawn(ProcConfig::default(), |p| p.exit(0)).join();
}

#[test]
fn fork_and_dup_share_the_open_file() {
    pair(
        8,
        |p, fd| {
            let second = p.dup(fd).unwrap();
            p.close(fd).unwrap();
            let child = p
                .fork(move |c| {
                    c.sleep(ms(3));
                    c.send_all(second, b"from the child").unwrap();
                })
                .unwrap();
            p.close(second).unwrap();
            assert_eq!(p.send_bytes(second, b"x"), Err(Errno::EBADF));
            child.join();
        },
        |p, fd| {
            assert_eq!(p.recv_exact(fd, 14).unwrap(), b"from the child");
            assert!(
                p.recv_bytes(fd, 1).unwrap().is_empty(),
                "closed with the last descriptor"
            );
        },
    );
}

#[test]
fn threads_share_memory_and_end_with_the_process() {
    alone(9, |p| {
        let va = p.alloc(&[0; 16]);
        let t = p.thread(move |t| t.store(va, b"thread").unwrap()).unwrap();
        t.join().unwrap();
        assert_eq!(p.load_vec(va, 6), b"thread");
        let l = listener(p, 5001);
        // Blocked for ever: the exit of the process ends it.
        p.thread(move |t| t.accept(l).unwrap()).unwrap();
        p.sleep(ms(1));
    });
}

#[test]
fn descriptors_run_out() {
    let k = kernel(10);
    let cfg = ProcConfig {
        nofile: 3,
        ..ProcConfig::default()
    };
    k.spawn(cfg, |p| {
        let fds: Vec<i32> = (0..3).map(|_| p.socket().unwrap()).collect();
        assert_eq!(fds, [0, 1, 2]);
        assert_eq!(p.socket(), Err(Errno::EMFILE));
        p.close(1).unwrap();
        assert_eq!(p.dup(0), Ok(1));
        assert_eq!(p.close(7), Err(Errno::EBADF));
    })
    .join();
    k.shutdown();
}

#[test]
fn sleep_takes_virtual_time_only() {
    let real = std::time::Instant::now();
    let t = alone(11, |p| {
        let t = p.now();
        p.sleep(std::time::Duration::from_secs(600));
        p.now() - t
    });
    assert!(t.as_secs() >= 600 && t.as_secs() < 601);
    assert!(real.elapsed().as_secs() < 60);
}

#[test]
fn memory_pressure_for_sockets_and_pcbs_is_enobufs() {
    use ukern::fault::Plan;
    let k = kernel(12);
    k.fail("socket", Plan::Nth(1));
    k.spawn(ProcConfig::default(), |p| {
        assert_eq!(p.socket(), Err(Errno::ENOBUFS));
        p.socket().unwrap();
    })
    .join();
    k.fail("inpcb", Plan::Nth(1));
    k.spawn(ProcConfig::default(), |p| {
        assert_eq!(p.socket(), Err(Errno::ENOBUFS));
        p.socket().unwrap();
    })
    .join();
    k.shutdown();
}
