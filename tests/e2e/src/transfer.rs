//! One stream over an offloaded connection: aio_write on one side, aio_read on the other.

use std::collections::VecDeque;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use ukern::proc::{Proc, ProcConfig, Prot, addr};

use crate::bed::{Bed, CLIENT, SERVER, SERVER_IP};

/// Shape of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of each buffer.
    pub buf: usize,
    /// Buffers the sender rotates through, each with a job outstanding.
    pub tx_depth: usize,
    /// The same for the receiver.
    pub rx_depth: usize,
    /// Offset of every buffer in its first page.
    pub offset: usize,
    /// Port to listen on.
    pub port: u16,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            buf: 256 << 10,
            tx_depth: 4,
            rx_depth: 2,
            offset: 0,
            port: 5001,
        }
    }
}

/// What one side did.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// aio jobs.
    pub jobs: u64,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of them, in order.
    pub sha256: String,
    /// Virtual nanoseconds from the first job to the last completion.
    pub nanos: u64,
}

/// Both sides.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Sender.
    pub tx: Side,
    /// Receiver.
    pub rx: Side,
}

fn hex(h: Sha256) -> String {
    h.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn buffers(p: &Proc, shape: &Shape, n: usize) -> Vec<u64> {
    let map = (shape.offset + shape.buf).next_multiple_of(4096);
    (0..n)
        .map(|_| p.mmap(map, Prot::RW).expect("mmap") + shape.offset as u64)
        .collect()
}

/// Send `data` on a connected socket.
///
/// # Panics
/// If a system call fails or a job ends short.
pub fn send(p: &Proc, fd: i32, data: &[u8], shape: &Shape) -> Side {
    let mut free: VecDeque<u64> = buffers(p, shape, shape.tx_depth).into();
    let mut busy = VecDeque::new();
    let mut hash = Sha256::new();
    let mut side = Side::default();
    let begin = p.now();
    let mut chunks = data.chunks(shape.buf);
    loop {
        let (Some(&va), Some(chunk)) = (
            free.front(),
            (!free.is_empty()).then(|| chunks.next()).flatten(),
        ) else {
            let Some((va, cb, len)) = busy.pop_front() else {
                break;
            };
            let n = p.aio_wait(cb).expect("aio_write");
            assert_eq!(n, len, "aio_write ended short");
            free.push_back(va);
            continue;
        };
        free.pop_front();
        hash.update(chunk);
        p.store(va, chunk).expect("store");
        let cb = p.aio_write(fd, va, chunk.len()).expect("aio_write");
        side.jobs += 1;
        side.bytes += chunk.len() as u64;
        busy.push_back((va, cb, chunk.len()));
    }
    side.nanos = (p.now() - begin).as_nanos() as u64;
    side.sha256 = hex(hash);
    side
}

/// Receive until the end of the stream; every piece goes to `sink` in order.
///
/// # Panics
/// If a system call fails.
pub fn receive(p: &Proc, fd: i32, shape: &Shape, mut sink: impl FnMut(&[u8])) -> Side {
    let mut hash = Sha256::new();
    let mut side = Side::default();
    let begin = p.now();
    let mut busy: VecDeque<_> = buffers(p, shape, shape.rx_depth)
        .into_iter()
        .map(|va| (va, p.aio_read(fd, va, shape.buf).expect("aio_read")))
        .collect();
    let mut end = false;
    while let Some((va, cb)) = busy.pop_front() {
        let n = p.aio_wait(cb).expect("aio_read");
        side.jobs += 1;
        if n == 0 {
            end = true;
            continue;
        }
        assert!(!end, "data after the end of the stream");
        let mut got = vec![0; n];
        p.load(va, &mut got).expect("load");
        hash.update(&got);
        sink(&got);
        side.bytes += n as u64;
        side.nanos = (p.now() - begin).as_nanos() as u64;
        busy.push_back((va, p.aio_read(fd, va, shape.buf).expect("aio_read")));
    }
    side.sha256 = hex(hash);
    side
}

/// A whole transfer between two processes: connect, send, close; accept, receive.
///
/// # Panics
/// If a system call fails.
#[must_use]
pub fn run(bed: &Bed, data: Arc<Vec<u8>>, shape: Shape) -> Outcome {
    let server = bed
        .k
        .spawn(ProcConfig::vnet(SERVER).name("receiver"), move |p| {
            let l = p.socket().expect("socket");
            p.bind(l, addr(SERVER_IP, shape.port)).expect("bind");
            p.listen(l, 8).expect("listen");
            let (s, _) = p.accept(l).expect("accept");
            let side = receive(p, s, &shape, |_| ());
            p.close(s).expect("close");
            p.close(l).expect("close");
            side
        });
    bed.k.run_until_idle();
    let client = bed
        .k
        .spawn(ProcConfig::vnet(CLIENT).name("sender"), move |p| {
            let s = p.socket().expect("socket");
            p.connect(s, addr(SERVER_IP, shape.port)).expect("connect");
            assert!(
                p.is_offloaded(s).expect("is_offloaded"),
                "the connection is not offloaded"
            );
            let side = send(p, s, &data, &shape);
            p.close(s).expect("close");
            side
        });
    let tx = client.join();
    let rx = server.join();
    Outcome { tx, rx }
}
