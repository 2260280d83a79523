//! Two programs with a connection between them, over either path.

use std::time::Duration;

use toehold_e2e::bed::{Bed, CLIENT, SERVER, SERVER_IP};
use toehold_e2e::pattern;
use ukern::proc::{AioCb, Child, Errno, Proc, ProcConfig, SockAddr, SockOpt, Sys, VnetId, addr};

/// A millisecond of virtual time.
pub(crate) const MS: Duration = Duration::from_millis(1);

/// Long enough for anything that is under way to come to an end.
pub(crate) const SOON: Duration = Duration::from_millis(50);

/// Port of the peer.
const PORT: u16 = 5001;

/// How the two programs reach each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Path {
    /// cxl0 to cxl1, offloaded at both ends.
    Toe,
    /// lo0: the control.
    Loopback,
}

impl Path {
    /// Where the peer listens.
    pub(crate) fn peer(self) -> SockAddr {
        match self {
            Path::Toe => addr(SERVER_IP, PORT),
            Path::Loopback => addr("127.0.0.1", PORT),
        }
    }

    fn peer_vnet(self) -> VnetId {
        match self {
            Path::Toe => SERVER,
            Path::Loopback => CLIENT,
        }
    }
}

/// One test for each path of every scenario named.
macro_rules! both_ways {
    ($($name:ident)*) => {
        mod toe {
            $(#[test] fn $name() { super::$name(crate::world::Path::Toe); })*
        }
        mod loopback {
            $(#[test] fn $name() { super::$name(crate::world::Path::Loopback); })*
        }
    };
}
pub(crate) use both_ways;

/// A bed, and where its two programs meet.
pub(crate) struct World {
    pub(crate) bed: Bed,
    pub(crate) path: Path,
}

impl World {
    pub(crate) fn up(path: Path, seed: u64) -> World {
        World {
            bed: Bed::up(seed),
            path,
        }
    }

    /// The peer: accepts `n` connections and hands them to `f`.
    pub(crate) fn peers<R: 'static>(
        &self,
        n: usize,
        f: impl FnOnce(&Proc, Vec<i32>) -> R + 'static,
    ) -> Child<R> {
        let at = self.path.peer();
        let how = ProcConfig::vnet(self.path.peer_vnet()).name("peer");
        let child = self.bed.k.spawn(how, move |p| {
            let l = p.socket().unwrap();
            p.setsockopt(l, SockOpt::ReuseAddr(true)).unwrap();
            p.bind(l, at).unwrap();
            p.listen(l, 128).unwrap();
            let fds = (0..n).map(|_| p.accept(l).unwrap().0).collect();
            p.close(l).unwrap();
            f(p, fds)
        });
        self.bed.k.run_until_idle();
        child
    }

    /// A program connected to the peer.
    pub(crate) fn program<R: 'static>(
        &self,
        f: impl FnOnce(&Proc, i32) -> R + 'static,
    ) -> Child<R> {
        let path = self.path;
        self.bed
            .k
            .spawn(ProcConfig::vnet(CLIENT).name("program"), move |p| {
                let s = connect(p, path);
                f(p, s)
            })
    }

    /// The program under test on one end, the peer on the other; what both returned.
    pub(crate) fn run<A: 'static, B: 'static>(
        &self,
        program: impl FnOnce(&Proc, i32) -> A + 'static,
        peer: impl FnOnce(&Proc, i32) -> B + 'static,
    ) -> (A, B) {
        let peer = self.peers(1, |p, fds| peer(p, fds[0]));
        let program = self.program(program);
        (program.join(), peer.join())
    }

    /// Nothing is left of the connections, the jobs and their pages.
    pub(crate) fn down(self) {
        self.bed.settle();
        assert_eq!(self.bed.stat("wired_pages"), 0, "pages left wired");
        assert_eq!(self.bed.k.wired_pages(), 0, "pages left wired");
        assert_eq!(self.bed.stat("toepcbs"), 0, "connections left");
        self.bed.down();
    }
}

/// [`World::run`] in a world of its own.
pub(crate) fn run<A: 'static, B: 'static>(
    path: Path,
    seed: u64,
    program: impl FnOnce(&Proc, i32) -> A + 'static,
    peer: impl FnOnce(&Proc, i32) -> B + 'static,
) -> (A, B) {
    let w = World::up(path, seed);
    let r = w.run(program, peer);
    w.down();
    r
}

/// A connection to the peer that takes the path it should.
pub(crate) fn connect(p: &Proc, path: Path) -> i32 {
    let s = p.socket().unwrap();
    p.connect(s, path.peer()).unwrap();
    assert_eq!(
        p.is_offloaded(s).unwrap(),
        path == Path::Toe,
        "a connection on the wrong path"
    );
    s
}

/// Closes with a reset.
pub(crate) fn reset(p: &Proc, fd: i32) {
    p.setsockopt(fd, SockOpt::Linger(Some(0))).unwrap();
    p.close(fd).unwrap();
}

/// Is the job still under way?
pub(crate) fn in_progress(p: &Proc, cb: AioCb) -> bool {
    p.aio_error(cb) == Ok(Errno::EINPROGRESS.0)
}

/// The result of a job that has to end soon.
pub(crate) fn ended(p: &Proc, cb: AioCb) -> Sys<usize> {
    match p.aio_suspend(&[cb], Some(Duration::from_secs(10))) {
        Ok(()) => p.aio_return(cb),
        Err(e) => panic!("a job did not end: {e:?}"),
    }
}

/// Reads to the end of the stream, which is the pattern of `seed` from `at` on; its length.
pub(crate) fn read_to_end(p: &Proc, fd: i32, seed: u64, mut at: u64) -> u64 {
    loop {
        let got = p.recv_bytes(fd, 65_536).unwrap();
        if got.is_empty() {
            return at;
        }
        pattern::check(seed, at, &got);
        at += got.len() as u64;
    }
}

/// The bytes of a job that ended with `n`, checked against the stream at `at`; where it goes on.
pub(crate) fn check_at(p: &Proc, va: u64, n: usize, seed: u64, at: u64) -> u64 {
    pattern::check(seed, at, &p.load_vec(va, n));
    at + n as u64
}
