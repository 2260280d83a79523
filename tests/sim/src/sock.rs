//! A socket: two buffers of chunks and what the kernel keeps beside them.

use std::collections::VecDeque;

use toehold_core::errno::Errno;
use toehold_core::os::JobId;

use crate::mem;

/// One physical run of so_snd, within a page.
#[derive(Clone, Copy, Debug)]
pub struct Seg {
    /// Bus address.
    pub pa: u64,
    /// Bytes.
    pub len: u32,
    /// The write job, and the page set of it that it refers to; `None`: a page of the kernel's,
    /// freed with it.
    pub job: Option<(JobId, u16)>,
    /// Number of the sendfile(2) whose data is not there yet (M_NOTREADY); 0: it is.
    pub wait: u32,
}

/// What a reader inside the receive I/O lock waits for, beside the end of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stay {
    /// Any byte.
    Any,
    /// All that it asked for (MSG_WAITALL); it takes what comes meanwhile.
    All,
    /// So many bytes in so_rcv (SO_RCVLOWAT).
    Lowat(u32),
}

/// so_rcv.
#[derive(Debug)]
pub struct Rcv {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are gone.
    gone: usize,
    len: usize,
    /// sb_hiwat.
    pub hiwat: u32,
    /// sb_lowat.
    pub lowat: u32,
    /// SBS_CANTRCVMORE.
    pub shut: bool,
    /// A read(2) is inside the I/O lock.
    pub reader: bool,
    /// We are.
    pub locked: bool,
    /// Read jobs that the generic path has.
    pub generic: usize,
    /// SB_AUTOSIZE, up to so many bytes; 0: off.
    pub auto_max: u32,
}

impl Rcv {
    /// Empty.
    #[must_use]
    pub fn new(hiwat: u32) -> Rcv {
        Rcv {
            chunks: VecDeque::new(),
            gone: 0,
            len: 0,
            hiwat,
            lowat: 1,
            shut: false,
            reader: false,
            locked: false,
            generic: 0,
            auto_max: 0,
        }
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// sbappendstream.
    pub fn append(&mut self, m: Vec<u8>) {
        self.len += m.len();
        self.chunks.push_back(m);
    }

    /// Take up to `max` bytes from the front.
    pub fn take(&mut self, max: usize) -> Vec<u8> {
        let n = max.min(self.len);
        let mut out = Vec::with_capacity(n);
        while out.len() < n {
            let head = &self.chunks[0][self.gone..];
            let k = head.len().min(n - out.len());
            out.extend_from_slice(&head[..k]);
            self.gone += k;
            if self.gone == self.chunks[0].len() {
                self.chunks.pop_front();
                self.gone = 0;
            }
        }
        self.len -= n;
        out
    }
}

/// so_snd.
#[derive(Debug)]
pub struct Snd {
    /// Not acknowledged, oldest first.
    pub segs: VecDeque<Seg>,
    used: u32,
    /// Bytes at the front that the adapter has.
    pub sent: u32,
    /// sb_hiwat.
    pub hiwat: u32,
    /// sb_lowat.
    pub lowat: u32,
    /// SBS_CANTSENDMORE.
    pub shut: bool,
    /// A write(2) is inside the I/O lock.
    pub writer: bool,
    /// We are.
    pub locked: bool,
    /// SB_AUTOSIZE, up to so many bytes; 0: off.
    pub auto_max: u32,
    /// Write jobs that the generic path has.
    pub generic: usize,
}

impl Snd {
    /// Empty.
    #[must_use]
    pub fn new(hiwat: u32) -> Snd {
        Snd {
            segs: VecDeque::new(),
            used: 0,
            sent: 0,
            hiwat,
            lowat: 2048.min(hiwat),
            shut: false,
            writer: false,
            locked: false,
            auto_max: 0,
            generic: 0,
        }
    }

    /// Bytes in it.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Room.
    #[must_use]
    pub fn space(&self) -> i32 {
        self.hiwat as i32 - self.used as i32
    }

    /// Append a run.
    pub fn append(&mut self, seg: Seg) {
        self.used += seg.len;
        self.segs.push_back(seg);
    }

    /// Bytes copied by write(2).
    pub fn append_copy(&mut self, mem: &mem::Shared, bytes: &[u8], wait: u32) {
        for part in bytes.chunks(mem::PAGE) {
            let mut m = mem.borrow_mut();
            let pa = m.kernel_page();
            m.write(pa, part);
            drop(m);
            self.append(Seg {
                pa,
                len: part.len() as u32,
                job: None,
                wait,
            });
        }
    }

    /// sbdrop: the runs that are gone with it.
    pub fn drop_front(&mut self, n: u32) -> Vec<Seg> {
        let mut out = Vec::new();
        let mut left = n;
        while left > 0 {
            let seg = self.segs.front_mut().expect("dropped more than there is");
            let cut = left.min(seg.len);
            // The page is known by any address in it.
            seg.pa += u64::from(cut);
            seg.len -= cut;
            left -= cut;
            if seg.len == 0 {
                let mut seg = self.segs.pop_front().expect("just seen");
                seg.pa -= u64::from(cut);
                out.push(seg);
            }
        }
        self.used -= n;
        self.sent = self.sent.saturating_sub(n);
        out
    }

    /// sbflush.
    pub fn drop_all(&mut self) -> Vec<Seg> {
        self.sent = 0;
        self.used = 0;
        self.segs.drain(..).collect()
    }

    /// sbready: the data of a sendfile(2) is there.
    pub fn ready(&mut self, wait: u32) {
        for s in self.segs.iter_mut().filter(|s| s.wait == wait) {
            s.wait = 0;
        }
    }

    /// Unsent runs that are ready.
    pub fn unsent(&self) -> impl Iterator<Item = Seg> + '_ {
        let mut skip = self.sent;
        let ready = self.segs.iter().take_while(|s| s.wait == 0);
        ready.filter_map(move |s| {
            let cut = skip.min(s.len);
            skip -= cut;
            (cut < s.len).then_some(Seg {
                pa: s.pa + u64::from(cut),
                len: s.len - cut,
                job: s.job,
                wait: 0,
            })
        })
    }
}

/// The socket.
#[derive(Debug)]
pub struct Sock {
    /// so_rcv.
    pub rcv: Rcv,
    /// so_snd.
    pub snd: Snd,
    /// so_error.
    pub error: Option<Errno>,
    /// SS_NBIO.
    pub nonblocking: bool,
    /// soisdisconnected was called.
    pub disconnected: bool,
    /// The program has closed it.
    pub closed: bool,
    /// SIGPIPEs.
    pub sigpipes: u32,
}
